"""What goes wrong with a GPU: plans, memory, kernels; no request is lost by it.

What may ruin a GPU for the rest of a process runs in one of its own: this file is its program, too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
from apart import apart, main
from gpu import Gpu

import trtinfer
from trtinfer import (
    BackendError,
    BuildOptions,
    TensorRtOptions,
    _core,
    engines,
    tensorrt_library,
)
from trtinfer.completion import InferenceFuture
from trtinfer.model_source import ModelSource
from trtinfer.plan_cache import PlanCache

RNG = np.random.default_rng(11)
QUEUED = 500
RECIPE = trtinfer.Recipe.named("torchvision")
SMALL_IMAGE = RNG.integers(0, 256, (300, 300, 3), np.uint8)
LARGE_IMAGE = RNG.integers(0, 256, (3000, 4000, 3), np.uint8)

CYCLES, WARM_UP = 1000, 50
MOST_GROWTH = 4 << 20  # of all cycles together, in bytes of either memory


def open_session(model: bytes, falls_back: bool = True, **more: object) -> trtinfer.Session:
    options = TensorRtOptions(falls_back=falls_back)
    return trtinfer.Session(model, backend="tensorrt", tensorrt=options, **more)


def open_matmul(**more: object) -> trtinfer.Session:
    return open_session(models.matmul_model(), max_batch_size=8, capacity=512, **more)


def open_images(**more: object) -> trtinfer.Session:
    return open_session(
        models.image_model(224), max_batch_size=2, max_inflight=1, preprocess=RECIPE, **more
    )


def open_engine(model: bytes) -> tuple[_core.TensorRtEngine, _core.TensorRtRuntimeCache | None]:
    """The engine of batch 1, with the kernels that sessions have compiled for it."""
    cache = PlanCache()
    found = engines.of_model(ModelSource(model), 1, None, TensorRtOptions(), None, cache)(0)
    _, engine = found.buckets[0]
    if not found.library.is_rtx:
        return engine, None
    kernels = _core.TensorRtRuntimeCache(engine)
    kernels.deserialize(cache.get(found.kernels_key) or b"")
    return engine, kernels


def check_matmul(answers: list[np.ndarray], rows: np.ndarray) -> None:
    expected = rows @ models.WEIGHTS
    assert np.abs(np.stack(answers) - expected).max() <= 1e-3 * np.ptp(expected)


def check_means(session: trtinfer.Session, image: np.ndarray) -> None:
    means = session.infer(image)["means"]
    np.testing.assert_allclose(means, RECIPE(image).mean((1, 2)), rtol=1e-3, atol=1e-3)


# --- Plans


@pytest.fixture
def plan_cache(tmp_path, monkeypatch) -> PlanCache:
    """An empty one, which sessions use."""
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path))
    return PlanCache()


def of_another_family(plan: bytes) -> bytes:
    """Plans begin with `ptrt`, those of TensorRT for RTX with `vtrt`."""
    return {b"ptrt": b"vtrt", b"vtrt": b"ptrt"}[plan[:4]] + plan[4:]


def of_another_version(plan: bytes) -> bytes:
    """TensorRT refuses by the version that it serialized, a tag before each of its parts.

    TensorRT for RTX also writes it as bytes into a header of its own, but only warns by that one.
    """
    major, *rest = map(int, tensorrt_library.find().version.split("."))

    def serialized(*version: int) -> bytes:
        return b"".join(b"\x02\x80\x01\x00" + bytes([part]) for part in version)

    assert serialized(major, *rest) in plan[:256]
    return plan.replace(serialized(major, *rest), serialized(major + 1, *rest), 1)


def replace_entries(cache: PlanCache, kind: str, damage: Callable[[bytes], bytes]) -> int:
    """Replaces what the cache holds by something that its checksums know nothing of."""
    entries = [entry for entry in cache.entries() if entry.key.get("kind") == kind]
    for entry in entries:
        data = cache.get(entry.key)
        assert data is not None
        assert cache.put(entry.key, damage(data))
    return len(entries)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "damage",
    [
        lambda plan: plan[: len(plan) // 2],
        lambda plan: bytes(len(plan)),
        lambda plan: b"not a plan at all",
        of_another_family,
        of_another_version,
    ],
    ids=["half", "zeros", "text", "another family", "another version"],
)
def test_a_plan_that_is_refused_is_built_again(plan_cache, caplog, damage):
    x = RNG.random((3, 256), np.float32)
    open_matmul().close()
    assert replace_entries(plan_cache, "plan", damage) == 4
    with open_matmul() as session:
        assert session.backend == "tensorrt"
        check_matmul(list(session.infer(x)["y"]), x)
    assert caplog.text.count("is built again") == 4
    caplog.clear()
    open_matmul().close()
    assert "is built again" not in caplog.text


@pytest.mark.gpu
def test_a_plan_whose_file_is_damaged_is_built_again(plan_cache, caplog):
    x = RNG.random((3, 256), np.float32)
    open_matmul().close()
    for entry in plan_cache.entries():
        data = bytearray(entry.path.read_bytes())
        data[-1] ^= 1
        entry.path.write_bytes(data)
    with open_matmul() as session:
        check_matmul(list(session.infer(x)["y"]), x)
    assert "checksum is wrong" in caplog.text


@pytest.mark.gpu
def test_damaged_kernels_are_compiled_again(plan_cache):
    x = RNG.random((3, 256), np.float32)
    open_matmul().close()
    if replace_entries(plan_cache, "runtime cache", lambda kernels: b"junk" * 100) == 0:
        pytest.skip("only TensorRT for RTX keeps kernels")
    with open_matmul() as session:
        check_matmul(list(session.infer(x)["y"]), x)


# --- Memory


def no_room_at_open() -> None:
    gpu, x = Gpu(), RNG.random((3, 256), np.float32)
    open_matmul().close()
    pieces = gpu.fill()
    with pytest.raises(BackendError, match="memory"):
        open_matmul()
    gpu.free(*pieces)
    with open_matmul() as session:
        check_matmul(list(session.infer(x)["y"]), x)


def no_room_in_use() -> None:
    gpu = Gpu()
    with open_images() as session:
        check_means(session, SMALL_IMAGE)
        assert session.backend == "tensorrt"
        gpu.fill()
        check_means(session, LARGE_IMAGE)
        assert session.backend == "onnxruntime"
        assert session.stats()["backend"] == "onnxruntime"
        assert session.stats()["failed"] == 0


def no_room_in_use_and_no_fallback() -> None:
    gpu = Gpu()
    with open_images(falls_back=False) as session:
        check_means(session, SMALL_IMAGE)
        pieces = gpu.fill()
        with pytest.raises(BackendError, match="out of memory"):
            session.infer(LARGE_IMAGE)
        gpu.free(*pieces)
        check_means(session, LARGE_IMAGE)
        check_means(session, SMALL_IMAGE)
        assert session.stats()["failed"] == 1


@pytest.mark.gpu
def test_a_full_gpu_is_an_error_at_open_that_passes():
    assert "built again" not in apart(no_room_at_open).stderr


@pytest.mark.gpu
def test_a_gpu_that_is_full_in_use_hands_over_to_the_cpu():
    assert "go on on the CPU" in apart(no_room_in_use).stderr


@pytest.mark.gpu
def test_a_gpu_that_is_full_in_use_fails_one_request_without_fallback():
    apart(no_room_in_use_and_no_fallback)


# --- A kernel that traps


def queue_behind_a_held_gpu(
    session: trtinfer.Session, rows: np.ndarray
) -> tuple[list[InferenceFuture], Counter[int]]:
    """Submits every row; the counter tells how often each was answered."""
    answered: Counter[int] = Counter()
    futures = []
    for i, row in enumerate(rows):
        future = session.submit(row)
        future.add_done_callback(lambda _, i=i: answered.update([i]))
        futures.append(future)
    time.sleep(0.1)
    stats = session.stats()
    assert stats["batches_in_flight"] > 0
    assert stats["queue_length"] >= QUEUED - 2 * 8
    assert not answered
    return futures, answered


def trap() -> None:
    rows = RNG.random((QUEUED, 256), np.float32)
    with open_matmul() as session:
        check_matmul([session.infer(rows[0])["y"]], rows[:1])
        release = Gpu().hold()
        futures, answered = queue_behind_a_held_gpu(session, rows)
        release()
        check_matmul([future.result(60)["y"] for future in futures], rows)
        check_matmul([session.infer(rows[0])["y"]], rows[:1])
        stats = session.stats()
        assert session.backend == stats["backend"] == "onnxruntime"
        assert (stats["completed"], stats["failed"]) == (QUEUED + 2, 0)
    assert answered == Counter(range(QUEUED))


def trap_without_fallback() -> None:
    rows = RNG.random((QUEUED, 256), np.float32)
    with open_matmul(falls_back=False) as session:
        session.infer(rows[0])
        release = Gpu().hold()
        futures, answered = queue_behind_a_held_gpu(session, rows)
        release()
        for future in futures:
            assert isinstance(future.exception(60), BackendError)
        assert session.backend == "tensorrt"
        assert session.stats()["failed"] == QUEUED
    assert answered == Counter(range(QUEUED))


def trap_with_half_precision_inputs() -> None:
    rows = RNG.random((QUEUED, 256), np.float32).astype(np.float16)
    build = BuildOptions("fp16", keep_io_types=False)
    with trtinfer.Session(
        models.matmul_model(), backend="tensorrt", tensorrt=TensorRtOptions(build), max_batch_size=8
    ) as session:
        assert session.inputs[0].dtype == np.float16
        release = Gpu().hold()
        futures, _ = queue_behind_a_held_gpu(session, rows)
        release()
        answers = np.stack([future.result(60)["y"] for future in futures])
        assert (answers.dtype, session.backend) == (np.float16, "onnxruntime")
    expected = rows.astype(np.float32) @ models.WEIGHTS
    assert np.abs(answers - expected).max() <= 1e-2 * np.ptp(expected)


def trap_beside_an_engine() -> None:
    engine, kernels = open_engine(models.matmul_model())
    replay = _core.EngineReplay(engine, [np.zeros((1, 256), np.float32)], cache=kernels)
    gpu = Gpu()
    gpu.hold()()
    with pytest.raises(AssertionError, match="cuStreamSynchronize"):
        gpu.synchronize()
    for use in (lambda: replay.time_alone(1), open_matmul):
        with pytest.raises(BackendError):
            use()


@pytest.mark.gpu
def test_all_that_was_queued_when_a_kernel_trapped_is_answered_once():
    log = apart(trap).stderr
    assert log.count("the GPU failed, requests go on on the CPU") == 1


@pytest.mark.gpu
def test_the_cpu_takes_over_inputs_of_half_precision():
    apart(trap_with_half_precision_inputs)


@pytest.mark.gpu
def test_all_that_was_queued_when_a_kernel_trapped_fails_without_fallback():
    apart(trap_without_fallback)


@pytest.mark.gpu
def test_a_gpu_whose_kernel_trapped_is_an_error_and_no_crash():
    apart(trap_beside_an_engine)


# --- Opening and closing


def used_memory() -> dict[str, int]:
    """Bytes of this process and of the GPU that are not free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"host": pages * os.sysconf("SC_PAGE_SIZE"), "device": -_core.gpu_memory()[0]}


def open_and_close_often() -> None:
    model, x = models.matmul_model(), np.zeros(256, np.float32)

    def cycle(count: int) -> None:
        for _ in range(count):
            with open_session(model, max_batch_size=1, max_inflight=2, capacity=16) as session:
                session.infer(x)

    cycle(WARM_UP)
    before = used_memory()
    cycle(CYCLES)
    grown = {memory: used - before[memory] for memory, used in used_memory().items()}
    assert max(grown.values()) <= MOST_GROWTH, grown


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_sessions_leave_no_memory_behind():
    apart(open_and_close_often)


if __name__ == "__main__":
    main(globals())
