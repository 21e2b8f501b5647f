"""The longer ways of a request into the core, for what does not fit there as it is.

Inputs are converted, images decoded into their slots, values that are no tensors handed over;
what is refused is counted.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from copy import deepcopy
from typing import TypeVar, cast

from trtinfer import _core, device_tensor, images
from trtinfer.backend import OpenModel
from trtinfer.errors import InputError
from trtinfer.inputs import InputReader, Shapes
from trtinfer.preprocess import Recipe
from trtinfer.types import Outputs, Timeline

Result = TypeVar("Result")


class Refusals:
    """Counts requests that do not fit; a block that takes one is ``with refusals:``.

    Attributes:
        count: How many there were.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.count = 0
        self._lock = threading.Lock()

    def note(self, error: BaseException | None) -> None:
        """Note how a request was taken."""
        if isinstance(error, InputError):
            with self._lock:
                self.count += 1

    def __enter__(self) -> None:
        """Begin to take a request."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Note how that ended."""
        self.note(error)


class Intake:
    """Takes the requests of one open model; for any number of threads.

    Attributes:
        refusals: Those that do not fit the model.
    """

    def __init__(self, opened: OpenModel, recipe: Recipe | None) -> None:
        """Looks at what requests are; a recipe makes the model's only input of an image."""
        self.refusals = Refusals()
        self._pipeline = opened.pipeline
        self._has_tensors = opened.has_tensors
        self._recipe = recipe
        self._inputs = opened.inputs
        batched = opened.batched and recipe is None
        self._reader = InputReader(opened.inputs, batched, opened.has_tensors)

    def infer(self, x: object, timeout: float | None, priority: int) -> Outputs:
        """As `Session.infer`."""
        with self.refusals:
            if self._is_image(x):
                started = time.monotonic()
                claim = self._claim_image(x, timeout)
                return claim.infer(_left(timeout, started), priority)
            inputs = self._reader.read(x)
            if not self._has_tensors:
                return cast(Outputs, self._pipeline.infer_object(inputs, timeout, priority))
            return _matched(self._pipeline.infer(inputs, timeout, priority))

    def submit(
        self,
        x: object,
        notifier: _core.Notifier,
        cookie: Future[Outputs] | _core.LoopFuture,
        timeout: float | None,
        priority: int,
    ) -> _core.PendingRequest:
        """Publish a request whose end the notifier tells, with the cookie; `infer` otherwise."""
        with self.refusals:
            if self._is_image(x):
                started = time.monotonic()
                claim = self._claim_image(x, timeout)
                return claim.submit(notifier, cookie, _left(timeout, started), priority)
            inputs = self._reader.read(x)
            if not self._has_tensors:
                inputs = deepcopy(inputs)
                return self._pipeline.submit_object(inputs, notifier, cookie, timeout, priority)
            return _matched(self._pipeline.submit(inputs, notifier, cookie, timeout, priority))

    async def ainfer(
        self,
        loop: asyncio.AbstractEventLoop,
        x: object,
        notifier: _core.Notifier,
        timeout: float | None,
        priority: int,
        timeline: Timeline | None,
    ) -> Outputs:
        """As `Session.ainfer`: decode images, and wait for room, without holding up the loop."""
        future = _core.LoopFuture(loop)
        started = time.monotonic()
        with self.refusals:
            x = device_tensor.hold(x)

        def publish() -> None:
            left = _left(timeout, started)
            future.attach(self.submit(x, notifier, future, left, priority))

        try:
            await loop.run_in_executor(None, copy_context().run, publish)
        except asyncio.CancelledError:
            future.cancel()
            raise
        outputs: Outputs = await future
        if timeline is not None:
            future.note_times(timeline)
        return outputs

    def convert(self, x: object) -> dict[str, object]:
        """Return a request of tensors or an image as arrays that fit the core; counts nothing."""
        if self._is_image(x):
            return {self._inputs[0].name: images.load(x).decode()}
        return self._reader.read(x)

    def claim_shapes(self, shape: Shapes | None, rows: int | None) -> list[list[int]]:
        """Return the shapes of the slots that `Session.claim` asks for.

        Raises:
            InputError: There are no such slots.
        """
        return self._reader.claim_shapes(shape, rows)

    def count_errors(self, results: Sequence[object]) -> list[Exception]:
        """Return what failed of many requests, having counted what was refused."""
        errors = [result for result in results if isinstance(result, Exception)]
        for error in errors:
            self.refusals.note(error)
        return errors

    def _is_image(self, x: object) -> bool:
        if self._recipe is None or isinstance(x, Mapping):
            return False
        return not _core.DeviceTensor.is_on_gpu(x)

    def _claim_image(self, x: object, timeout: float | None) -> _core.Claim:
        image = images.load(x)
        claim = self._pipeline.claim(1, False, [list(image.shape)], timeout)
        try:
            image.decode_into(claim.inputs[self._inputs[0].name])
        except BaseException:
            claim.release()
            raise
        return claim


def _matched(result: Result | None) -> Result:
    if result is None:  # what InputReader lets through fits the core as well
        raise AssertionError("the core refused an input that fits the model")
    return result


def _left(timeout: float | None, started: float) -> float | None:
    """What is left of a timeout that counts from ``started``."""
    return None if timeout is None else timeout - (time.monotonic() - started)
