"""How sessions end: closed, dropped, or left open when the interpreter ends."""

from __future__ import annotations

import _thread
import atexit
import weakref
from dataclasses import dataclass
from typing import Protocol

from trtinfer import _core
from trtinfer.completion import FutureCompleter, LoopCompleters
from trtinfer.trace import TraceDelivery


class Closable(Protocol):
    """What is closed before the interpreter ends."""

    def close(self, drain: bool = True) -> None:
        """End it; without ``drain`` at once."""


# No WeakSet, which is walked in steps: other threads may open and close sessions meanwhile.
_open: set[weakref.ref[Closable]] = set()


@dataclass(frozen=True)
class Held:
    """What a session holds, and what must not hold the session."""

    pipeline: _core.Pipeline
    futures: FutureCompleter
    loops: LoopCompleters
    traces: TraceDelivery | None

    def close(self, drain: bool, wait: bool = True) -> None:
        """End it; may be called again.

        Args:
            drain: Answer what is published first.
            wait: False: tell Python's threads to end, but wait for native ones only.
        """
        self.pipeline.close(drain)
        self.futures.stop(wait)
        self.loops.stop()
        if self.traces is not None:
            self.traces.stop(wait)


def watch(session: Closable, held: Held) -> None:
    """Close what a session holds when it is dropped unclosed, or when the interpreter ends."""
    _open.add(weakref.ref(session, _open.discard))
    finalizer = weakref.finalize(session, _close_dropped, held)
    finalizer.atexit = False  # _close_open does it, before threads are gone


def forget(session: Closable) -> None:
    """A session is closed: the interpreter's end has nothing left to do."""
    _open.discard(weakref.ref(session))


def _close_dropped(held: Held) -> None:
    """Close what a session held, from the garbage collector, which runs in the middle of anything.

    Whoever it interrupts may hold a lock that Python's threads need before they can end.
    """
    if _core.on_own_thread():
        # The collector ran on a thread that the end of a session waits for. No threading.Thread:
        # its start takes a lock, which another thread may hold that waits for this one.
        _thread.start_new_thread(held.close, (False, False))
    else:
        held.close(drain=False, wait=False)


@atexit.register
def _close_open() -> None:
    for reference in list(_open):
        session = reference()
        if session is not None:
            session.close(drain=False)
