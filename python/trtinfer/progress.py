"""A bar on the terminal while something takes long."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from typing import TextIO

_SECONDS_BETWEEN = 0.1
_WIDTH = 24


class ProgressBar:
    """Shows how far something is; nothing when the stream is no terminal. For one thread at a time.

    Attributes:
        title: What it is the progress of.
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        """Shows nothing yet.

        Args:
            title: What it is the progress of.
            stream: Where to show it; None: stderr.
        """
        self.title = title
        stream = sys.stderr if stream is None else stream  # None when Python has none
        self._terminal = stream if stream is not None and stream.isatty() else None
        self._shown_at = 0.0

    def show(self, fraction: float, step: str = "") -> None:
        """Shows what is done, from 0 to 1, and what is being done; not too often."""
        if self._terminal is None or time.monotonic() - self._shown_at < _SECONDS_BETWEEN:
            return
        self._shown_at = time.monotonic()
        filled = round(_WIDTH * min(1.0, fraction))
        bar = "#" * filled + "." * (_WIDTH - filled)
        line = f"{self.title} [{bar}] {min(1.0, fraction):4.0%} {step}".rstrip()
        self._terminal.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        self._terminal.flush()

    def clear(self) -> None:
        """Takes the bar away."""
        if self._terminal and self._shown_at:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()


@dataclass(frozen=True)
class _Phase:
    parent: str
    step: int
    steps: int


class BuildProgress:
    """Shows how far a build is; nothing when the stream is no terminal. For one thread at a time.

    Called with what TensorRT says: a phase, the phase that it is a part of ("" for the whole
    build), steps done and steps to do.

    Attributes:
        fraction: What is done of the build, from 0 to 1.
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        """Shows nothing yet.

        Args:
            title: What is built.
            stream: Where to show it; None: stderr.
        """
        self.fraction = 0.0
        self._bar = ProgressBar(title, stream)
        self._running: dict[str, _Phase] = {}

    def __call__(self, phase: str, parent: str, step: int, steps: int) -> None:
        """Takes one step into account; TensorRT goes on."""
        if step < steps:
            self._running[phase] = _Phase(parent, step, steps)
        else:
            self._running.pop(phase, None)
        # How many parts a step has is found out late, so that the sum alone would go back.
        done = 1.0 if not parent and step >= steps else self._done_of("")
        self.fraction = max(self.fraction, done)
        self._bar.show(self.fraction, phase)

    def clear(self) -> None:
        """Takes the bar away."""
        self._bar.clear()

    def _done_of(self, name: str) -> float:
        """What is done of the step at hand of a phase: the part of it that is furthest."""
        parts = (
            (phase.step + self._done_of(part)) / phase.steps
            for part, phase in self._running.items()
            if phase.parent == name and part != name
        )
        return min(1.0, max(parts, default=0.0))
