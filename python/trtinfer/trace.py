"""What became of each request, told to a hook that need not be quick: it is off their way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import NamedTuple

from trtinfer import _core

logger = logging.getLogger("trtinfer")

#: Seconds after a call of the hook in which traces gather, so that requests wake its thread rarely.
_PAUSE = 0.01


class RequestTrace(NamedTuple):
    """What became of one accepted request; times are nanoseconds since 1970, as `time.time_ns`.

    Attributes:
        arrival: When it was asked for.
        launched: When its batch was launched, the last one if it needed several; None: never.
        finished: When its end was decided, and its caller about to be told.
        outcome: "completed", "failed", "expired", "cancelled" or "closed", as in `Session.stats`.
        samples: Its own number of samples.
        batch_size: Samples in that batch; 0 if it was never launched.
        error: What the backend said of a failed request; else empty.
        context: The caller's contextvars at its arrival, copied.
    """

    arrival: int
    launched: int | None
    finished: int
    outcome: str
    samples: int
    batch_size: int
    error: str
    context: Context


TraceHook = Callable[[Sequence[RequestTrace]], object]


class TraceDelivery:
    """The thread that hands the traces of a session's requests to a hook."""

    def __init__(self, hook: TraceHook, pipeline: _core.Pipeline) -> None:
        """Start it, before the first request."""
        self._log = _core.TraceLog()
        self._stopping = threading.Event()
        pipeline.trace_into(self._log)
        self._thread = threading.Thread(
            target=_deliver,
            args=(hook, self._log, self._stopping),
            name="trtinfer-trace",
            daemon=True,
        )
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Traces that were given up, since the hook was far behind."""
        return self._log.dropped

    def stop(self, wait: bool = True) -> None:
        """Deliver what is left and end the thread. The hook itself may call this, too."""
        if not self._thread.is_alive():  # nor is it in a forked child, where locks may be held
            return
        self._log.stop()
        if not wait:
            return  # without the event's lock, which the thread may hold that is calling this
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join()


def _deliver(hook: TraceHook, log: _core.TraceLog, stopping: threading.Event) -> None:
    while log.wait():
        try:
            hook([RequestTrace._make(fields) for fields in log.drain()])
        except BaseException:  # SystemExit, say: the traces of others must not be lost
            logger.exception("the trace hook failed")
        stopping.wait(_PAUSE)
