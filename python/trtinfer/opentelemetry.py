"""OpenTelemetry spans of a session's requests; needs ``pip install 'trtinfer[opentelemetry]'``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry import context, trace
from opentelemetry.trace import Status, StatusCode
from opentelemetry.util.types import AttributeValue

from trtinfer import _core
from trtinfer.errors import BackendError, ClosedError, DeadlineExceededError
from trtinfer.trace import RequestTrace

#: The exception of an outcome. Who cancels a request meets no error.
_ERRORS = {"failed": BackendError, "expired": DeadlineExceededError, "closed": ClosedError}


class RequestSpans:
    """A trace hook: each request becomes the spans ``queue`` and ``compute``.

    They are children of the span that was current where the request was made (also in asyncio); a
    request made outside of any gets a span ``infer`` around them. A request that was never launched
    has no ``compute``. The span in which a request failed, expired or was closed has the status
    ERROR and ``error.type``, the exception that its caller got.

    Attributes beside those of OpenTelemetry's semantic conventions are ``trtinfer.outcome``,
    ``trtinfer.request.samples`` and, of ``compute``, ``trtinfer.batch.size``.
    """

    def __init__(
        self,
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        """Make a hook for ``Session(trace=...)``.

        Args:
            attributes: Of every span, the model's name for one.
            tracer_provider: None: the global one.
        """
        self._attributes = dict(attributes or {})
        self._tracer = trace.get_tracer("trtinfer", _core.__version__, tracer_provider)

    def __call__(self, requests: Sequence[RequestTrace]) -> None:
        """Make spans of requests that have ended."""
        for request in requests:
            parent = request.context.run(context.get_current)
            if trace.get_current_span(parent).get_span_context().is_valid:
                self._add_stages(request, parent)
                continue
            whole = self._start("infer", request, parent, request.arrival)
            self._add_stages(request, trace.set_span_in_context(whole, parent))
            self._end(whole, request, request.finished)

    def _add_stages(self, request: RequestTrace, parent: context.Context) -> None:
        queue = self._start("queue", request, parent, request.arrival)
        if request.launched is None:
            self._end(queue, request, request.finished)
            return
        queue.end(request.launched)
        compute = self._start("compute", request, parent, request.launched)
        compute.set_attribute("trtinfer.batch.size", request.batch_size)
        self._end(compute, request, request.finished)

    def _start(
        self, name: str, request: RequestTrace, parent: context.Context, time: int
    ) -> trace.Span:
        attributes: dict[str, AttributeValue] = {
            **self._attributes,
            "trtinfer.outcome": request.outcome,
            "trtinfer.request.samples": request.samples,
        }
        return self._tracer.start_span(name, parent, attributes=attributes, start_time=time)

    @staticmethod
    def _end(span: trace.Span, request: RequestTrace, time: int) -> None:
        error = _ERRORS.get(request.outcome)
        if error is not None:
            span.set_attribute("error.type", f"{error.__module__}.{error.__qualname__}")
            span.set_status(Status(StatusCode.ERROR, request.error or request.outcome))
        span.end(time)
