"""Which requests are traced: the settings of the trace extension, and what they bring about."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from trtinfer.errors import InputError
from trtinfer.server.errors import NotAllowedError
from trtinfer.server.trace import Trace
from trtinfer.server.trace_file import TraceFile

_OFF, _TIMESTAMPS = "OFF", "TIMESTAMPS"
_DEFAULTS = {"trace_level": _OFF, "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0"}
_LEAST = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}


@dataclass(slots=True)
class _Rule:
    """Which requests are traced, of one model or of all that have no rule of their own.

    Attributes:
        values: The settings by name; the count is of those that may yet be traced, -1: any number.
        seen: Requests so far.
        unfinished: Traces that have not ended.
    """

    values: dict[str, str]
    seen: int = 0
    unfinished: int = 0

    @property
    def left(self) -> int:
        return int(self.values["trace_count"])

    @property
    def active(self) -> bool:
        return self.values["trace_level"] != _OFF and self.left != 0

    def picks(self) -> bool:
        """Count a request, and say whether it is the one in so many that is traced."""
        self.seen += 1
        if not self.active or self.seen % int(self.values["trace_rate"]):
            return False
        if self.left > 0:
            self.values["trace_count"] = str(self.left - 1)
        self.unfinished += 1
        return True


class Tracer:
    """Traces requests to a file. Use it on one event loop.

    Attributes:
        active: Whether any request may be traced; when False, nobody needs to ask further.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Trace nothing, until a client wants it.

        Args:
            path: Of the file; None: clients may not want it. They can never choose one.
        """
        self.active = False
        self._path = path
        self._file = TraceFile(path) if path is not None else None
        self._general = _Rule(dict(_DEFAULTS))
        self._rules: dict[str, _Rule] = {}  # of models that have their own
        self._own: dict[str, set[str]] = {}  # which of a rule's settings are the model's own
        self._traces = 0

    def sample(self, name: str, version: str) -> Trace | None:
        """Return the trace of a request that has come; None for one that is not traced."""
        rule = self._rules.get(name, self._general)
        if not rule.picks():
            return None
        self._update_active()
        self._traces += 1
        return Trace(self._traces, (name, version), lambda trace: self._collect(trace, rule))

    def settings(self, model: str = "") -> dict[str, list[str]]:
        """Return all settings, those of a model or the general ones."""
        rule = self._rules.get(model, self._general)
        found = {name: [value] for name, value in rule.values.items()}
        return {**found, "trace_file": [str(self._path or "")], "trace_mode": ["triton"]}

    def update(self, changes: Mapping[str, object], model: str = "") -> dict[str, list[str]]:
        """Change settings, of a model or the general ones, and return all.

        Args:
            changes: Values by name, as text, numbers or lists of one. None, or none at all: a
                model's setting follows the general one again, which gets its default.
            model: Its name; empty: the general settings.

        Raises:
            InputError: A setting is unknown or cannot have the value; nothing is changed.
            NotAllowedError: Traces are asked for, and there is no file for them.
        """
        read = {
            name: _read(name, value)
            for name, value in changes.items()
            if name != "trace_mode" or value not in ("triton", ["triton"])
        }
        if _TIMESTAMPS in read.values() and self._file is None:
            raise NotAllowedError("there is no file for traces: start with --trace-file")
        if read and model:
            self._rules[model] = self._own_rule(model, read)
        elif read:
            reset = {name: _DEFAULTS[name] for name, value in read.items() if value is None}
            given = {name: value for name, value in read.items() if value is not None}
            self._general = _Rule({**self._general.values, **given, **reset})
            self._rules = {name: self._own_rule(name, {}) for name in self._rules}
        self._update_active()
        return self.settings(model)

    def close(self) -> None:
        """Write what has not been written."""
        self.active = False
        if self._file is None:
            return
        if self._general.values["log_frequency"] == "0":
            self._file.close()
        else:
            self._file.set_aside()

    def _own_rule(self, model: str, changes: Mapping[str, str | None]) -> _Rule:
        """The general settings, but for those that are the model's own."""
        old = self._rules.get(model, self._general)
        own = {name: old.values[name] for name in self._own.get(model, ())}
        own |= {name: value for name, value in changes.items() if value is not None}
        own = {name: value for name, value in own.items() if changes.get(name, "") is not None}
        self._own[model] = set(own)
        return _Rule({**self._general.values, **own})

    def _update_active(self) -> None:
        rules = (self._general, *self._rules.values())
        self.active = any(rule.active for rule in rules)

    def _collect(self, trace: Trace, rule: _Rule) -> None:
        rule.unfinished -= 1
        if self._file is None:
            return
        self._file.write(trace.encode())
        frequency = int(rule.values["log_frequency"])
        if self._file.traces == frequency or (rule.left == 0 and not rule.unfinished):
            self._file.set_aside()


def _read(name: str, value: object) -> str | None:
    """The value of a setting as text; None where none was given."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not values and name in _DEFAULTS:
        return None
    text = str(values[0]) if len(values) == 1 else ""
    if name == "trace_level" and text in (_OFF, _TIMESTAMPS):
        return text
    if name in _LEAST and _is_number(text) and int(text) >= _LEAST[name]:
        return text
    raise InputError(f"the trace setting {name!r} cannot be {str(value)[:80]!r} here")


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20
