"""A kernel reads small batches out of the slots, in words of 16 bytes where they are aligned.

Slots are filled past the caches. Every input differs from the one that was in the slot before, so
that a byte that was read too soon, or not at all, shows; up to 1 MB a kernel reads, copy engines
beyond.
"""

from __future__ import annotations

import concurrent.futures

import models
import numpy as np
import pytest
import reference_resize as reference
from onnx import helper

import trtinfer
from trtinfer import QueueFullError, TensorRtOptions

pytestmark = pytest.mark.gpu

TIMES = 200


def negated(length: int) -> bytes:
    node = helper.make_node("Neg", ["x"], ["y"])
    return models.build(
        [node], [models.tensor("x", ["n", length])], [models.tensor("y", ["n", length])]
    )


def opened(model: bytes, **more: object) -> trtinfer.Session:
    return trtinfer.Session(model, backend="tensorrt", **more)


def test_several_inputs() -> None:
    shapes = {"a": 40_000, "b": 3, "c": 16_387}
    nodes = [helper.make_node("Neg", [name], [f"-{name}"]) for name in shapes]
    inputs = [models.tensor(name, ["n", length]) for name, length in shapes.items()]
    outputs = [models.tensor(f"-{name}", ["n", length]) for name, length in shapes.items()]
    rng = np.random.default_rng(7)
    xs = [
        {name: rng.standard_normal(length, np.float32) for name, length in shapes.items()}
        for _ in range(8)
    ]
    with opened(models.build(nodes, inputs, outputs), max_batch_size=2) as session:
        for i in range(TIMES):
            answers = session.infer(xs[i % len(xs)])
            for name, x in xs[i % len(xs)].items():
                np.testing.assert_array_equal(answers[f"-{name}"], -x)


@pytest.mark.parametrize("length", [16380, 16384, 16385, 50_003, 75_264, 262_144, 262_148])
def test_tensors(length: int) -> None:
    rng = np.random.default_rng(length)
    xs = rng.standard_normal((8, length), np.float32)
    with opened(negated(length), max_batch_size=2) as session:
        for i in range(TIMES):
            x = xs[i % len(xs)]
            np.testing.assert_array_equal(session.infer(x)["y"], -x)


@pytest.mark.parametrize("rows", [2, 3])
def test_batches(rows: int) -> None:
    xs = np.random.default_rng(rows).standard_normal((8, rows, 40_000), np.float32)
    with opened(negated(40_000), max_batch_size=4) as session:
        for i in range(TIMES):
            x = xs[i % len(xs)]
            np.testing.assert_array_equal(session.infer(x)["y"], -x)


@pytest.mark.parametrize("size", [(224, 224), (256, 256), (301, 203), (179, 640), (500, 375)])
def test_images(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[0])
    recipe = trtinfer.Recipe.named("torchvision")
    images = [reference.random_image(rng, *size, "noise") for _ in range(8)]
    right = [recipe(image) for image in images]
    with opened(models.image_identity_model(), preprocess=recipe, max_batch_size=2) as session:
        for i in range(TIMES):
            answer = session.infer(images[i % len(images)])["y"]
            np.testing.assert_array_equal(answer, right[i % len(images)])


def test_beside_others() -> None:
    xs = np.random.default_rng(3).standard_normal((6, 75_264), np.float32)

    def call(i: int) -> None:
        for _ in range(TIMES):
            answers = session.submit(xs[i]).result(30) if i % 2 else session.infer(xs[i])
            np.testing.assert_array_equal(answers["y"], -xs[i])

    with (
        opened(negated(75_264), max_batch_size=4) as session,
        concurrent.futures.ThreadPoolExecutor(len(xs)) as threads,
    ):
        for done in [threads.submit(call, i) for i in range(len(xs))]:
            done.result(60)


def test_with_a_target() -> None:
    x = np.random.default_rng(4).standard_normal(75_264, np.float32)
    with opened(negated(75_264), max_batch_size=4, latency_slo=0.05) as session:
        answered = 0
        for _ in range(TIMES):
            try:
                np.testing.assert_array_equal(session.infer(x)["y"], -x)
                answered += 1
            except QueueFullError:
                pass
        assert answered > TIMES / 2


def test_with_outputs_that_stay_on_the_gpu() -> None:
    xs = np.random.default_rng(5).standard_normal((4, 75_264), np.float32)
    with opened(negated(75_264), tensorrt=TensorRtOptions(outputs_on_gpu=True)) as session:
        for i in range(TIMES):
            x = xs[i % len(xs)]
            np.testing.assert_array_equal(session.infer(x)["y"].numpy(), -x)
