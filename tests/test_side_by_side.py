"""Engines that run at the same time on a GPU leave each other's answers alone.

TensorRT for RTX 1.6.1 starts kernels before those before them are over; beside other work, 1
answer of ResNet-50 in 100 was wrong (docs/design.md, "TensorRT in a lane").
"""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import trtinfer
from trtinfer import BuildOptions, TensorRtOptions

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import resnet50

pytestmark = pytest.mark.gpu

Array = NDArray[np.float16]
SHAPE = (3, resnet50.SIDE, resnet50.SIDE)
TIMES = 500  # a caller asks


def opened(model: bytes | None = None, **more: object) -> trtinfer.Session:
    arguments = {"max_batch_size": 1, **more}
    return trtinfer.Session(model or resnet50.build(), backend="tensorrt", **arguments)


def draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16)


def ask(session: trtinfer.Session, x: Array) -> Array:
    return session.infer(x)[resnet50.OUTPUT]


def count_wrong(session: trtinfer.Session, x: Array, right: list[Array]) -> int:
    answers = (ask(session, x) for _ in range(TIMES))
    return sum(not any(np.array_equal(answer, one) for one in right) for answer in answers)


@contextmanager
def busy(session: trtinfer.Session, x: Array) -> Iterator[None]:
    """Two callers keep it so."""
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            ask(session, x)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(call) for _ in range(2)]
        yield
        over.set()
        for done in calls:
            done.result()


@pytest.mark.parametrize("lanes", [2, 4])
def test_lanes(lanes: int) -> None:
    xs = list(draw(1, 4, *SHAPE))
    with opened(max_inflight=lanes) as session:
        alone = [[ask(session, x)] for x in xs]
        with concurrent.futures.ThreadPoolExecutor(2 * lanes) as threads:
            wrong = threads.map(count_wrong, [session] * 2 * len(xs), xs * 2, alone * 2)
            assert sum(wrong) == 0


@pytest.mark.parametrize("rows", [8, 64])  # 64 keep the GPU busy alone, so that they take turns
def test_large_batches(rows: int) -> None:
    xs = draw(2, rows, *SHAPE)
    with opened(max_batch_size=rows, tensorrt=TensorRtOptions(buckets=[rows])) as session:
        alone = ask(session, xs)
        futures = [session.submit(xs) for _ in range(8)]
        for _ in range(TIMES):
            np.testing.assert_array_equal(futures.pop(0).result()[resnet50.OUTPUT], alone)
            futures.append(session.submit(xs))
        for future in futures:
            future.result()


def test_batches_that_take_turns_wait_for_no_tensor_that_others_write() -> None:
    torch = pytest.importorskip("torch")
    xs = draw(7, 2, 64, *SHAPE)
    with opened(max_batch_size=64, tensorrt=TensorRtOptions(buckets=[64])) as session:
        alone = [ask(session, x) for x in xs]
        ready = torch.from_numpy(xs[0]).cuda()
        torch.cuda.synchronize()

        def passes() -> bool:
            with torch.cuda.stream(torch.cuda.Stream()):
                torch.cuda._sleep(4_000_000_000)  # cycles: about 2 s
                late = session.submit(ready.clone())
            begin = time.monotonic()
            np.testing.assert_array_equal(ask(session, xs[1]), alone[1])
            took = time.monotonic() - begin
            np.testing.assert_array_equal(late.result(30)[resnet50.OUTPUT], alone[0])
            return took < 1

        # Streams may share a queue of the GPU: then they wait for each other unasked.
        assert any(passes() for _ in range(8))


def test_one_lane_beside_another_session() -> None:
    xs = list(draw(3, 2, *SHAPE))
    with opened(max_inflight=1) as session, opened() as other:
        alone = [ask(session, xs[0])]
        with busy(other, xs[1]):
            assert sum(count_wrong(session, xs[0], alone) for _ in range(4)) == 0


def test_rows_that_vary_beside_another_session() -> None:
    model = onnx.load_from_string(resnet50.build())
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    sides = (160, resnet50.SIDE, 288)
    build = BuildOptions(dimensions={resnet50.INPUT: {2: sides, 3: sides}})
    varying = TensorRtOptions(build=build)
    xs = [draw(4, 3, *size) for size in ((224, 224), (192, 256), (288, 160))]
    with opened(model.SerializeToString(), max_inflight=1, tensorrt=varying) as session:
        # Better kernels, which may round otherwise, come into use meanwhile.
        right: list[list[Array]] = [[] for _ in xs]
        until = time.monotonic() + 5
        while time.monotonic() < until:
            for x, known in zip(xs, right, strict=True):
                if count_wrong(session, x, known) > 0:
                    known.append(ask(session, x))
        assert max(map(len, right)) <= 3
        with opened() as other, busy(other, draw(5, *SHAPE)):
            for x, known in zip(xs, right, strict=True):
                assert count_wrong(session, x, known) == 0
        assert session.backend == "tensorrt"
