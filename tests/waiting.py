"""Waiting for a state, with a bound, in tests of threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import models
import numpy as np

import trtinfer
from trtinfer.completion import InferenceFuture

PATIENCE = 30.0  # seconds: reached only by a failure


def wait_until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


def open_slow(**options: Any) -> trtinfer.Session:
    """A session of which `keep_busy` keeps the only lane busy, with batches of two."""
    return trtinfer.Session(models.slow_model(), max_batch_size=2, max_inflight=1, **options)


def keep_busy(session: trtinfer.Session, turns: float = models.BUSY) -> InferenceFuture:
    """Has a session of `models.slow_model` run a long batch; returns once it is launched."""
    future = session.submit(np.float32(turns))
    wait_until(future.running)
    return future


def wait_for_queue(session: trtinfer.Session, length: int) -> None:
    wait_until(lambda: session.stats()["queue_length"] == length)
