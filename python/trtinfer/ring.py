"""A claimed place in the request ring, to be filled without a copy."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeAlias

from trtinfer import _core
from trtinfer.completion import marked_async
from trtinfer.types import Array, Outputs, Timeline

Submit: TypeAlias = Callable[[_core.Claim, float | None, int], "Future[Outputs]"]


class Slot:
    """A slot of the ring that the caller fills and publishes.

    Use it as a context manager: leaving the block without ``publish()`` gives the slot back, and so
    does dropping the object. A slot belongs to one thread at a time.

    Attributes:
        inputs: For each input, a writable view of ring memory with one sample's shape (the claimed
            shape where it varies). The bytes are whatever the last request left there. Do not touch
            a view after ``publish()``: the memory then belongs to the batch, later to others.
    """

    def __init__(self, claim: _core.Claim, submit: Submit, loop_caller: _core.LoopCaller) -> None:
        """Wrap a native claim; sessions do this, see `Session.claim`."""
        self._claim = claim
        self._submit = submit
        self._loop_caller = loop_caller
        self.inputs: dict[str, Array] = claim.inputs

    def publish(self, timeout: float | None = None, priority: int = 0) -> Future[Outputs]:
        """Hand the filled slot to the session.

        Args:
            timeout: Seconds from now after which the request expires; None for never.
            priority: -8 to 7; higher runs first.

        Returns:
            The future of the outputs, as from `Session.submit`.

        Raises:
            InputError: The slot was already published or released.
            ClosedError: The session was closed in the meantime.
        """
        return self._submit(self._claim, timeout, priority)

    def infer(self, timeout: float | None = None, priority: int = 0) -> Outputs:
        """Publish the filled slot and wait for the outputs; see `publish` and `Session.infer`."""
        return self._claim.infer(timeout, priority)

    @marked_async
    def ainfer(
        self,
        timeout: float | None = None,
        priority: int = 0,
        *,
        timeline: Timeline | None = None,
    ) -> Coroutine[Any, Any, Outputs]:
        """Publish the filled slot and await the outputs, as `Session.ainfer` does; see `publish`.

        Cancelling the awaiting task takes the request back if its batch has not been launched.
        ``timeline`` is filled in before this returns outputs.
        """
        return self._loop_caller.ainfer(self, self._claim, timeout, priority, timeline)

    def release(self) -> None:
        """Give the slot back unpublished; nothing happens if it is no longer held."""
        self._claim.release()

    def __enter__(self) -> Slot:
        """Return the slot itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the slot back if it was not published."""
        self._claim.release()
