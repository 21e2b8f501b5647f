"""Contenders in processes of their own take turns; whoever fails or hangs is left out."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from contender_process import ContenderProcess, LeftOutError, Open, TimeUpError
from measuring import Samples

Opens = Mapping[str, Mapping[str, Open]]


class Contest:
    """Rounds of turns, each contender in each scenario a process, all of them open at a time.

    Attributes:
        samples: By scenario and contender, one of each full round; of the first round also when it
            was not finished.
        left_out: Who failed or had no turn, and why.
        ended: Why rounds are missing; empty when none is.
        rounds: How many were finished.
    """

    def __init__(
        self, opens: Opens, *, until: float, opening: float = 120.0, patience: float = 4.0
    ) -> None:
        """Names the contenders.

        Args:
            opens: How they are opened, by scenario and name.
            until: The time of `time.monotonic` at which the contest ends.
            opening: Seconds that opening may take, each.
            patience: Seconds that a turn may take beside eight times those it is asked for.
        """
        self.samples: Samples = {key: {name: [] for name in by} for key, by in opens.items()}
        self.left_out: dict[str, str] = {}
        self.ended = ""
        self.rounds = 0
        self._opens, self._until = opens, until
        self._opening, self._patience = opening, patience
        self._logs = tempfile.TemporaryDirectory(prefix="contest-")
        self._processes: dict[tuple[str, str], ContenderProcess] = {}

    def __enter__(self) -> Contest:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.kill()
        self._logs.cleanup()

    def hold(self, rounds: int, seconds: float) -> None:
        """Opens everybody, one at a time; then rounds of turns, until time is up.

        Ctrl-C and SIGTERM end them, too.
        """
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._open()
            while self.rounds < rounds:
                self._round(rounds, seconds)
                self.rounds += 1
        except TimeUpError:
            self.ended = "the time limit was reached"
        except KeyboardInterrupt:
            self.ended = "it was interrupted"
        finally:
            signal.signal(signal.SIGTERM, before)
        self._drop_unfinished()

    def _open(self) -> None:
        for scenario, by_name in self._opens.items():
            for name, opened in by_name.items():
                log = Path(self._logs.name, str(len(self._processes)))
                process = ContenderProcess(opened, log, self._opening)
                self._processes[scenario, name] = process
        for done, (scenario, name) in enumerate(list(self._processes)):
            self._say(f"opening {done + 1}/{len(self._processes)}", scenario, name)
            with self._left_out_if_it_fails(scenario, name) as process:
                process.open(self._until)

    def _round(self, rounds: int, seconds: float) -> None:
        """Who comes first changes from round to round."""
        limit = self._patience + 8 * seconds
        for scenario, by_name in self.samples.items():
            names = list(by_name)
            first = self.rounds % max(len(names), 1)
            for name in names[first:] + names[:first]:
                self._say(f"round {self.rounds + 1}/{rounds}", scenario, name)
                with self._left_out_if_it_fails(scenario, name) as process:
                    by_name[name].append(process.measure(seconds, limit, self._until))

    @contextmanager
    def _left_out_if_it_fails(self, scenario: str, name: str) -> Iterator[ContenderProcess]:
        process = self._processes[scenario, name]
        try:
            yield process
        except LeftOutError as error:
            self.left_out[f"{scenario}, {name}"] = str(error)
            print(f"\n{scenario}, {name}: {error}\n{process.last_words()}", file=sys.stderr)
            del self.samples[scenario][name], self._processes[scenario, name]
            process.kill()

    def _drop_unfinished(self) -> None:
        """Everybody has as many samples; those without any of the first round are left out."""
        for scenario, by_name in self.samples.items():
            for name, taken in list(by_name.items()):
                del taken[max(self.rounds, 1) :]
                if not taken:
                    self.left_out[f"{scenario}, {name}"] = self.ended
                    del by_name[name]

    @staticmethod
    def _say(what: str, scenario: str, name: str) -> None:
        print(f"\r{what}: {scenario}, {name:44}", end="", file=sys.stderr, flush=True)
