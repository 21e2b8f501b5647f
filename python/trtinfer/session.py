"""A session: the open model that a user holds."""

from __future__ import annotations

import concurrent.futures
import logging
import os
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar, cast

from trtinfer import (
    _core,
    batch_policy,
    closing,
)
from trtinfer.backend import RingSizes
from trtinfer.completion import FutureCompleter, InferenceFuture, LoopCompleters, marked_async
from trtinfer.errors import InputError
from trtinfer.inputs import Shapes
from trtinfer.intake import Intake
from trtinfer.metrics import Stats
from trtinfer.model_source import ModelSource
from trtinfer.opening import Opening, check
from trtinfer.preprocess import Recipe
from trtinfer.ring import Slot
from trtinfer.tensorrt_options import TensorRtOptions
from trtinfer.trace import TraceDelivery, TraceHook
from trtinfer.types import Outputs, TensorInfo, Timeline

Result = TypeVar("Result")

logger = logging.getLogger("trtinfer")


class Session:
    """An open model that answers requests; requests of about the same time share a batch.

    A request is one sample, without batch axis, or n samples along a leading batch axis, which
    stay together (more than ``max_batch_size`` are split and joined again). Models without batch
    axis take whole tensors and run one request at a time. Methods may be called from any thread.

    Attributes:
        inputs: What a request brings, in the model's order; -1 marks the batch axis and other
            dimensions that vary. With ``preprocess`` the input is an image: (-1, -1, 3), uint8.
        outputs: What it gets back.
        metadata: The custom metadata of the ONNX file.
        batched: Whether the first axis of all of the model's inputs and outputs is a batch axis.
        sizes: Those of the ring, as they were asked for.
    """

    def __init__(  # noqa: PLR0913
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        backend: str = "auto",
        device: int | Sequence[int] = 0,
        max_batch_size: int = 64,
        max_delay: float = 0.0,
        latency_slo: float | None = None,
        capacity: int = 1024,
        max_inflight: int = 2,
        preprocess: Recipe | str | None = None,
        arena_bytes: int = 256 << 20,
        batched: bool | None = None,
        intra_op_threads: int | None = None,
        tensorrt: TensorRtOptions | None = None,
        trace: TraceHook | None = None,
    ) -> None:
        """Open a model; it is warm when this returns.

        Args:
            model: Path of an ONNX file (external weights beside it are found), or its bytes. Or of
                a TensorRT plan: it is code, so give only what you trust; it runs on a GPU, has no
                CPU to fall back on, and runs the batches that it was built for.
            backend: "onnxruntime", "tensorrt", or "auto": TensorRT where its library and a GPU are
                found, else ONNX Runtime on the CPU.
            device: The GPU's number, or those of several that share the requests, the least loaded
                first; the CPU backend ignores it.
            max_batch_size: Samples in a batch, at most. A model with a fixed batch keeps its own.
            max_delay: Seconds that a request may wait for company, counted from its arrival. 0: a
                batch starts as soon as the backend is free.
            latency_slo: Seconds that 99 of 100 answered requests are to stay under, from arrival to
                completion. Batch sizes and moments of launch are chosen for it, and a request that
                can no longer be answered in time is refused (QueueFullError).
            capacity: Slots of the ring: samples that are queued or running at a time, at most.
            max_inflight: Batches in flight at a time, on each GPU. On the CPU this many run side by
                side only where each leaves cores to the others, see ``intra_op_threads``.
            preprocess: A recipe or its name; requests are then images of any size (path, bytes,
                file, array of shape (height, width, 3) or PIL image).
            arena_bytes: Bytes shared by inputs of varying size.
            batched: Whether the first axis of all inputs and outputs is a batch axis. None: a model
                whose declared shapes say so is tried out to prove that rows do not influence each
                other.
            intra_op_threads: CPU threads of one run. None: for the lowest latency, all cores for a
                large model and one for a small one.
            tensorrt: Precision, buckets, library and more of the TensorRT backend. The first
                opening of a model builds plans, which are kept; `trtinfer build` does it before.
            trace: Called on a thread of its own with what became of each accepted request, as a
                list of `trtinfer.trace.RequestTrace`, at most a hundred times a second. For
                OpenTelemetry: `trtinfer.opentelemetry.RequestSpans`.

        Raises:
            ModelError: The model cannot be read, or does not fit ``preprocess`` or ``batched``.
            BackendError: The backend cannot be used on this machine.
            ValueError: An option is out of range.
        """
        devices = (device,) if isinstance(device, int) else tuple(device)
        self._recipe = Recipe.named(preprocess) if isinstance(preprocess, str) else preprocess
        sizes = RingSizes(
            max_batch_size, max_delay, capacity, max_inflight, arena_bytes, latency_slo
        )
        check(backend, devices, sizes)
        opening = Opening(
            ModelSource(model), sizes, self._recipe, batched, intra_op_threads, devices
        )
        opened = opening.open(backend, tensorrt or TensorRtOptions())
        self.inputs: tuple[TensorInfo, ...] = opened.inputs
        self.outputs: tuple[TensorInfo, ...] = opened.outputs
        self.metadata: Mapping[str, str] = dict(opened.metadata)
        self._opened = opened
        self.batched = opened.batched
        self.sizes = sizes
        self._trial_batches = {gpu: executor.batches for gpu, executor in opened.gpus.items()}
        self._has_tensors = opened.has_tensors
        self._pipeline = opened.pipeline
        self._intake = Intake(opened, self._recipe)
        self._futures = FutureCompleter()
        self._loops = LoopCompleters(self._pipeline)
        self._loop_caller = _core.LoopCaller(
            self._pipeline, opened.has_tensors, self._loops.of, self._intake.ainfer
        )
        self._traces = TraceDelivery(trace, self._pipeline) if trace is not None else None
        self._held = closing.Held(self._pipeline, self._futures, self._loops, self._traces)
        closing.watch(self, self._held)

    # --- Requests -----------------------------------------------------------------------------

    def infer(self, x: object, timeout: float | None = None, priority: int = 0) -> Outputs:
        """Answer one request; waits without the GIL.

        Args:
            x: An array, or a dict from input name to array: exact dtypes, the shape of one sample
                or of n samples along a leading batch axis. With ``preprocess``: an image. Tensors
                on a GPU are read there, see `trtinfer.DeviceTensor`.
            timeout: Seconds, counted from now, in which the answer (and, in a full ring, room) must
                come. None: no limit, but a full ring refuses at once.
            priority: -8 to 7; higher runs first.

        Returns:
            One new array for each output, by name, with a batch axis if ``x`` had one.

        Raises:
            InputError: ``x`` does not fit the model.
            QueueFullError: There is no room in the ring, or ``latency_slo`` cannot be kept.
            DeadlineExceededError: The timeout ran out.
            BackendError: The backend failed on this request.
            ClosedError: The session is closed.
        """
        if self._has_tensors:
            try:
                outputs = self._pipeline.infer(x, timeout, priority)
                if outputs is not None:
                    return outputs
            except InputError:
                pass  # the slower path counts it
        return self._intake.infer(x, timeout, priority)

    def submit(self, x: object, timeout: float | None = None, priority: int = 0) -> InferenceFuture:
        """Publish one request and return its future at once; arguments and errors as `infer`.

        The inputs are copied: they may be changed as soon as this returns. Tensors on a GPU are
        not, and must not be written to before the future is done. The future is a
        `concurrent.futures.Future` that may also be awaited; its ``cancel()`` works until the
        batch is launched.
        """
        future = InferenceFuture()
        notifier = self._futures.notifier
        if self._has_tensors:
            try:
                pending = self._pipeline.submit(x, notifier, future, timeout, priority)
                if pending is not None:
                    return future.attach(pending)
            except InputError:
                pass  # the slower path counts it
        return future.attach(self._intake.submit(x, notifier, future, timeout, priority))

    @marked_async
    def ainfer(
        self,
        x: object,
        timeout: float | None = None,
        priority: int = 0,
        *,
        timeline: Timeline | None = None,
    ) -> Coroutine[Any, Any, Outputs]:
        """Answer one request without blocking the event loop; arguments and errors as `infer`.

        A coroutine (written in C++): nothing happens before it is awaited or made a task. The loop
        is woken once per batch. Cancelling the awaiting task takes the request back if its batch
        has not been launched. ``timeline`` is filled in before this returns outputs.
        """
        return self._loop_caller.ainfer(self, x, timeout, priority, timeline)

    def infer_many(
        self,
        xs: Iterable[object],
        timeout: float | None = None,
        priority: int = 0,
    ) -> list[Outputs]:
        """Answer many requests, each as `infer` would, in one crossing into the core.

        They share batches, and wait for room that the first of them gives back. A request that
        fails fails alone: its exception is raised once all have ended; `submit_many` gives each.

        Returns:
            The outputs of each request, in order.
        """
        if not self._has_tensors:
            futures = self.submit_many(xs, timeout, priority)
            concurrent.futures.wait(futures)
            return [future.result() for future in futures]
        results = self._pipeline.infer_many(list(xs), self._intake.convert, timeout, priority)
        if errors := self._intake.count_errors(results):
            raise errors[0]
        return cast(list[Outputs], results)

    def submit_many(
        self, xs: Iterable[object], timeout: float | None = None, priority: int = 0
    ) -> list[InferenceFuture]:
        """Publish many requests, each as `submit` would, in one crossing into the core.

        Returns:
            The future of each, in order; what `submit` would have raised is the future's exception.
        """
        xs = list(xs)
        futures = [InferenceFuture() for _ in xs]
        notifier = self._futures.notifier
        if self._has_tensors:
            submitted = self._pipeline.submit_many(
                xs, notifier, futures, self._intake.convert, timeout, priority
            )
            self._intake.count_errors(submitted)
            for future, pending in zip(futures, submitted, strict=True):
                future.attach_or_fail(pending)
            return futures
        for x, future in zip(xs, futures, strict=True):
            try:
                future.attach(self._intake.submit(x, notifier, future, timeout, priority))
            except Exception as error:
                future.set_exception(error)
        return futures

    def claim(
        self,
        rows: int | None = None,
        *,
        shape: Shapes | None = None,
        timeout: float | None = None,
    ) -> Slot:
        """Claim room in the ring, to be filled in place: no copy is made of its inputs.

        Args:
            rows: Samples: the views and the outputs then have a leading batch axis of this length,
                at most ``max_batch_size``. None: one sample, without batch axis.
            shape: The sample's shape, where it varies from request to request: of the only input,
                or a dict from input name to shape. For images: (height, width, 3).
            timeout: Seconds to wait for room; None: a full ring refuses at once.

        Raises:
            InputError: ``rows`` or ``shape`` does not fit, or the model has no numeric tensors.
            QueueFullError: There is no room in the ring.
            ClosedError: The session is closed.
        """
        with self._intake.refusals:
            shapes = self._intake.claim_shapes(shape, rows)
            if rows is not None and rows > self._pipeline.max_batch_size:
                raise InputError(f"{rows=}: at most {self._pipeline.max_batch_size} fit a batch")
            claim = self._pipeline.claim(rows or 1, rows is not None, shapes, timeout)
        return Slot(claim, self._submit_claim, self._loop_caller)

    # --- State --------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return counters and latency quantiles; `trtinfer.metrics.Stats` says what they mean."""
        backend = self.backend
        fallback = "onnxruntime" if self._opened.fallback and backend == "tensorrt" else None
        policy, target = self._opened.policy, self.sizes.latency_slo
        python = {
            "backend": backend,
            "fallback": fallback,
            "invalid": self._intake.refusals.count,
            "traces_dropped": self._traces.dropped if self._traces else 0,
            "gpu_batches": {
                gpu: executor.batches - self._trial_batches[gpu]
                for gpu, executor in self._opened.gpus.items()
            },
            "slo": batch_policy.describe(policy, target) if policy and target else None,
        }
        return cast(Stats, {**python, **self._pipeline.stats()})

    @property
    def backend(self) -> str:
        """What runs the batches now: "tensorrt" or "onnxruntime"."""
        fallback = self._opened.fallback
        if fallback is not None and fallback.has_failed:
            return "onnxruntime"
        return self._opened.backend

    @property
    def recipe(self) -> Recipe | None:
        """What makes the model's input of an image; None: requests bring the input itself."""
        return self._recipe

    @property
    def streams(self) -> tuple[_core.LaneStream, ...]:
        """The CUDA streams that batches run on, one for each of `max_inflight`; on a CPU none.

        Each has `device`, `handle` and ``__cuda_stream__``, so that ``cuda.core`` and others take
        it: to wait for it, or to trace it. Work that is enqueued there delays batches.
        """
        return tuple(self._pipeline.streams)

    @property
    def closed(self) -> bool:
        """Whether the session refuses requests."""
        return self._pipeline.closed

    def close(self, drain: bool = True) -> None:
        """Refuse new requests, end those under way, and free everything; may be called again.

        Args:
            drain: Answer all accepted requests first. False: requests that are not yet launched end
                with ClosedError.
        """
        self._held.close(drain)
        closing.forget(self)

    def __enter__(self) -> Session:
        """Return the session itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the session; after an error, without draining."""
        self.close(drain=error is None)

    def _submit_claim(
        self, claim: _core.Claim, timeout: float | None, priority: int
    ) -> InferenceFuture:
        future = InferenceFuture()
        return future.attach(claim.submit(self._futures.notifier, future, timeout, priority))
