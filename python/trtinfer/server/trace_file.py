"""Where traces are written: a JSON array that grows, and is set aside under a number when full."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger("trtinfer")

_BUFFER = 64 << 10  # bytes; a trace has about 700


class TraceFile:
    """A file of traces; what cannot be written is lost, and said once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Write to a path; nothing is there before the first trace.

        Args:
            path: Of the file; those set aside are called "path.0", "path.1" and so on.
        """
        self._path = Path(path)
        self._file: BinaryIO | None = None
        self._next = 0
        self._failed = False
        self.traces = 0  # that the file holds

    def write(self, trace: bytes) -> None:
        """Append a trace."""
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=_BUFFER)
            self._file.write(b",\n" if self.traces else b"[\n")
            self._file.write(trace)
            self.traces += 1
        except OSError as error:
            self._fail(error)

    def set_aside(self) -> None:
        """End the array and give the file the next number; later traces start another."""
        if not self.close():
            return
        try:
            self._path.replace(f"{self._path}.{self._next}")
            self._next += 1
        except OSError as error:
            self._fail(error)

    def close(self) -> bool:
        """End the array; return whether there was any."""
        if self._file is None:
            return False
        file, self._file, self.traces = self._file, None, 0
        try:
            with file:
                file.write(b"\n]\n")
        except OSError as error:
            self._fail(error)
        return True

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            logger.error("traces are lost: %s cannot be written: %s", self._path, error.strerror)
        self._failed = True
