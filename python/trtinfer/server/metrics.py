"""What a server counts, as Prometheus reads it: Triton's names beside our own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from trtinfer.metric_families import Families, Family, Labels
from trtinfer.server.model import Model
from trtinfer.server.statistics import model_statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_DURATIONS = ("queue", "compute_input", "compute_infer", "compute_output")


class Reading(NamedTuple):
    """A value of a counter or gauge that belongs to no model."""

    name: str
    kind: str
    help: str
    labels: Labels
    value: float


def render(models: Iterable[Model], readings: Iterable[Reading]) -> str:
    """Return the metrics of the models that are loaded, and what else is told."""
    families = Families()
    for model in models:
        labels = {"model": model.name, "version": model.version}
        _add_triton(families, labels, model)
        families.add_session(labels, model.session.stats())
    for reading in readings:
        family = families.get(reading.name, reading.kind, reading.help)
        family.add(reading.labels, reading.value)
    return "".join(f"{line}\n" for family in families.all() for line in _lines(family))


def _add_triton(families: Families, labels: Labels, model: Model) -> None:
    statistics = model_statistics(model)
    times = statistics["inference_stats"]

    def count(name: str, text: str, value: float) -> None:
        families.get(f"nv_inference_{name}", "counter", text).add(labels, value)

    count("request_success", "Requests answered", times["success"]["count"])
    for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
        failures = families.get("nv_inference_request_failure", "counter", "Requests that failed")
        failures.add({**labels, "reason": reason}, model.outcomes.refusals[reason])
    count("count", "Samples inferred", statistics["inference_count"])
    count("exec_count", "Batches run", statistics["execution_count"])
    count("request_duration_us", "Time of requests", times["success"]["ns"] // 1000)
    for name in _DURATIONS:
        text = f"Time of requests in {name.replace('_', ' ')}"
        count(f"{name}_duration_us", text, times[name]["ns"] // 1000)
    pending = families.get("nv_inference_pending_request_count", "gauge", "Requests under way")
    pending.add(labels, model.waiting)


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for suffix, labels, value in family.samples:
        pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        yield f"{family.name}{suffix}{{{pairs}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
