"""The policy behind ``latency_slo``, on a simulated clock."""

from __future__ import annotations

import numpy as np
import pytest
import simulation
from simulation import (
    RESNET50,
    RESNET50_ALONE,
    RESNET50_BUSY,
    FixedDelay,
    LatencyTarget,
    Outcome,
    simulate,
)

from trtinfer import _core

CAPACITY = 64 / RESNET50[64]  # requests per second of full batches
SECONDS = 0.6

TRACES = {
    "uniform": simulation.uniform,
    "Poisson": simulation.poisson,
    "bursts": simulation.bursts,
    "ramp": lambda rate, seconds: simulation.ramp(0.5 * rate, 1.5 * rate, seconds),
}


def policy(target: float = 0.010, **options) -> _core.LatencyPolicy:
    options = {"lanes_share": True, "pads": True, **options}
    made = _core.LatencyPolicy(target, 2, list(RESNET50), **options)
    for size, cost in RESNET50.items():
        made.learn(size, cost)
    return made


def fixed_delays() -> dict[str, FixedDelay]:
    """As Triton and mosec are set up, without and with a limit of the queue."""
    return {
        f"delay {1e3 * delay:g} ms, size {size}, queue {limit}": FixedDelay(
            RESNET50, delay, size, limit
        )
        for delay in (0.0, 1e-3, 3e-3)
        for size in (16, 64)
        for limit in (0, 128)
    }


# --- The target ----------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("load", [0.3, 0.6, 0.9, 1.2, 2.0])
@pytest.mark.parametrize("target", [0.005, 0.010, 0.015])
def test_99_of_100_answers_keep_the_target(trace, load, target):
    arrivals = TRACES[trace](load * CAPACITY, SECONDS)
    outcome = simulate(LatencyTarget(RESNET50, target), arrivals)
    assert outcome.quantile(0.99) <= 1.03 * target
    assert len(outcome.latencies) + outcome.refused == len(arrivals)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_refuses_next_to_nobody_below_capacity(load):
    arrivals = simulation.poisson(load * CAPACITY, SECONDS)
    outcome = simulate(LatencyTarget(RESNET50, 0.010), arrivals)
    assert outcome.refused <= 0.001 * len(arrivals)


@pytest.mark.parametrize("load", [1.2, 2.0, 5.0])
def test_answers_at_capacity_when_more_is_asked(load):
    arrivals = simulation.poisson(load * CAPACITY, SECONDS)
    outcome = simulate(LatencyTarget(RESNET50, 0.010), arrivals)
    assert len(outcome.latencies) >= 0.95 * CAPACITY * SECONDS


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("load", [0.6, 0.9, 1.2])
def test_no_fixed_delay_answers_more_within_the_target(trace, load):
    target = 0.010
    arrivals = TRACES[trace](load * CAPACITY, SECONDS)

    def in_time(tried: simulation.Policy) -> int:
        return sum(latency <= target for latency in simulate(tried, arrivals).latencies)

    ours = in_time(LatencyTarget(RESNET50, target))
    for name, fixed in fixed_delays().items():
        assert ours >= 0.98 * in_time(fixed), name


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8, 0.9])
def test_its_tail_is_below_that_of_every_fixed_delay(load):
    arrivals = simulation.poisson(load * CAPACITY, SECONDS)
    ours = simulate(LatencyTarget(RESNET50, 0.010), arrivals).quantile(0.99)
    for name, fixed in fixed_delays().items():
        outcome = simulate(fixed, arrivals)
        if outcome.refused == 0:
            assert ours <= 1.02 * outcome.quantile(0.99), name


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_learns_costs_that_were_measured_wrong(factor):
    wrong = {size: factor * cost for size, cost in RESNET50.items()}
    arrivals = simulation.poisson(0.9 * CAPACITY, 4 * SECONDS)
    tried = LatencyTarget(wrong, 0.010)
    outcome = simulate(tried, arrivals)
    late = outcome.latencies[len(outcome.latencies) // 2 :]
    assert np.quantile(late, 0.99) <= 0.0103
    assert tried.native.cost(64) == pytest.approx(RESNET50[64], rel=0.15)


def test_follows_a_device_that_becomes_slower():
    slow = {size: 1.5 * cost for size, cost in RESNET50.items()}
    tried, arrivals = LatencyTarget(RESNET50, 0.010), simulation.poisson(0.6 * CAPACITY, SECONDS)
    simulate(tried, arrivals)
    simulate(tried, arrivals + 1, slow)
    assert simulate(tried, arrivals + 2, slow).quantile(0.99) <= 0.0103


# --- Decisions -----------------------------------------------------------------------------------


def test_an_idle_device_waits_for_no_company():
    for load in (0.3, 0.9):
        arrivals = simulation.poisson(load * CAPACITY, SECONDS)
        assert simulate(LatencyTarget(RESNET50, 0.010), arrivals).idle_with_queue < 1e-9
    assert policy().decide(1.0, 1)[0] == 1


def test_nobody_is_asked_to_look_again_where_nothing_is_held():
    made = policy()
    never = made.decide(1.0, 0)[1]
    assert never > 1e9  # seconds
    made.launched(0, 1.0, 64)
    assert made.decide(1.0, 64) == (64, never)


def test_batches_stay_so_small_that_two_turns_keep_the_target():
    assert policy(0.010).batch_limit == 64
    assert policy(0.005).batch_limit == 32
    assert policy(0.001).batch_limit == 4


def test_holds_an_incomplete_batch_until_the_device_is_nearly_free():
    made = policy()
    made.launched(0, 1.0, 64)
    samples, retry_at = made.decide(1.001, 10)
    assert samples == 0
    assert 1.002 < retry_at < 1.0 + RESNET50[64]
    assert made.decide(retry_at, 10)[0] > 0
    assert made.decide(1.001, 64)[0] == 64


def test_lanes_of_their_own_wait_for_nothing():
    made = policy(lanes_share=False, pads=False)
    made.launched(0, 1.0, 64)
    assert made.decide(1.001, 10)[0] == 10


def test_a_batch_just_over_a_size_is_not_padded_far_up():
    assert policy().decide(1.0, 33)[0] == 32
    assert policy().decide(1.0, 60)[0] == 60


def test_predictions_count_what_runs_and_what_waits():
    made = policy()
    assert made.predict(1.0, 0, 1) == pytest.approx(RESNET50[1])
    made.launched(0, 1.0, 64)
    assert made.predict(1.0, 0, 1) == pytest.approx(RESNET50[64] + RESNET50[1])
    assert made.predict(1.0, 64, 1) == pytest.approx(2 * RESNET50[64] + RESNET50[1])


def test_refuses_what_can_no_longer_make_it():
    made = policy(0.010)
    made.launched(0, 1.0, 64)
    assert made.admits(1.0, 60, 1)
    assert not made.admits(1.0, 200, 1)


def test_an_idle_device_refuses_nobody():
    assert policy(1e-5).admits(1.0, 0, 1)


def test_the_margin_settles_where_one_in_a_hundred_is_later():
    made, random = policy(), np.random.default_rng(0)
    for error in random.exponential(1e-4, 20_000):
        made.answered(0.002, 0.002 + error)
    assert made.margin == pytest.approx(np.log(100) * 1e-4, rel=0.4)


@pytest.mark.parametrize("target", [0.0, -1.0])
def test_refuses_targets_that_are_none(target):
    with pytest.raises(ValueError, match="latency_slo"):
        _core.LatencyPolicy(target, 1, [1], lanes_share=True, pads=True)


# --- What trial runs do not show ------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, 0.015])
@pytest.mark.parametrize("excess", [1.2, 1.5])
def test_a_size_that_looked_dear_in_trial_runs_is_used_under_load(target, excess):
    """Alone, a batch waits for its transfer, which under load overlaps with the batch before."""
    tried = LatencyTarget({**RESNET50, 64: excess * RESNET50[64]}, target)
    outcome = simulate(tried, simulation.poisson(0.97 * CAPACITY, 3 * SECONDS))
    assert outcome.quantile(0.99) <= 0.015
    assert max(outcome.batches) == 64


def test_a_size_that_is_dear_is_tried_again_now_and_then_only():
    costs = {**RESNET50, 64: 2.5 * RESNET50[64]}
    outcome = simulate(
        LatencyTarget(costs, None), simulation.poisson(0.9 * 32 / costs[32], 3), costs
    )
    assert outcome.batches.count(64) <= len(outcome.batches) / 200


# --- Batches that run side by side, as on a GPU ---------------------------------------------------


BUSY_CAPACITY = 64 / RESNET50_BUSY[64]
LOADS = (1.3, 0.9, 0.6, 0.97, 0.2, 0.8)


def on_a_gpu(tried: LatencyTarget, load: float, start: float, seed: int, **options) -> Outcome:
    arrivals = start + simulation.poisson(load * BUSY_CAPACITY, 2, seed)
    return simulate(tried, arrivals, RESNET50_BUSY, alone=RESNET50_ALONE, seed=seed, **options)


@pytest.mark.parametrize("target", [None, 0.005, 0.015])
@pytest.mark.parametrize("noise", [0.03, 0.3])
def test_costs_do_not_drift_where_batches_end_together(target, noise):
    """Two that run at a time end at a time: the second of them seems to have cost nothing."""
    tried = LatencyTarget(RESNET50_ALONE, target)
    for turn, load in enumerate(LOADS[target is None :]):
        on_a_gpu(tried, load, start=10.0 * turn, seed=turn, noise=noise)
        for size, cost in RESNET50_BUSY.items():
            assert 0.7 * cost <= tried.native.cost(size) <= 1.3 * RESNET50_ALONE[size]


@pytest.mark.parametrize("target", [0.005, 0.015])
def test_serves_on_after_an_overload(target):
    tried = LatencyTarget(RESNET50_ALONE, target)
    for turn, load in enumerate(LOADS):
        outcome = on_a_gpu(tried, load, start=10.0 * turn, seed=turn)
        assert outcome.quantile(0.99) <= 1.03 * target
        assert len(outcome.latencies) >= 2 * BUSY_CAPACITY * min(0.99 * load, 0.85)


@pytest.mark.parametrize("load", [0.8, 0.9, 0.95])
def test_keeps_the_tail_without_a_target(load):
    tried = LatencyTarget(RESNET50_ALONE, None)
    for turn in range(3):
        outcome = on_a_gpu(tried, load, start=10.0 * turn, seed=turn)
        assert outcome.quantile(0.99) <= 4 * RESNET50_ALONE[64]


def test_predictions_keep_up_with_a_device_that_is_never_idle():
    """Each batch is predicted to take 4 % too long, which must not add up."""
    wrong = {size: 1.04 * cost for size, cost in RESNET50.items()}
    made = _core.LatencyPolicy(None, 2, list(wrong), lanes_share=True, pads=True)
    for size, cost in wrong.items():
        made.learn(size, cost)
    made.launched(0, 0.0, 64)
    for batch in range(1, 9):
        now = batch * RESNET50[64]
        made.launched(batch % 2, now - 1e-3, 64)
        made.finished((batch - 1) % 2, now)
    assert made.predict(now, 0, 64) == pytest.approx(2 * wrong[64], rel=0.01)


# --- One batch at a time, as on a CPU -------------------------------------------------------------

#: Milliseconds per sample of EfficientNet-Lite0, with both cores to itself and beside other work.
QUICK = {1: 5.3, 2: 4.76, 4: 4.62, 8: 4.85, 16: 5.5, 32: 5.1}
DISTURBED = {1: 8.2, 2: 7.1, 4: 6.4, 8: 5.8, 16: 5.3, 32: 5.1}


@pytest.mark.parametrize("seed", range(4))
def test_a_lone_lane_learns_which_size_answers_most(seed):
    made = _core.LatencyPolicy(None, 1, list(QUICK), lanes_share=True, pads=False)
    for size, cost in QUICK.items():
        made.learn(size, size * cost * 1e-3)
    random, now = np.random.default_rng(seed), 0.0
    for costs in (QUICK, DISTURBED, QUICK, DISTURBED):
        samples, began = 0, now
        while now < began + 60:
            size, _ = made.decide(now, 32)
            made.launched(0, now, size)
            now += size * costs[size] * 1e-3 * random.lognormal(0, 0.06)
            made.finished(0, now)
            samples += size
        assert samples / (now - began) >= 0.96 * 1e3 / min(costs.values())
