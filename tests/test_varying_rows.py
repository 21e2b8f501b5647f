"""Rows that vary in shape on a GPU, against the CPU; where kernels run at new shapes, apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import models
import numpy as np
import pytest
import rtx
from apart import apart, main
from onnx import helper

import trtinfer
from trtinfer import BuildOptions, ModelError, TensorRtOptions, _core
from trtinfer.build_options import Dimensions

IMAGE_SIZES: Dimensions = {"x": {2: (8, 32, 64), 3: (8, 32, 64)}}

PLANS = pytest.mark.parametrize("plans", ["static", "dynamic"])  # in the number of rows


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path / "cache"))


def pooled_model() -> bytes:
    """Images of any size: their 2 x 2 maxima, and the mean of each channel."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
    ]
    outputs = [models.tensor("pooled", ["n", 3, "h", "w"]), models.tensor("means", ["n", 3])]
    x = models.tensor("x", ["n", 3, "height", "width"])
    return models.build(nodes, [x], outputs, axes=np.array([2, 3]))


@contextmanager
def opened(plans: str) -> Iterator[tuple[trtinfer.Session, trtinfer.Session]]:
    """The model on the CPU and on the GPU, where it has to stay."""
    build = BuildOptions(dimensions=IMAGE_SIZES, dynamic_batch=plans == "dynamic")
    options = TensorRtOptions(build=build)
    with (
        trtinfer.Session(pooled_model(), backend="onnxruntime", batched=True) as cpu,
        trtinfer.Session(pooled_model(), batched=True, max_batch_size=8, tensorrt=options) as gpu,
    ):
        yield cpu, gpu
        assert gpu.backend == "tensorrt"


def rows_of_many_shapes(plans: str) -> None:
    rng = np.random.default_rng(5)
    sizes = [rng.choice([8, 9, 24, 32, 63, 64], 2) for _ in range(60)]
    images = [rng.random((3, *size), np.float32) for size in sizes]
    with opened(plans) as (cpu, gpu):
        right = [cpu.infer(image) for image in images]
        for _ in range(3):  # the same shapes again, of which it keeps some graphs
            futures = [gpu.submit(image) for image in images]
            for expected, future in zip(right, futures, strict=True):
                answer = future.result(60)
                np.testing.assert_array_equal(answer["pooled"], expected["pooled"])
                np.testing.assert_allclose(answer["means"], expected["means"], rtol=1e-4)


def rows_of_one_shape(plans: str) -> None:
    images = np.random.default_rng(6).random((21, 3, 16, 24), np.float32)
    with opened(plans) as (cpu, gpu):
        np.testing.assert_array_equal(gpu.infer(images)["pooled"], cpu.infer(images)["pooled"])
        assert max(gpu.stats()["batch_sizes"]) == 8


def caller_that_is_new_to_the_gpu(plans: str) -> None:
    """Its thread runs the batch itself, and has never called CUDA."""
    image, answers = np.random.default_rng(7).random((3, 40, 9), np.float32), []
    with opened(plans) as (cpu, gpu):
        caller = threading.Thread(target=lambda: answers.append(gpu.infer(image)["pooled"]))
        caller.start()
        caller.join()
        np.testing.assert_array_equal(answers[0], cpu.infer(image)["pooled"])


def shapes_out_of_range(plans: str) -> None:
    with opened(plans) as (_, gpu):
        for shape in ((3, 7, 32), (3, 32, 65)):
            with pytest.raises(trtinfer.InputError, match=r"range of its plan, \(3, 8, 8\)"):
                gpu.infer(np.zeros(shape, np.float32))
            with pytest.raises(trtinfer.InputError, match="out of the range"):
                gpu.claim(shape=shape)
        assert gpu.infer(np.zeros((3, 8, 64), np.float32))["pooled"].shape == (3, 4, 32)
        assert gpu.stats()["invalid"] >= 2


def plan_as_a_model() -> None:
    builder = _core.TensorRtBuilder(rtx.library())
    builder.parse(models.varying_model())
    shapes = {"x": _core.TensorRtShapeRange([1, 1], [4, 64], [4, 128])}
    with trtinfer.Session(builder.build(shapes)[0]) as session:
        assert [str(info) for info in session.inputs] == ["x: float32[?, ?]"]
        for shape in ((1, 1), (3, 128), (9, 50)):
            x = np.random.default_rng(7).random(shape, np.float32)
            np.testing.assert_array_equal(session.infer(x)["y"], x + x)


@pytest.mark.gpu
@PLANS
def test_rows_of_many_shapes_give_the_answers_of_the_cpu(plans: str) -> None:
    apart(rows_of_many_shapes, plans)


@pytest.mark.gpu
@PLANS
def test_many_rows_of_one_shape_share_batches(plans: str) -> None:
    apart(rows_of_one_shape, plans)


@pytest.mark.gpu
@PLANS
def test_any_thread_may_bring_a_new_shape(plans: str) -> None:
    apart(caller_that_is_new_to_the_gpu, plans)


@pytest.mark.gpu
@PLANS
def test_shape_out_of_the_plans_range_is_refused_alone(plans: str) -> None:
    apart(shapes_out_of_range, plans)


@pytest.mark.gpu
def test_plan_of_varying_rows_is_a_model() -> None:
    apart(plan_as_a_model)


@pytest.mark.gpu
def test_output_whose_shape_depends_on_values_is_refused() -> None:
    build = BuildOptions(dimensions={"x": {0: (1, 8, 8)}})
    with pytest.raises(ModelError, match=r"NonZero|places.*depends on the inputs' values"):
        trtinfer.Session(
            models.nonzero_model(), backend="tensorrt", tensorrt=TensorRtOptions(build=build)
        )


if __name__ == "__main__":
    main(globals())
