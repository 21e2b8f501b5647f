"""A bar on the terminal while plans are built."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from typing import TextIO

_SECONDS_BETWEEN = 0.1
_WIDTH = 24


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
        self._title = title
        stream = sys.stderr if stream is None else stream  # None when Python has none
        self._terminal = stream if stream is not None and stream.isatty() else None
        self._running: dict[str, _Phase] = {}
        self._shown_at = 0.0

    def __call__(self, phase: str, parent: str, step: int, steps: int) -> None:
        """Takes one step into account; TensorRT goes on."""
        if step < steps:
            self._running[phase] = _Phase(parent, step, steps)
        else:
            self._running.pop(phase, None)
        # How many parts a step has is found out late, so that the sum alone would go back.
        done = 1.0 if not parent and step >= steps else self._done_of("")
        self.fraction = max(self.fraction, done)
        if self._terminal and time.monotonic() - self._shown_at >= _SECONDS_BETWEEN:
            self._shown_at = time.monotonic()
            self._show(self._terminal, phase)

    def clear(self) -> None:
        """Takes the bar away."""
        if self._terminal and self._shown_at:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()

    def _done_of(self, name: str) -> float:
        """What is done of the step at hand of a phase: the part of it that is furthest."""
        parts = (
            (phase.step + self._done_of(part)) / phase.steps
            for part, phase in self._running.items()
            if phase.parent == name and part != name
        )
        return min(1.0, max(parts, default=0.0))

    def _show(self, terminal: TextIO, phase: str) -> None:
        filled = round(_WIDTH * self.fraction)
        bar = "#" * filled + "." * (_WIDTH - filled)
        line = f"{self._title} [{bar}] {self.fraction:4.0%} {phase}"
        terminal.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        terminal.flush()
