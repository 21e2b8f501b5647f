"""Which batch sizes get a plan."""

from __future__ import annotations

import pytest

from trtinfer.batching import BatchAxis
from trtinfer.buckets import bucket_sizes


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (8, (1, 2, 4, 8)),
        (50, (1, 2, 4, 8, 16, 32, 50)),
        (64, (1, 2, 4, 8, 16, 32, 64)),
    ],
)
def test_sizes_double_up_to_the_largest_batch(largest: int, sizes: tuple[int, ...]) -> None:
    assert bucket_sizes(largest) == sizes
    assert bucket_sizes(largest, axis=BatchAxis(batched=True)) == sizes


def test_users_choice_is_sorted() -> None:
    assert bucket_sizes(64, [64, 1, 8, 8]) == (1, 8, 64)
    assert bucket_sizes(64, [3]) == (3,)


@pytest.mark.parametrize("buckets", [[], [0], [1, -2], [65], [1.0], [True], ["8"]])
def test_choice_that_makes_no_sense_is_refused(buckets: list[int]) -> None:
    with pytest.raises(ValueError, match=r"buckets are .*whole numbers from 1.*\(64\)"):
        bucket_sizes(64, buckets)


def test_no_bucket_is_smaller_than_the_smallest_batch() -> None:
    assert bucket_sizes(20, smallest=4) == (4, 8, 16, 20)
    assert bucket_sizes(6, smallest=3) == (3, 4, 6)
    assert bucket_sizes(3, smallest=3) == (3,)
    assert bucket_sizes(20, [4, 20], smallest=4) == (4, 20)
    with pytest.raises(ValueError, match="whole numbers from 4 to"):
        bucket_sizes(20, [1, 20], smallest=4)


@pytest.mark.parametrize("largest", [0, -1, 1.5, True])
def test_largest_batch_is_a_whole_number(largest: int) -> None:
    with pytest.raises(ValueError, match=f"max_batch_size is {largest}"):
        bucket_sizes(largest)


@pytest.mark.parametrize(
    ("axis", "only"), [(BatchAxis(batched=False), 1), (BatchAxis(batched=True, fixed=100), 100)]
)
def test_model_with_one_size_has_one_bucket(axis: BatchAxis, only: int) -> None:
    assert bucket_sizes(64, axis=axis) == (only,)
    assert bucket_sizes(64, [only], axis) == (only,)
    with pytest.raises(ValueError, match=f"batches of {only} only"):
        bucket_sizes(64, [only, 8], axis)
