"""Spans of requests, made by OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import models
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from waiting import PATIENCE, keep_busy

import trtinfer
from trtinfer.opentelemetry import RequestSpans

ONE = np.float32(1)


class Recorder:
    """A tracer provider that keeps every span."""

    def __init__(self, **options: object) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("the application")

    def open(self, model: bytes, **options: object) -> trtinfer.Session:
        spans = RequestSpans({"model": "m"}, tracer_provider=self.provider)
        return trtinfer.Session(model, trace=spans, **options)

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.name == name]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.provider.shutdown()


def test_stages_are_children_of_the_callers_span(recorder):
    with recorder.open(models.slow_model(), max_inflight=1) as session:
        keep_busy(session)
        before = time.time_ns()
        with recorder.tracer.start_as_current_span("handler") as handler:
            session.infer(np.ones(2, np.float32))
        after = time.time_ns()
    parent = handler.get_span_context()
    queue, compute = (
        next(s for s in recorder.named(name) if s.parent and s.parent.span_id == parent.span_id)
        for name in ("queue", "compute")
    )
    assert queue.context.trace_id == compute.context.trace_id == parent.trace_id
    assert before <= queue.start_time <= queue.end_time == compute.start_time <= compute.end_time
    assert compute.end_time <= after
    assert queue.end_time - queue.start_time > 0
    common = {"model": "m", "trtinfer.outcome": "completed", "trtinfer.request.samples": 2}
    assert dict(queue.attributes) == common
    assert dict(compute.attributes) == {**common, "trtinfer.batch.size": 2}
    for span in (queue, compute):
        assert span.kind is SpanKind.INTERNAL
        assert span.status.status_code is StatusCode.UNSET
        assert span.instrumentation_scope.name == "trtinfer"
        assert span.instrumentation_scope.version == trtinfer.__version__


def test_each_task_and_each_future_has_its_own_parent(recorder):
    async def handle(session: trtinfer.Session, name: str) -> None:
        with recorder.tracer.start_as_current_span(name):
            await session.ainfer(ONE)

    async def handle_all(session: trtinfer.Session) -> None:
        await asyncio.gather(*(handle(session, f"task {i}") for i in range(5)))

    with recorder.open(models.slow_model()) as session:
        asyncio.run(handle_all(session))
        with recorder.tracer.start_as_current_span("future"):
            future = session.submit(ONE)
        future.result(PATIENCE)
    handlers = {s.context.span_id for s in recorder.spans() if s.parent is None}
    assert len(handlers) == 6
    for name in ("queue", "compute"):
        assert {span.parent.span_id for span in recorder.named(name)} == handlers


def test_without_a_current_span_a_request_is_a_trace_of_its_own(recorder):
    with recorder.open(models.slow_model()) as session:
        session.infer(ONE)
        session.infer(ONE)
    roots = recorder.named("infer")
    assert len(roots) == 2
    assert all(root.parent is None for root in roots)
    for root in roots:
        below = [
            s for s in recorder.spans() if s.parent and s.parent.span_id == root.context.span_id
        ]
        assert [span.name for span in below] == ["queue", "compute"]
        assert below[0].start_time == root.start_time
        assert below[1].end_time == root.end_time
    assert roots[0].context.trace_id != roots[1].context.trace_id


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        ("expired", "trtinfer.errors.DeadlineExceededError"),
        ("closed", "trtinfer.errors.ClosedError"),
        ("cancelled", None),
    ],
)
def test_what_never_ran_has_no_compute(recorder, ending, error):
    session = recorder.open(models.slow_model(), max_batch_size=1, max_inflight=1)
    keep_busy(session)
    with recorder.tracer.start_as_current_span("handler") as handler:
        future = session.submit(ONE, timeout=0.0 if ending == "expired" else None)
    if ending == "cancelled":
        assert future.cancel()
    if ending == "expired":
        assert future.exception(PATIENCE)
    session.close(drain=False)
    (span,) = [
        s
        for s in recorder.spans()
        if s.parent and s.parent.span_id == handler.get_span_context().span_id
    ]
    assert span.name == "queue"
    assert span.attributes["trtinfer.outcome"] == ending
    assert span.attributes.get("error.type") == error
    assert span.status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET)


def test_a_failure_is_an_error_of_its_compute(recorder):
    with (
        recorder.open(models.gather_model()) as session,
        recorder.tracer.start_as_current_span("handler"),
        pytest.raises(trtinfer.BackendError),
    ):
        session.infer(np.int64(99))
    (queue,), (compute,) = recorder.named("queue"), recorder.named("compute")
    assert queue.status.status_code is StatusCode.UNSET
    assert "error.type" not in queue.attributes
    assert compute.status.status_code is StatusCode.ERROR
    assert "99" in compute.status.description
    assert compute.attributes["error.type"] == "trtinfer.errors.BackendError"


def test_what_the_caller_does_not_sample_is_not_recorded():
    recorder = Recorder(sampler=ALWAYS_OFF)
    with (
        recorder.open(models.slow_model()) as session,
        recorder.tracer.start_as_current_span("handler"),
    ):
        session.infer(ONE)
    assert recorder.spans() == []


def test_the_global_provider_serves_where_no_other_is_named():
    recorder = Recorder()
    trace.set_tracer_provider(recorder.provider)  # which a process may do once
    with trtinfer.Session(models.slow_model(), trace=RequestSpans()) as session:
        session.infer(ONE)
    assert [span.name for span in recorder.spans()] == ["queue", "compute", "infer"]
