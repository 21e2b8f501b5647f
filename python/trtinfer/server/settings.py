"""What clients may read and change of a server that runs: its log, and (not) its traces."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from trtinfer.errors import InputError

Setting = bool | int | str

_LEVELS = {
    "log_info": logging.INFO,
    "log_warning": logging.WARNING,
    "log_error": logging.ERROR,
}
_FIXED: dict[str, Setting] = {"log_file": "", "log_format": "default"}
_TRACE = {
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_file": [""],
    "trace_mode": ["triton"],
}


class LogSettings:
    """The level of the logger "trtinfer" in the words of the logging extension."""

    def __init__(self) -> None:
        """Read and change the logger of the process."""
        self._logger = logging.getLogger("trtinfer")

    def read(self) -> dict[str, Setting]:
        """Return all settings."""
        level = self._logger.getEffectiveLevel()
        flags = {name: level <= least for name, least in _LEVELS.items()}
        return {**flags, "log_verbose_level": int(level <= logging.DEBUG), **_FIXED}

    def update(self, changes: Mapping[str, object]) -> dict[str, Setting]:
        """Change settings and return all: messages below the lowest kind that is on are dropped.

        Raises:
            InputError: A setting is unknown or cannot have the value; nothing is changed.
        """
        wanted = self.read()
        for name, value in changes.items():
            if name not in wanted or (name in _FIXED and value != _FIXED[name]):
                raise InputError(f"the log setting {name!r} cannot be {value!r}")
            if type(value) not in (bool, int) and name not in _FIXED:
                raise InputError(f"the log setting {name!r} is no {type(value).__name__}")
            wanted[name] = value  # type: ignore[assignment]
        if changes:
            self._logger.setLevel(self._level(wanted))
        return self.read()

    @staticmethod
    def _level(wanted: Mapping[str, Setting]) -> int:
        if wanted["log_verbose_level"]:
            return logging.DEBUG
        on = [level for name, level in _LEVELS.items() if wanted[name]]
        return min(on, default=logging.CRITICAL)


class TraceSettings:
    """Tells that no request is traced; nothing else can be chosen."""

    def read(self) -> dict[str, list[str]]:
        """Return all settings."""
        return {name: list(values) for name, values in _TRACE.items()}

    def update(self, changes: Mapping[str, object]) -> dict[str, list[str]]:
        """Accept what is the case already; None, or no value, asks for that.

        Raises:
            InputError: A setting is unknown, or asks for traces.
        """
        for name, value in changes.items():
            values = [value] if isinstance(value, str) else value
            if name not in _TRACE or values not in (None, [], _TRACE[name]):
                raise InputError(f"this server traces nothing: {name!r} cannot be {value!r}")
        return self.read()
