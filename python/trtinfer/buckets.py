"""The batch sizes that have a plan, buffers and a CUDA graph of their own."""

from __future__ import annotations

from collections.abc import Sequence

from trtinfer.batching import BatchAxis


def bucket_sizes(
    max_batch_size: int,
    buckets: Sequence[int] | None = None,
    axis: BatchAxis | None = None,
    smallest: int = 1,
) -> tuple[int, ...]:
    """The batch sizes that get a plan, ascending.

    Args:
        max_batch_size: The largest batch.
        buckets: The user's choice; None for 1, 2, 4, ... and `max_batch_size`, or for the only size
            that the model has.
        axis: How the model uses its first axis; None: as a batch of any size.
        smallest: The smallest batch that can be run.

    Raises:
        ValueError: A size is no whole number from `smallest` to `max_batch_size`, or the model does
            not have it, or there are none.
    """
    if not _is_size(max_batch_size):
        raise ValueError(f"max_batch_size is {max_batch_size!r}; give a whole number from 1")
    only = 0 if axis is None else axis.fixed if axis.batched else 1
    if buckets is None:
        powers = (1 << i for i in range(max_batch_size.bit_length()))
        smaller = {max(size, smallest) for size in powers if size < max_batch_size}
        return (only,) if only else tuple(sorted({*smaller, max_batch_size}))
    sizes = tuple(buckets)
    if only and set(sizes) != {only}:
        raise ValueError(f"buckets are {list(sizes)}, but this model runs batches of {only} only")
    most = max(only, max_batch_size)
    if not sizes or not all(_is_size(size) and smallest <= size <= most for size in sizes):
        raise ValueError(
            f"buckets are {list(sizes)}; give whole numbers from {smallest} to max_batch_size "
            f"({max_batch_size})"
        )
    return tuple(sorted(set(sizes)))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
