"""Sessions on two GPUs: both work, and nothing is lost with one of them.

What ruins a GPU for the rest of a process runs in one of its own: this file is its program, too.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import models
import numpy as np
import pytest
from apart import apart, main
from gpu import Gpu

import trtinfer
from trtinfer import TensorRtOptions, _core
from trtinfer.completion import InferenceFuture
from trtinfer.plan_cache import PlanCache

pytestmark = pytest.mark.gpu(2)

QUEUED = 500
ROWS = np.random.default_rng(5).random((QUEUED, 256), np.float32)


def open_session(device: object = (0, 1), falls_back: bool = True) -> trtinfer.Session:
    return trtinfer.Session(
        models.matmul_model(),
        backend="tensorrt",
        device=device,
        max_batch_size=2,
        capacity=QUEUED,
        tensorrt=TensorRtOptions(falls_back=falls_back),
    )


def check(answers: list[np.ndarray]) -> None:
    expected = ROWS[: len(answers)] @ models.WEIGHTS
    assert np.abs(np.stack(answers) - expected).max() <= 1e-3 * np.ptp(expected)


def test_both_gpus_share_the_requests():
    with open_session([1, 0]) as session:
        check([future.result(30)["y"] for future in [session.submit(row) for row in ROWS]])
        stats = session.stats()
    assert list(stats["gpu_batches"]) == [1, 0]
    assert min(stats["gpu_batches"].values()) > 0
    assert sum(stats["gpu_batches"].values()) == stats["batches"]


def test_callers_that_run_batches_themselves_use_both_gpus():
    with open_session() as session, ThreadPoolExecutor(16) as pool:
        check([outputs["y"] for outputs in pool.map(session.infer, ROWS)])
        assert min(session.stats()["gpu_batches"].values()) > 0


def test_a_lone_caller_stays_with_the_first_gpu():
    with open_session([1, 0]) as session:
        check([session.infer(row)["y"] for row in ROWS[:20]])
        assert session.stats()["gpu_batches"] == {1: 20, 0: 0}


def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(trtinfer.BackendError, match="no GPU 99"):
        open_session([0, 99])


def test_gpus_of_one_kind_share_plans(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path))
    open_session(0).close()
    plans = len(list(PlanCache().entries()))
    open_session().close()
    kinds = {device.compute_capability for device in _core.probe_cuda().devices[:2]}
    assert len(list(PlanCache().entries())) == plans * len(kinds)


def queue_and_trap(session: trtinfer.Session, device: int) -> list[InferenceFuture]:
    """Queues every row behind a kernel that then traps on a GPU."""
    trap = Gpu(device).hold()
    futures = [session.submit(row) for row in ROWS]
    trap()
    return futures


def lose_one() -> None:
    with open_session() as session:
        check([future.result(60)["y"] for future in queue_and_trap(session, 1)])
        assert session.stats()["failed"] == 0
        check([session.infer(row)["y"] for row in ROWS[:20]])
        assert session.backend == "onnxruntime"


def lose_one_without_fallback() -> None:
    with open_session(falls_back=False) as session:
        for row, future in zip(ROWS, queue_and_trap(session, 0), strict=True):
            if future.exception(60) is None:
                np.testing.assert_allclose(future.result()["y"], row @ models.WEIGHTS, atol=1e-2)
            else:
                assert isinstance(future.exception(), trtinfer.BackendError)


@pytest.mark.parametrize("case", [lose_one, lose_one_without_fallback])
def test_every_request_ends_when_a_gpu_is_lost(case):
    """A kernel that traps ends the process's work on all of its GPUs (CUDA error 719)."""
    apart(case)


if __name__ == "__main__":
    main(globals())
