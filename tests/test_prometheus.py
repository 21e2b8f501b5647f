"""Metrics of sessions in a registry of prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import models
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from serving import serving
from waiting import keep_busy, wait_for_queue

import trtinfer
from trtinfer.prometheus import SessionCollector

ONE = np.float32(1)

#: Counters of `stats()` that the label "outcome" tells apart.
OUTCOMES = ("completed", "failed", "expired", "cancelled", "closed", "rejected", "invalid")


@pytest.fixture
def session() -> Iterator[trtinfer.Session]:
    with trtinfer.Session(
        models.slow_model(), max_batch_size=4, capacity=4, max_inflight=1, latency_slo=60
    ) as session:
        yield session


def registry_of(sessions: Mapping[str, trtinfer.Session]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(SessionCollector(sessions))
    return registry


def test_every_counter_of_the_statistics_is_there(session):
    registry = registry_of({"m": session})
    busy = keep_busy(session)
    cancelled = session.submit(ONE)
    assert cancelled.cancel()
    assert session.submit(ONE, timeout=0.0).exception(10)
    session.submit(np.ones(3, np.float32))
    wait_for_queue(session, 3)
    with pytest.raises(trtinfer.QueueFullError):
        session.submit(ONE)
    with pytest.raises(trtinfer.InputError):
        session.submit("nothing")
    samples = {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in registry.collect()
        for sample in family.samples
    }
    assert samples["trtinfer_queue_length", None] == 3
    assert samples["trtinfer_free_slots", None] == 0
    assert samples["trtinfer_batches_in_flight", None] == 1
    for outcome in ("cancelled", "expired", "rejected", "invalid"):
        assert samples["trtinfer_requests_total", outcome] == 1
    busy.result(10)


def test_no_number_of_the_statistics_is_forgotten(session):
    session.infer_many([ONE] * 3)
    registry = registry_of({"m": session})
    numbers = {name for name, value in session.stats().items() if type(value) is int}
    named = {
        sample.name.removeprefix("trtinfer_").removeprefix("requests_").removesuffix("_total")
        for family in registry.collect()
        for sample in family.samples
    }
    assert numbers - named - set(OUTCOMES) == {"retried"}
    assert "retries" in named
    for outcome in OUTCOMES:
        labels = {"model": "m", "outcome": outcome}
        value = registry.get_sample_value("trtinfer_requests_total", labels)
        assert value == session.stats()[outcome]


def test_latencies_and_batch_sizes_are_those_of_the_statistics(session):
    for rows in (1, 3, 3):
        session.infer(np.ones(rows, np.float32))
    registry = registry_of({"m": session})
    stats = session.stats()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"trtinfer_{name}", {"model": "m", **labels})

    for stage in ("queue", "input", "compute", "output", "total"):
        assert value("latency_seconds", stage=stage, quantile="0.99") == stats[stage]["p99"]
        assert value("latency_seconds_count", stage=stage) == 3
        mean = value("latency_seconds_sum", stage=stage) / 3
        assert mean == pytest.approx(stats[stage]["mean"])
    buckets = [value("batch_size_bucket", le=le) for le in ("1", "2", "4", "+Inf")]
    assert buckets == [1, 1, 3, 3]
    assert (value("batch_size_sum"), value("batch_size_count")) == (7, 3)
    assert value("batch_compute_seconds_count", size="4") == 2
    assert value("slo_target_seconds") == 60


def test_sessions_share_a_registry_with_what_a_program_counts_itself(session):
    with trtinfer.Session(models.matmul_model()) as other:
        sessions = {"slow": session}
        registry = registry_of(sessions)
        Counter("visits", "Of the page", registry=registry).inc()
        sessions["matmul"] = other
        session.infer(ONE)
        other.infer_many([np.ones(256, np.float32)] * 2)
        text = generate_latest(registry).decode()
    assert "visits_total 1.0" in text
    assert 'trtinfer_requests_total{model="slow",outcome="completed"} 1.0' in text
    assert 'trtinfer_requests_total{model="matmul",outcome="completed"} 2.0' in text
    assert text.count("# TYPE trtinfer_requests_total counter") == 1
    del sessions["matmul"]
    assert "matmul" not in generate_latest(registry).decode()


def test_a_registry_takes_the_names_once(session):
    registry = registry_of({"m": session})
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(SessionCollector({"n": session}))


def test_the_server_exposes_the_same_metrics(session, tmp_path: Path):
    with serving({"m": models.slow_model()}, tmp_path) as served:
        body = served.ask("GET", "/metrics")[1].decode()
    kinds = {f.name: f.type for f in text_string_to_metric_families(body)}
    ours = {f.name: f.type for f in registry_of({"m": session}).collect()}
    ours = {name: kind for name, kind in ours.items() if not name.startswith("trtinfer_slo_")}
    assert len(ours) > 10
    assert ours.items() <= kinds.items()
