"""A contender in a process of its own, which may fail, crash or hang there without harm."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from measuring import Sample

#: Of a turn of so many seconds.
Measure = Callable[[float], Sample]
#: Opens the contender in its process, so it has to be something that can be pickled.
Open = Callable[[], AbstractContextManager[Measure]]

_REHEARSAL_S = 0.05
_GRACE_S = 2.0  # for the process to say by itself where it hangs


class LeftOutError(Exception):
    """Why a contender takes no part any more."""


class TimeUpError(Exception):
    """There is no time left to wait for it."""


@dataclass(frozen=True)
class _Failure:
    reason: str


class ContenderProcess:
    """Starts at once, opens when it is told to, and is asked for a turn at a time.

    Args:
        opened: How it is opened.
        log: Where the process writes what it says, and where it was when it hung or crashed.
        limit: Seconds that opening and a short rehearsal may take.
    """

    def __init__(self, opened: Open, log: Path, limit: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._log, self._opening = log, limit
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, str(log), opened, limit), daemon=True
        )
        self._process.start()
        theirs.close()
        self._expect(limit)

    def open(self, until: float) -> None:
        """Returns when it is open. `until` is a time of `time.monotonic`.

        Raises:
            LeftOutError: It failed, crashed or hung.
            TimeUpError: It is `until`, and its own limit is not reached.
        """
        self._ask(None, self._opening, until)

    def measure(self, seconds: float, limit: float, until: float) -> Sample:
        """Takes a turn, in at most `limit` seconds; raises what `open` raises."""
        sample: Sample = self._ask((seconds, limit), limit, until)
        return sample

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def last_words(self, lines: int = 15) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _ask(self, what: Any, limit: float, until: float) -> Any:
        try:
            self._pipe.send(what)
        except OSError:
            raise LeftOutError(self._end()) from None
        self._expect(limit)
        return self._receive(until)

    def _expect(self, limit: float) -> None:
        self._limit, self._asked = limit, time.monotonic()

    def _receive(self, until: float) -> Any:
        due = self._asked + self._limit + _GRACE_S
        if not self._pipe.poll(max(0.0, min(due, until) - time.monotonic())):
            if until < due:
                raise TimeUpError
            raise LeftOutError(f"no answer within {self._limit:g} s")
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise LeftOutError(self._end()) from None
        if isinstance(answer, _Failure):
            raise LeftOutError(answer.reason)
        return answer

    def _end(self) -> str:
        if time.monotonic() - self._asked >= self._limit:
            return f"no answer within {self._limit:g} s"
        self._process.join(_GRACE_S)
        status = self._process.exitcode
        if status is not None and status < 0:
            return f"crashed: {signal.Signals(-status).name}"
        return f"ended with status {status}"


@contextmanager
def _watched(limit: float) -> Iterator[None]:
    """Ends the process when it hangs, having written where; also when nobody waits any more."""
    faulthandler.dump_traceback_later(limit, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _serve(pipe: Connection, log: str, opened: Open, limit: float) -> None:
    """What the process does: opens when asked, rehearses, and answers until the pipe closes."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a whole terminal: the parent ends this
    try:
        pipe.recv()
    except EOFError:
        return
    with ExitStack() as stack:
        try:
            with _watched(limit):
                measure = stack.enter_context(opened())
                measure(_REHEARSAL_S)
            _take_turns(pipe, measure)
        except Exception as error:
            pipe.send(_Failure(f"{type(error).__name__}: {error}"))


def _take_turns(pipe: Connection, measure: Measure) -> None:
    pipe.send(None)
    while True:
        try:
            seconds, limit = pipe.recv()
        except EOFError:
            return
        with _watched(limit):
            sample = measure(seconds)
        pipe.send(sample)
