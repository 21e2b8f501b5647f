"""How ended requests reach those who wait: futures for threads, futures of event loops.

The core collects the requests that a batch ended in a `_core.Notifier` and makes its descriptor
readable once per batch. A `FutureCompleter` thread resolves `concurrent.futures` futures; a
`LoopCompleter` resolves futures of an event loop on that loop, which is woken once per batch.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from trtinfer import _core
from trtinfer.types import Outputs

Function = TypeVar("Function", bound=Callable[..., object])

logger = logging.getLogger("trtinfer")


class InferenceFuture(Future[Outputs]):
    """The future of one request; may be awaited in asyncio as well."""

    def __init__(self) -> None:
        """Create a future that no request stands behind yet."""
        super().__init__()
        self._pending: _core.PendingRequest | None = None

    def attach(self, pending: _core.PendingRequest) -> InferenceFuture:
        """Tie the future to its published request and return the future."""
        self._pending = pending
        return self

    def attach_or_fail(self, pending: _core.PendingRequest | Exception) -> None:
        """Tie the future to its published request, or end it with what kept it from that."""
        if isinstance(pending, Exception):
            self.set_exception(pending)
        else:
            self._pending = pending

    def cancel(self) -> bool:
        """Take the request back; works until its batch is launched.

        Returns:
            Whether the request is cancelled.
        """
        if self._pending is None or self.done():
            return self.cancelled()
        if self._pending.cancel():
            super().cancel()
        return self.cancelled()

    def running(self) -> bool:
        """Return whether the request's batch has been launched and has not ended."""
        return not self.done() and self._pending is not None and self._pending.running

    def __await__(self) -> Generator[Any, None, Outputs]:
        """Wait for the outputs in the running event loop."""
        return asyncio.wrap_future(self).__await__()


def _resolve(future: Future[Outputs], error: BaseException | None, outputs: Outputs | None) -> None:
    if isinstance(error, CancelledError):
        Future.cancel(future)  # InferenceFuture.cancel is about to do the same in another thread
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(outputs)  # type: ignore[arg-type]


def _complete_futures(notifier: _core.Notifier) -> None:
    while notifier.wait():
        for future, error, outputs in notifier.drain():
            try:
                _resolve(future, error, outputs)
            except BaseException:  # SystemExit in a callback, say: the other futures must not hang
                logger.exception("a callback of a future failed")
            del future, error, outputs


class FutureCompleter:
    """The thread that resolves a session's `concurrent.futures` futures; starts with the first."""

    def __init__(self) -> None:
        """Create the notifier; the thread starts with its first use."""
        self._notifier = _core.Notifier()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def notifier(self) -> _core.Notifier:
        """The notifier to submit requests with; starts the thread."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(
                        target=_complete_futures,
                        args=(self._notifier,),
                        name="trtinfer-completion",
                        daemon=True,
                    )
                    thread.start()
                    self._thread = thread  # never seen before it is started: `stop` joins it
        return self._notifier

    def stop(self, wait: bool = True) -> None:
        """Resolve what has ended and end the thread. Callbacks of futures may call this, too."""
        self._notifier.stop()
        thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()


def marked_async(function: Function) -> Function:
    """Mark what returns a coroutine without being one, for ``iscoroutinefunction`` and mocks."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return function


class LoopCompleter:
    """Resolves the futures of an event loop on it. Use it on that loop only.

    Attributes:
        notifier: What to submit requests with; it knows whether `schedule_wake` was called in this
            turn of the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pipeline: _core.Pipeline) -> None:
        """Start to watch a notifier's descriptor on the running loop."""
        self.notifier = _core.Notifier()
        self._loop = loop
        self._pipeline = pipeline
        loop.add_reader(self.notifier.descriptor, self.notifier.resolve_futures)

    def schedule_wake(self) -> None:
        """Have batches run once all callbacks that are ready now have published their requests.

        The requests of one turn of the loop so form one batch: of a quick model it is run right
        here, else one system call wakes a lane.
        """
        self.notifier.wake_scheduled = True
        self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self.notifier.wake_scheduled = False
        if self._pipeline.lead_briefly():
            self.notifier.resolve_futures()

    def stop(self) -> None:
        """Resolve what has ended and stop watching; callable from any thread."""
        if self._loop.is_closed():
            return
        try:
            self._loop.call_soon_threadsafe(self._stop_on_loop)
        except RuntimeError:  # closed between the two lines
            return

    def _stop_on_loop(self) -> None:
        self.notifier.resolve_futures()
        self._loop.remove_reader(self.notifier.descriptor)


class LoopCompleters:
    """The completers of a session, one for each event loop that asks it; for any thread."""

    def __init__(self, pipeline: _core.Pipeline) -> None:
        """Have none yet."""
        self._pipeline = pipeline
        self._by_loop: dict[asyncio.AbstractEventLoop, LoopCompleter] = {}
        self._lock = threading.Lock()

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopCompleter:
        """Return the completer of the running loop, made if need be."""
        with self._lock:
            completer = self._by_loop.get(loop)
            if completer is None:
                for closed in [other for other in self._by_loop if other.is_closed()]:
                    del self._by_loop[closed]  # or each asyncio.run would leave a descriptor behind
                completer = self._by_loop[loop] = LoopCompleter(loop, self._pipeline)
        return completer

    def stop(self) -> None:
        """Resolve what has ended and stop watching; takes no lock, so a collector may call it."""
        for completer in list(self._by_loop.values()):
            completer.stop()
