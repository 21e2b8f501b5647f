"""One request on its way through the server, in the words of Triton's traces."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson

from trtinfer.types import Timeline


class Trace:
    """When a request reached each stage: nanoseconds of the clock that `time.monotonic_ns` reads.

    Attributes:
        id: A number that no other trace of the server has.
        request_id: What the client calls the request.
    """

    def __init__(
        self, number: int, model: tuple[str, str], collect: Callable[[Trace], None]
    ) -> None:
        """Start without any stage.

        Args:
            number: The trace's id.
            model: Its name and version.
            collect: Takes the trace when it has ended.
        """
        self.id = number
        self.request_id = ""
        self._model = model
        self._collect = collect
        self._stages: dict[str, int] = {}
        self._runs: list[Timeline] = []

    def note(self, stage: str, when: int | None = None) -> None:
        """Note that a stage was reached then, or now."""
        self._stages[stage] = when or time.monotonic_ns()

    def run(self) -> Timeline:
        """Return what one run of the session is to fill in; of several runs, all count."""
        self._runs.append(Timeline())
        return self._runs[-1]

    def end(self) -> None:
        """Hand the trace over to be written."""
        finished = [run for run in self._runs if run.completion]
        if finished:
            self.note("QUEUE_START", min(run.arrival for run in finished))
            self.note("COMPUTE_START", min(run.launch for run in finished))
            self.note("COMPUTE_END", max(run.completion for run in finished))
        self._collect(self)

    def encode(self) -> bytes:
        """Return the trace as elements of a JSON array: what it is of, and its stages in order."""
        name, version = self._model
        about = {"id": self.id, "model_name": name, "model_version": int(version)}
        if self.request_id:
            about["request_id"] = self.request_id
        ordered = sorted(self._stages.items(), key=lambda stage: stage[1])
        stamps = [{"name": stage, "ns": when} for stage, when in ordered]
        return b"%b,\n%b" % (
            orjson.dumps(about),
            orjson.dumps({"id": self.id, "timestamps": stamps}),
        )
