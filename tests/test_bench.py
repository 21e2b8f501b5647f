"""Measuring a session: histograms, what is said of batches, the command from end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from models import matmul_model, slow_model

from trtinfer import Session
from trtinfer.bench import STAGES, Batches, Bench
from trtinfer.cli import main
from trtinfer.latency_histogram import LatencyHistogram


def test_quantiles_are_right_to_three_digits():
    nanoseconds = np.random.default_rng(5).lognormal(13, 1, 20_000).astype(np.int64)
    quantiles = LatencyHistogram(nanoseconds).quantiles()
    assert quantiles["count"] == 20_000
    assert quantiles["mean"] == pytest.approx(nanoseconds.mean() / 1e9, rel=2e-3)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1)):
        expected = np.quantile(nanoseconds, share, method="inverted_cdf") / 1e9
        assert quantiles[name] == pytest.approx(expected, rel=2e-3)


def test_cumulative_shares_end_at_one():
    latencies, shares = LatencyHistogram(np.array([1000, 2000, 2000, 9000])).cumulative()
    assert latencies == pytest.approx([1e-6, 2e-6, 9e-6], rel=2e-3)
    assert shares == [0.25, 0.75, 1.0]


def test_histograms_can_be_read_and_added_by_others():
    one, two = (LatencyHistogram(np.full(n, 1000 * n)).encoded() for n in (3, 7))
    both = HdrHistogram.decode(one)
    both.add(HdrHistogram.decode(two))
    assert both.get_total_count() == 10
    assert both.get_max_value() == pytest.approx(7000, rel=1e-3)


def test_histogram_of_nothing():
    assert LatencyHistogram(np.zeros(0, np.int64)).quantiles()["count"] == 0


def test_batches_are_those_of_the_stretch_of_time():
    with Session(matmul_model(), max_batch_size=8) as session:
        session.infer(np.ones((8, 256), np.float32))
        before = session.stats()
        for _ in range(3):
            session.infer(np.ones((2, 256), np.float32))
        batches = Batches.between(before, session.stats())
    assert batches.sizes == {2: 3}
    assert batches.mean_size == 2
    assert 0 < batches.compute < 1
    assert 0 <= batches.transfer < batches.compute


def test_saturation_fills_batches():
    with Session(slow_model(), max_batch_size=16, capacity=64) as session:
        inputs = [np.float32(500)]
        saturated = Bench(session, inputs, seconds=0.3, warm_up=0.1).saturation()
    assert saturated.batches.mean_size > 8
    assert saturated.load.refused == saturated.load.failed == 0
    assert not saturated.is_timed


def test_open_loop_splits_latency_into_queue_transfer_and_compute():
    with Session(slow_model(), max_batch_size=1) as session:
        measured = Bench(session, [np.float32(2000)], seconds=0.3, warm_up=0).open_loop(50)
    mean = measured.histogram.quantiles()["mean"]
    assert measured.offered == 50
    batches = measured.batches
    assert batches.queue + batches.transfer + batches.compute <= mean * 1.01
    assert batches.compute > 1e-4


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(matmul_model())
    return str(path)


def test_command_measures_what_it_is_asked_for(model, tmp_path, capsys):
    output = tmp_path / "results"
    loads = ["--rate", "200,400", "--threads", "2", "--tasks", "3", "--arrivals", "constant"]
    times = ["--seconds", "0.3", "--warm-up", "0.1", "--output", str(output)]
    assert main(["bench", model, *loads, *times, "--backend", "onnxruntime"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["load", "answers/s", "batch"]
    names = ["constant 200/s", "constant 400/s", "2 threads", "3 tasks"]
    assert [line[:22].strip() for line in table[1:] if line.startswith("     ")] == names
    assert sum("lateness" in line for line in table) == 2

    facts = json.loads((output / "bench.json").read_text())
    assert [load["load"] for load in facts["loads"]] == names
    assert [load["offered_per_second"] for load in facts["loads"]] == [200, 400, None, None]
    first = facts["loads"][0]
    assert first["latency"]["count"] == 60
    assert sum(int(size) * n for size, n in first["batch_sizes"].items()) == 60
    assert isinstance(first["generator_was_late"], bool)
    assert HdrHistogram.decode(first["histogram"]).get_total_count() == 60
    assert facts["machine"]["cpu"]["usable_cores"] > 0
    assert all(0 < first[f"mean_{stage}"] < 1 for stage in STAGES)
    for plot in ("latency.png", "latency_against_load.png", "latency_stages.png"):
        assert (output / plot).read_bytes().startswith(b"\x89PNG")


def test_command_measures_shares_of_the_saturation(model, capsys):
    assert main(["bench", model, "--share", "0.01", "--seconds", "0.2", "--format", "json"]) == 0
    saturation, load = json.loads(capsys.readouterr().out)["loads"]
    assert saturation["load"] == "saturation"
    expected = saturation["answered_per_second"] / 100
    assert load["offered_per_second"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "-5"], "above 0"),
        (["--rate", "many"], "many"),
        (["--threads", "0"], "at least one"),
        (["--tasks", "1.5"], "whole number"),
        (["--seconds", "0"], "--seconds"),
    ],
)
def test_command_says_what_it_cannot_measure(model, capsys, arguments, said):
    assert main(["bench", model, *arguments]) == 2
    assert said in capsys.readouterr().err
