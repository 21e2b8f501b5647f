"""What a lone request costs beside the model itself; bench_overhead.py says it in numbers."""

from __future__ import annotations

import time
from collections.abc import Callable

import models
import numpy as np
import onnxruntime

import trtinfer

CALLS, ROUNDS = 500, 40


def quickest(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each call in its best round; rounds in turns, as the machine has other work."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                call()
            best[name] = min(best[name], (time.perf_counter() - began) / CALLS)
    return best


def test_a_lone_request_costs_no_more_than_a_bare_run() -> None:
    """Much is done for a request, but natively: 0.65 of a run; one file read on the way was 1.6."""
    model = models.matmul_model()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    bare = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    row = np.zeros(256, np.float32)
    batch = row[np.newaxis]
    with trtinfer.Session(model, max_batch_size=64) as session:
        took = quickest(
            {
                "session.run": lambda: bare.run(None, {"x": batch}),
                "infer": lambda: session.infer(row),
            }
        )
    assert took["infer"] < took["session.run"], took
