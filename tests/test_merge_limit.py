"""Up to which size requests are merged on a CPU."""

from __future__ import annotations

import models
import pytest

from trtinfer import _core, batching
from trtinfer.batching import BatchAxis, merge_limit, time_batches, with_larger
from trtinfer.onnxruntime_backend import load

SIZES = (1, 2, 4, 8, 16, 32, 64)
BATCHED = BatchAxis(batched=True)


@pytest.fixture
def native() -> _core.OnnxRuntimeModel:
    return load(models.matmul_model(), 1)


def test_a_run_that_costs_the_same_for_any_batch_takes_the_largest():
    assert merge_limit({size: 1e-5 / size for size in SIZES}, 64) == 64


@pytest.mark.parametrize("seconds", [200e-6, 1e-3, 5e-3])
def test_where_a_sample_costs_the_same_in_any_batch_a_few_are_merged(seconds):
    assert merge_limit(dict.fromkeys(SIZES, seconds), 64) <= 16


def test_overhead_is_shared_by_few_slow_samples_and_many_quick_ones():
    quick, slow = (merge_limit(dict.fromkeys(SIZES, cost), 64) for cost in (50e-6, 20e-3))
    assert slow == 1
    assert quick >= 16


def test_a_size_that_is_much_cheaper_is_taken_whatever_it_is():
    assert merge_limit({size: 1e-3 if size == 32 else 2e-3 for size in SIZES}, 64) == 32


def test_nothing_known_is_no_limit():
    assert merge_limit({}, 48) == 48


def test_all_sizes_of_a_quick_model_are_timed(native):
    costs = time_batches(native, BATCHED, 64)
    assert tuple(costs) == SIZES
    assert all(cost > 0 for cost in costs.values())
    assert merge_limit(costs, 64) == 64


def test_large_inputs_are_timed_in_small_batches(native, monkeypatch):
    monkeypatch.setattr(batching, "_SEARCH_BYTES", 8 * 256 * 4)
    assert tuple(time_batches(native, BATCHED, 64)) == (1, 2, 4)


@pytest.mark.parametrize("axis", [BatchAxis(batched=False), BatchAxis(batched=True, fixed=8)])
def test_a_model_of_one_size_is_not_timed(native, axis):
    assert time_batches(native, axis, 64) == {}


def test_sizes_too_slow_to_be_timed_are_tried_up_to_a_fifth_of_a_second():
    timed = {1: 6e-3, 2: 5.5e-3, 4: 5e-3}
    assert with_larger(timed, 64) == {**timed, 8: 5e-3, 16: 5e-3, 32: 5e-3}
    assert with_larger(timed, 12) == {**timed, 8: 5e-3, 12: 5e-3}
    assert with_larger({1: 0.3}, 64) == {1: 0.3}
