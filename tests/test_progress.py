"""The bar of a build."""

from __future__ import annotations

import io

import pytest

from trtinfer import progress
from trtinfer.progress import BuildProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def run(bar: BuildProgress) -> list[float]:
    """A build of two steps; the first has two parts of 4 and 2 steps."""
    fractions = []
    for call in [
        ("build", "", 0, 2),
        ("part", "build", 0, 4),
        ("part", "build", 2, 4),
        ("part", "build", 4, 4),
        ("other", "build", 0, 2),
        ("other", "build", 1, 2),
        ("other", "build", 2, 2),
        ("build", "", 1, 2),
        ("build", "", 2, 2),
    ]:
        bar(*call)
        fractions.append(bar.fraction)
    return fractions


def test_parts_count_and_nothing_goes_back(terminal: Terminal) -> None:
    expected = [0, 0, 0.25, 0.25, 0.25, 0.25, 0.25, 0.5, 1]
    assert run(BuildProgress("model", terminal)) == expected


def test_bar_is_shown_and_taken_away(terminal: Terminal) -> None:
    bar = BuildProgress("model, batch 8", terminal)
    run(bar)
    bar.clear()
    lines = terminal.getvalue().split("\r")
    assert lines[3] == "model, batch 8 [######..................]  25% part\x1b[K"
    assert lines[-2] == "model, batch 8 [########################] 100% build\x1b[K"
    assert lines[-1] == "\x1b[K"


def test_lines_fit_the_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    run(BuildProgress("a long title of a model", terminal))
    lines = terminal.getvalue().removeprefix("\r").split("\r")
    assert {line.removesuffix("\x1b[K") for line in lines} == {"a long title of a m"}


def test_only_terminals_get_a_bar() -> None:
    stream = io.StringIO()
    bar = BuildProgress("model", stream)
    run(bar)
    bar.clear()
    assert stream.getvalue() == ""
    assert bar.fraction == 1


def test_terminal_is_not_flooded(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 60.0)
    run(BuildProgress("model", terminal))
    assert terminal.getvalue().count("\r") == 1
