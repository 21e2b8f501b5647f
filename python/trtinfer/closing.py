"""How sessions end: closed, dropped, or left open when the interpreter ends."""

from __future__ import annotations

import asyncio
import atexit
import functools
import threading
import weakref
from collections.abc import Mapping
from typing import Protocol

from trtinfer import _core
from trtinfer.completion import FutureCompleter, LoopCompleter

Loops = Mapping[asyncio.AbstractEventLoop, LoopCompleter]


class Closable(Protocol):
    """What is closed before the interpreter ends."""

    def close(self, drain: bool = True) -> None:
        """End it; without ``drain`` at once."""


# No WeakSet, which is walked in steps: other threads may open and close sessions meanwhile.
_open: set[weakref.ref[Closable]] = set()


def watch(
    session: Closable, pipeline: _core.Pipeline, futures: FutureCompleter, loops: Loops
) -> None:
    """Close what a session holds when it is dropped unclosed, or when the interpreter ends."""
    _open.add(weakref.ref(session, _open.discard))
    finalizer = weakref.finalize(session, _close_dropped, pipeline, futures, loops)
    finalizer.atexit = False  # _close_open does it, before threads are gone


def close(pipeline: _core.Pipeline, futures: FutureCompleter, loops: Loops, drain: bool) -> None:
    """End what a session holds; may be called again."""
    pipeline.close(drain)
    futures.stop()
    for completer in list(loops.values()):
        completer.stop()


def forget(session: Closable) -> None:
    """A session is closed: the interpreter's end has nothing left to do."""
    _open.discard(weakref.ref(session))


def _close_dropped(pipeline: _core.Pipeline, futures: FutureCompleter, loops: Loops) -> None:
    end = functools.partial(close, pipeline, futures, loops, drain=False)
    if _core.on_own_thread():
        # The garbage collector ran on a thread that the end of a session waits for.
        threading.Thread(target=end, name="trtinfer-close", daemon=True).start()
    else:
        end()


@atexit.register
def _close_open() -> None:
    for reference in list(_open):
        session = reference()
        if session is not None:
            session.close(drain=False)
