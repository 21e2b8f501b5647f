"""Benches' contenders in processes of their own; stand-ins fail, crash and hang."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from contest import Contest
from measuring import Sample

SECONDS = 0.06  # longer than the rehearsal


def fail(seconds: float) -> None:
    raise ValueError(f"no {seconds:g} s")


def crash(_: float) -> None:
    os.abort()


def hang(_: float) -> None:
    threading.Event().wait()


def slowly(_: float) -> None:
    time.sleep(0.5)


def well(_: float) -> None:
    pass


@contextmanager
def opened(turn, opening=well) -> Iterator[object]:
    """Does well in the rehearsal, as the seconds tell."""
    opening(0)

    def measure(seconds: float) -> Sample:
        if seconds == SECONDS:
            turn(seconds)
        return Sample(1 / seconds, 2, 3)

    yield measure


def contest_of(limit: float = 60, patience: float = 1, **turns) -> Contest:
    ways = {name: functools.partial(opened, turn) for name, turn in turns.items()}
    return Contest({"alone": ways}, until=time.monotonic() + limit, patience=patience)


def test_everybody_has_a_turn_in_each_round() -> None:
    with contest_of(a=well, b=well) as contest:
        contest.hold(3, SECONDS)
    sample = Sample(1 / SECONDS, 2, 3)
    assert contest.samples == {"alone": {"a": [sample] * 3, "b": [sample] * 3}}
    assert (contest.rounds, contest.ended, contest.left_out) == (3, "", {})


def test_who_fails_crashes_or_hangs_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    with contest_of(fails=fail, crashes=crash, hangs=hang, ours=well) as contest:
        contest.hold(2, SECONDS)
    assert {name: len(taken) for name, taken in contest.samples["alone"].items()} == {"ours": 2}
    assert contest.left_out == {
        "alone, fails": "ValueError: no 0.06 s",
        "alone, crashes": "crashed: SIGABRT",
        "alone, hangs": "no answer within 1.48 s",
    }
    said = capfd.readouterr().err
    assert "in crash" in said  # where they were
    assert "in hang" in said


def test_who_cannot_be_opened_is_left_out() -> None:
    ways = {
        "fails": functools.partial(opened, well, fail),
        "hangs": functools.partial(opened, well, hang),
        "ours": functools.partial(opened, well),
    }
    with Contest({"alone": ways}, until=time.monotonic() + 60, opening=6) as contest:
        contest.hold(1, SECONDS)
    assert list(contest.samples["alone"]) == ["ours"]
    assert contest.left_out == {
        "alone, fails": "ValueError: no 0 s",
        "alone, hangs": "no answer within 6 s",
    }


def test_rounds_before_the_time_limit_count() -> None:
    with contest_of(limit=8, ours=slowly, theirs=slowly) as contest:
        contest.hold(100, SECONDS)
    assert 0 < contest.rounds < 100
    assert {len(taken) for taken in contest.samples["alone"].values()} == {contest.rounds}
    assert contest.ended == "the time limit was reached"


@pytest.mark.parametrize("reason", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_with_what_there_is(reason: signal.Signals) -> None:
    with contest_of(ours=well, slow=slowly, theirs=well) as contest:

        def interrupt() -> None:
            while contest.rounds == 0:
                time.sleep(0.01)
            os.kill(os.getpid(), reason)

        # Shells have what they run in the background ignore it.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=interrupt).start()
        contest.hold(1000, SECONDS)
        signal.signal(signal.SIGINT, before)
    assert 0 < contest.rounds < 1000
    assert {len(taken) for taken in contest.samples["alone"].values()} == {contest.rounds}
    assert contest.ended == "it was interrupted"


def test_of_an_unfinished_first_round_those_count_who_had_their_turn() -> None:
    with contest_of(limit=7, patience=60, ours=well, hangs=hang) as contest:
        contest.hold(1, SECONDS)
    assert {name: len(taken) for name, taken in contest.samples["alone"].items()} == {"ours": 1}
    assert contest.left_out == {"alone, hangs": "the time limit was reached"}
