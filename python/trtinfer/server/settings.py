"""What clients may read and change of the log of a server that runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from trtinfer.errors import InputError

Setting = bool | int | str

_KINDS = {
    "log_info": logging.INFO,
    "log_warning": logging.WARNING,
    "log_error": logging.ERROR,
}
_VERBOSE = "log_verbose_level"
_FIXED: dict[str, Setting] = {"log_file": "", "log_format": "default"}


class LogSettings:
    """Which messages of the logger "trtinfer" are written, in the words of the logging extension.

    Attributes:
        verbose: Whether every request is to be logged; whoever answers one asks here.
    """

    def __init__(self) -> None:
        """Read and change the logger of the process."""
        self._logger = logging.getLogger("trtinfer")
        self._level_before = self._logger.level
        level = self._logger.getEffectiveLevel()
        self._on = {name: level <= kind for name, kind in _KINDS.items()}
        self._verbose_level = int(level <= logging.DEBUG)
        self.verbose = self._verbose_level > 0

    def read(self) -> dict[str, Setting]:
        """Return all settings."""
        return {**self._on, _VERBOSE: self._verbose_level, **_FIXED}

    def update(self, changes: Mapping[str, object]) -> dict[str, Setting]:
        """Change settings and return all; a kind that is off is dropped, whatever the others are.

        Raises:
            InputError: A setting is unknown or cannot have the value; nothing is changed.
        """
        wanted = {name: _checked(name, value) for name, value in changes.items()}
        self._on |= {name: bool(value) for name, value in wanted.items() if name in _KINDS}
        self._verbose_level = int(wanted.get(_VERBOSE, self._verbose_level))
        self.verbose = self._verbose_level > 0
        if wanted:
            self._logger.removeFilter(self._passes)
            self._logger.addFilter(self._passes)
            on = [_KINDS[name] for name, value in self._on.items() if value]
            least = logging.DEBUG if self.verbose else min(on, default=logging.CRITICAL)
            self._logger.setLevel(least)
        return self.read()

    def close(self) -> None:
        """Leave the logger as it was."""
        self._logger.removeFilter(self._passes)
        self._logger.setLevel(self._level_before)

    def _passes(self, record: logging.LogRecord) -> bool:
        return all(self._on[name] or record.levelno != kind for name, kind in _KINDS.items())


def _checked(name: str, value: object) -> Setting:
    if name in _FIXED and value == _FIXED[name]:
        return _FIXED[name]
    if name in _KINDS and isinstance(value, bool):
        return value
    if name == _VERBOSE and type(value) is int and 0 <= value < 1 << 32:
        return value
    raise InputError(f"the log setting {name!r} cannot be {str(value)[:80]!r} here")
