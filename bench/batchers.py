"""Ways to batch requests of threads and tasks on the CPU: trtinfer and its peers.

Each opens anew for every measurement, so that no idle one takes time from another.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import batched
import numpy as np
import onnxruntime
from async_batcher.batcher import AsyncBatcher
from numpy.typing import NDArray

import trtinfer

MAX_BATCH_SIZE = 64

Array = NDArray[np.float32]
Ask = Callable[[Array], Array]
AsyncAsk = Callable[[Array], Awaitable[Array]]


def open_directly(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Direct:
    """Every caller runs the model itself."""

    def __init__(self, direct: onnxruntime.InferenceSession) -> None:
        self._run = direct.run

    @contextmanager
    def threads(self) -> Iterator[Ask]:
        yield lambda x: self._run(None, {"x": x[None]})[0][0]

    @contextmanager
    def tasks(self) -> Iterator[AsyncAsk]:
        async def ask(x: Array) -> Array:
            await asyncio.sleep(0)  # without it one caller would keep the loop to itself
            return self._run(None, {"x": x[None]})[0][0]  # type: ignore[no-any-return]

        yield ask


class Trtinfer:
    def __init__(self, model: bytes) -> None:
        self._model = model

    @contextmanager
    def threads(self) -> Iterator[Ask]:
        with trtinfer.Session(self._model, max_batch_size=MAX_BATCH_SIZE) as session:
            yield session.infer

    @contextmanager
    def tasks(self) -> Iterator[AsyncAsk]:
        with trtinfer.Session(self._model, max_batch_size=MAX_BATCH_SIZE) as session:
            yield session.ainfer


class Batched:
    """The decorators of `batched`: its threaded one for threads, that of `aio` for tasks."""

    def __init__(self, direct: onnxruntime.InferenceSession, **options: float) -> None:
        self._run = direct.run
        self._options = options

    def _run_batch(self, rows: list[Array]) -> list[Array]:
        return list(self._run(None, {"x": np.stack(rows)})[0])

    @contextmanager
    def threads(self) -> Iterator[Ask]:
        processor = batched.dynamically(lambda rows: self._run_batch(rows), **self._options)
        try:
            yield processor
        finally:
            processor.shutdown()

    @contextmanager
    def tasks(self) -> Iterator[AsyncAsk]:
        async def run_batch(rows: list[Array]) -> list[Array]:
            return self._run_batch(rows)  # a few microseconds: cheaper here than in a thread

        yield batched.aio.dynamically(run_batch, **self._options)


class AsyncBatched:
    """The class of `async-batcher`, which has no threads."""

    def __init__(self, direct: onnxruntime.InferenceSession, **options: float) -> None:
        self._run = direct.run
        self._options = options

    @contextmanager
    def tasks(self) -> Iterator[AsyncAsk]:
        run = self._run

        class Batcher(AsyncBatcher[Array, Array]):
            async def process_batch(self, batch: list[Array]) -> list[Array]:
                return list(run(None, {"x": np.stack(batch)})[0])

        batcher = Batcher(max_batch_size=MAX_BATCH_SIZE, **self._options)
        yield batcher.process
        asyncio.get_running_loop().create_task(batcher.stop(force=True))


class QueueAndFuture:
    """One thread takes all that is queued, up to a whole batch, and never waits for company."""

    def __init__(self, direct: onnxruntime.InferenceSession, make_queue: Callable[[], Any]) -> None:
        self._run = direct.run
        self._make_queue = make_queue

    def _batches(self, requests: Any) -> Iterator[list[tuple[Array, Future[Array]]]]:
        while (first := requests.get()) is not None:
            batch = [first]
            while len(batch) < MAX_BATCH_SIZE:
                try:
                    request = requests.get_nowait()
                except queue.Empty:
                    break
                if request is None:
                    yield batch
                    return
                batch.append(request)
            yield batch

    def _serve(self, requests: Any) -> None:
        for batch in self._batches(requests):
            try:
                rows = self._run(None, {"x": np.stack([x for x, _ in batch])})[0]
                for (_, future), row in zip(batch, rows, strict=True):
                    future.set_result(row)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    @contextmanager
    def _submit(self) -> Iterator[Callable[[Array], Future[Array]]]:
        requests = self._make_queue()

        def submit(x: Array) -> Future[Array]:
            future: Future[Array] = Future()
            requests.put((x, future))
            return future

        thread = threading.Thread(target=self._serve, args=(requests,))
        thread.start()
        try:
            yield submit
        finally:
            requests.put(None)
            thread.join()

    @contextmanager
    def threads(self) -> Iterator[Ask]:
        with self._submit() as submit:
            yield lambda x: submit(x).result()

    @contextmanager
    def tasks(self) -> Iterator[AsyncAsk]:
        with self._submit() as submit:

            async def ask(x: Array) -> Array:
                return await asyncio.wrap_future(submit(x))

            yield ask
