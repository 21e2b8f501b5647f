"""What does MLPerf's LoadGen, which is none of ours, say of a session?

`mlcommons-loadgen` sends the requests, keeps the time and judges: SingleStream (one request after
another), MultiStream (eight at a time), Offline (all at once), Server (a Poisson process; the
highest rate whose p99 is below the bound is searched for). The system under test uses the public
API only. Settings, logs and summaries stay in the output folder, a folder for each run.
    python bench/bench_loadgen.py [MODEL] [--output loadgen] [--official]
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import contenders
import mlperf_loadgen
import numpy as np
import resnet50
from measuring import describe_machine, write_json

import trtinfer
from trtinfer import TensorRtOptions, default_model
from trtinfer.verify import random_requests

RESNET50 = "resnet50"
SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")
LIKELY_SHARE = 0.85  # of the Offline rate, where the search for the Server rate begins
PATIENCE = 600.0  # seconds
AT_ONCE = 1 << 16  # samples of a query, of which Offline has one of minutes, and answers in memory
CLOSE = 1.025  # a rate that is valid and one that is not: the search is over

Query = Sequence[Any]  # of mlperf_loadgen.QuerySample


@dataclass(frozen=True)
class Run:
    """One run of LoadGen.

    Attributes:
        folder: For settings and logs.
        scenario: One of SCENARIOS.
        rate: Expected samples per second (Offline), or those that are sent (Server).
        options: Of the command line.
    """

    folder: Path
    scenario: str
    rate: float
    options: dict[str, Any]

    def user_conf(self) -> str:
        """Where this differs from MLPerf's own settings for ResNet-50, in LoadGen's form."""
        expected_ms = 1e3 / self.rate / 4  # too low a guess only prepares more queries
        lines = [
            f"*.SingleStream.target_latency = {expected_ms:g}",
            f"*.MultiStream.target_latency = {8 * expected_ms:g}",
            f"*.Server.target_latency = {self.options['latency'] * 1e3:g}",
            f"*.Server.target_qps = {self.rate:g}",
            f"*.Offline.target_qps = {self.rate:g}",
        ]
        if not self.options["official"]:
            samples = self.options["samples"]
            lines += [
                f"*.*.min_duration = {self.options['seconds'] * 1e3:.0f}",
                f"*.*.performance_sample_count_override = {samples}",
                f"*.Offline.min_query_count = {max(1, round(self.rate * self.options['seconds']))}",
            ]
        return "\n".join(lines) + "\n"


# --- The system under test


class SystemUnderTest:
    """Answers queries by a session. LoadGen calls it on a thread of its own."""

    def __init__(self, session: trtinfer.Session, scenario: str) -> None:
        self._session = session
        self._samples: dict[int, Any] = {}
        issue = {"Server": self._submit, "SingleStream": self._infer}
        self.issue: Callable[[Query], None] = issue.get(scenario, self._infer_many)

    def load(self, indices: Sequence[int]) -> None:
        for index in indices:
            self._samples[index] = random_sample(self._session, index)

    def unload(self, indices: Sequence[int]) -> None:
        for index in indices:
            self._samples.pop(index, None)  # LoadGen may have named it twice

    def _infer(self, query: Query) -> None:
        for sample in query:
            _complete(sample.id, self._session.infer(self._samples[sample.index]))

    def _infer_many(self, query: Query) -> None:
        for first in range(0, len(query), AT_ONCE):
            part = query[first : first + AT_ONCE]
            answers = self._session.infer_many(self._samples[sample.index] for sample in part)
            for sample, outputs in zip(part, answers, strict=True):
                _complete(sample.id, outputs)

    def _submit(self, query: Query) -> None:
        inputs = [self._samples[sample.index] for sample in query]
        for sample, x, future in zip(query, inputs, self._session.submit_many(inputs), strict=True):
            if future.done() and isinstance(future.exception(), trtinfer.QueueFullError):
                # LoadGen wants every query answered; those behind this one are late, as it sees.
                future = self._session.submit(x, timeout=PATIENCE)
            future.add_done_callback(lambda future, id=sample.id: _complete(id, future.result()))


def _complete(sample_id: int, outputs: trtinfer.Outputs) -> None:
    answer = next(iter(outputs.values()))
    response = mlperf_loadgen.QuerySampleResponse(sample_id, answer.ctypes.data, answer.nbytes)
    mlperf_loadgen.QuerySamplesComplete([response])


def random_sample(session: trtinfer.Session, seed: int) -> Any:
    """An image where the session takes images."""
    if session.recipe is None:
        return next(random_requests(session.inputs, {}, 1, seed=seed))
    size = (resnet50.SIDE, resnet50.SIDE, 3)
    return np.random.default_rng(seed).integers(256, size=size, dtype=np.uint8)


def open_session(options: dict[str, Any]) -> trtinfer.Session:
    name, more = options["model"], {}
    model = resnet50.build() if name == RESNET50 else name or default_model.path()
    if name == RESNET50:
        more["tensorrt"] = TensorRtOptions(build=contenders.BUILD)
    if options["images"]:
        more["preprocess"] = contenders.RECIPE
    return trtinfer.Session(
        model,
        backend=options["backend"],
        max_batch_size=options["max_batch_size"],
        capacity=options["capacity"],
        **more,
    )


def run_here(run: Run) -> None:
    """Has LoadGen test a session; the first in a process, since LoadGen reads settings once."""
    conf = run.folder / "user.conf"
    settings = mlperf_loadgen.TestSettings()
    settings.FromConfig(str(conf), "resnet50", run.scenario, 1)
    settings.scenario = getattr(mlperf_loadgen.TestScenario, run.scenario)
    settings.server_coalesce_queries = True  # those that are due already come in one call
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    log = mlperf_loadgen.LogSettings()
    log.log_output.outdir = str(run.folder)
    log.log_output.copy_summary_to_stdout = False
    with open_session(run.options) as session:
        sut = SystemUnderTest(session, run.scenario)
        samples = 1024 if run.options["official"] else run.options["samples"]
        system = mlperf_loadgen.ConstructSUT(sut.issue, lambda: None)
        library = mlperf_loadgen.ConstructQSL(samples, samples, sut.load, sut.unload)
        mlperf_loadgen.StartTestWithLogSettings(system, library, settings, log, "")
        mlperf_loadgen.DestroyQSL(library)
        mlperf_loadgen.DestroySUT(system)
        write_json(run.folder / "session.json", stats=session.stats(), options=run.options)


# --- The runs


def run_apart(run: Run) -> dict[str, Any]:
    """Runs LoadGen in a process of its own; what its summary says."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "user.conf").write_text(run.user_conf())
    arguments = json.dumps(asdict(run) | {"folder": str(run.folder)})
    subprocess.run([sys.executable, __file__, "--run", arguments], check=True)
    summary = read_summary((run.folder / "mlperf_log_summary.txt").read_text())
    print(f"{run.folder.name}: {headline(run.scenario, summary)}", flush=True)
    return summary


def read_summary(text: str) -> dict[str, Any]:
    """The `name : value` lines; numbers as such."""
    facts: dict[str, Any] = {}
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator and name.strip() not in facts:
            facts[name.strip()] = _number(value.strip())
    return facts


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def is_valid(summary: dict[str, Any]) -> bool:
    return bool(summary["Result is"] == "VALID")


def headline(scenario: str, summary: dict[str, Any]) -> str:
    verdict = "valid" if is_valid(summary) else "NOT valid"
    if scenario == "Offline":
        return f"{summary['Samples per second']:,.1f} samples/s, {verdict}"
    if scenario == "Server":
        p99 = summary["99.00 percentile latency (ns)"] / 1e6
        rate = summary["Scheduled samples per second"]
        return f"{rate:,.1f} queries/s, p99 {p99:.3f} ms, {verdict}"
    percentile = 90 if scenario == "SingleStream" else 99
    latency = summary[f"{percentile}.00 percentile latency (ns)"] / 1e6
    return f"p{percentile} {latency:.3f} ms, {verdict}"


def find_server_rate(make_run: Callable[[float], Run], first: float, tries: int) -> float:
    """The highest rate that was valid, within 2.5 %; 0: none was."""
    valid, invalid, rate = 0.0, math.inf, first
    for _ in range(tries):
        if is_valid(run_apart(make_run(rate))):
            valid = rate
        else:
            invalid = rate
        if invalid < CLOSE * valid:
            break
        rate = 1.1 * valid if invalid == math.inf else (valid + invalid) / 2
    return valid


def measure(options: dict[str, Any], output: Path) -> dict[str, Any]:
    scenarios = options["scenarios"].split(",")
    results: dict[str, Any] = {}
    rate = options["rate"]
    for scenario in [name for name in SCENARIOS if name in scenarios and name != "Server"]:
        summary = run_apart(Run(output / scenario, scenario, rate, options))
        results[scenario] = summary
        if scenario == "Offline":
            rate = summary["Samples per second"]
    if "Server" in scenarios:

        def make_run(rate: float) -> Run:
            return Run(output / f"Server-{rate:.0f}", "Server", rate, options)

        best = find_server_rate(make_run, rate * LIKELY_SHARE, options["tries"])
        results["Server"] = {"valid_queries_per_second": best}
        if "Offline" in results:
            results["Server"]["of_offline"] = best / rate
            print(f"Server: {best:,.1f} queries/s, {best / rate:.0%} of Offline")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help=f"ONNX, or {RESNET50} (default: EfficientNet)")
    parser.add_argument(
        "--images", action="store_true", help=f"uint8, normalized by the session ({RESNET50} only)"
    )
    parser.add_argument("--output", type=Path, default=Path("loadgen"), help="(default: loadgen)")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="(default: all)")
    parser.add_argument("--official", action="store_true", help="MLPerf's sizes: 10 minutes a run")
    parser.add_argument("--seconds", type=float, default=10, help="a run takes at least")
    parser.add_argument("--samples", type=int, default=64, help="different inputs")
    parser.add_argument("--latency", type=float, default=0.015, help="bound of Server's p99, s")
    parser.add_argument("--rate", type=float, default=200, help="expected samples per second")
    parser.add_argument("--tries", type=int, default=8, help="runs for the Server rate at most")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--max-batch-size", type=int, default=64)
    parser.add_argument("--capacity", type=int, default=4096)
    parser.add_argument("--run", help=argparse.SUPPRESS)  # one run, in a process of its own
    options = vars(parser.parse_args())
    if options["images"] and options["model"] != RESNET50:
        parser.error(f"--images is for {RESNET50}")
    if options["run"]:
        run = json.loads(options["run"])
        run_here(Run(**run | {"folder": Path(run["folder"])}))
        return
    del options["run"]
    output = options.pop("output")
    results = measure(options, output)
    machine = describe_machine("trtinfer", "onnxruntime", "mlcommons-loadgen")
    write_json(output / "loadgen.json", machine=machine, options=options, results=results)


if __name__ == "__main__":
    main()
