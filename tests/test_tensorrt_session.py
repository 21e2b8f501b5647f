"""Sessions on a GPU: the answers of the CPU, whatever the batch, precision and image size."""

from __future__ import annotations

import concurrent.futures

import models
import numpy as np
import pytest
import reference_resize as reference
from onnx import TensorProto, helper
from photos import photos

import trtinfer
from trtinfer import BuildOptions, TensorRtOptions, _core, default_model
from trtinfer.plan_cache import PlanCache

pytestmark = pytest.mark.gpu


def options(precision: str = "fp32", **more: object) -> TensorRtOptions:
    return TensorRtOptions(build=BuildOptions(precision=precision), **more)


def on_gpu(model: object, precision: str = "fp32", **more: object) -> trtinfer.Session:
    return trtinfer.Session(model, backend="tensorrt", tensorrt=options(precision), **more)


def on_cpu(model: object, **more: object) -> trtinfer.Session:
    return trtinfer.Session(model, backend="onnxruntime", **more)


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [
        reference.random_image(rng, *reference.random_size(rng, 700), "smooth")
        for _ in range(count)
    ]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 2e-2)])
def test_tensors_give_the_answers_of_the_cpu(precision, tolerance):
    x = np.random.default_rng(0).random((37, 3, 224, 224), np.float32)
    with on_cpu(default_model.path()) as cpu:
        expected = cpu.infer(x)["probs"]
    with on_gpu(default_model.path(), precision, max_batch_size=8) as gpu:
        assert gpu.backend == "tensorrt"
        got = gpu.infer(x)["probs"]
        single = gpu.infer(x[5])["probs"]
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.ptp(expected)
    assert np.abs(single - expected[5]).max() <= tolerance * np.ptp(expected)


def test_images_of_any_size_share_batches_and_give_the_answers_of_the_cpu():
    images = pictures(48)
    recipe = default_model.RECIPE
    with on_cpu(default_model.path(), preprocess=recipe) as cpu:
        expected = [cpu.infer(image)["probs"] for image in images]
    with on_gpu(default_model.path(), preprocess=recipe, max_batch_size=16) as gpu:
        futures = [gpu.submit(image) for image in images * 3]
        answers = [future.result(30)["probs"] for future in futures]
        assert gpu.stats()["batches"] < len(futures)
    for answer, right in zip(answers, expected * 3, strict=True):
        assert np.abs(answer - right).max() <= 1e-3 * np.ptp(right)


def test_preprocessing_in_a_session_is_bit_exact():
    recipe = trtinfer.Recipe.named("torchvision")
    images = [*pictures(20), reference.random_image(np.random.default_rng(1), 1080, 1920, "noise")]
    with on_gpu(models.image_identity_model(), preprocess=recipe, max_batch_size=8) as gpu:
        futures = [gpu.submit(image) for image in images]
        for image, future in zip(images, futures, strict=True):
            np.testing.assert_array_equal(future.result(30)["y"], recipe(image))


def test_images_of_the_sizes_of_the_batch_before_are_not_taken_for_it():
    recipe = trtinfer.Recipe.named("torchvision")
    rng = np.random.default_rng(2)
    sizes = [(300, 400), (300, 400), (400, 300), (300, 400), (2000, 3000), (400, 300), (300, 400)]
    with on_gpu(
        models.image_identity_model(), preprocess=recipe, max_batch_size=4, max_inflight=1
    ) as gpu:
        for count in (1, 3, 3, 1):
            for size in sizes:
                images = [reference.random_image(rng, *size, "noise") for _ in range(count)]
                futures = [gpu.submit(image) for image in images]
                for image, future in zip(images, futures, strict=True):
                    np.testing.assert_array_equal(future.result(30)["y"], recipe(image))


def test_photos_keep_their_best_class_in_half_precision():
    with (
        trtinfer.Classifier(backend="onnxruntime") as cpu,
        trtinfer.Classifier(backend="tensorrt", tensorrt=options("fp16")) as gpu,
    ):
        for photo in photos():
            assert gpu(photo, top_k=1)[0][1] == cpu(photo, top_k=1)[0][1]


def test_no_other_process_opens_a_model_meanwhile():
    (address, *_) = (device.pci_address for device in _core.probe_cuda().devices)
    x = np.ones(256, np.float32)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with PlanCache().alone_on(address):
            opening = pool.submit(on_gpu, models.matmul_model(), max_batch_size=2)
            with pytest.raises(concurrent.futures.TimeoutError):
                opening.result(1)
        with opening.result(60) as gpu:
            assert gpu.infer(x)["y"].shape == models.WEIGHTS.shape[1:]


def test_several_inputs_and_outputs_and_many_threads():
    model = models.several_model()
    rng = np.random.default_rng(3)
    with on_cpu(model) as cpu, on_gpu(model, max_batch_size=16) as gpu:
        requests = [
            {"a": rng.random(4, np.float32), "b": rng.integers(-9, 9, 2)} for _ in range(300)
        ]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(gpu.infer, requests))
        for request, answer in zip(requests, answers, strict=True):
            for name, right in cpu.infer(request).items():
                np.testing.assert_allclose(answer[name], right, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("falls_back", [False, True])
def test_slots_filled_anew_while_their_batch_runs_spoil_no_answer(falls_back):
    # Without a fallback a crowded ring gives slots back once they are read.
    rows = np.random.default_rng(3).random((3000, 256), np.float32)
    expected = rows @ models.WEIGHTS
    model, tensorrt = models.matmul_model(), options(falls_back=falls_back)
    with (
        trtinfer.Session(
            model, backend="tensorrt", tensorrt=tensorrt, max_batch_size=2, capacity=4
        ) as gpu,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        answers = pool.map(lambda row: gpu.infer(row, timeout=30)["y"], rows)
        worst = max(np.abs(y - right).max() for y, right in zip(answers, expected, strict=True))
    assert worst <= 1e-3 * np.ptp(expected)


@pytest.mark.parametrize("length", [1, 3, 16, 25])
def test_rows_of_any_number_of_bytes_come_out_of_scattered_slots(length):
    node = helper.make_node("Identity", ["x"], ["y"])
    x, y = (models.tensor(name, ["n", length], TensorProto.FLOAT16) for name in "xy")
    model = models.build([node], [x], [y])
    rows = np.random.default_rng(length).random((24, length)).astype(np.float16)
    with on_gpu(model, max_batch_size=8, capacity=64) as gpu:
        for _ in range(3):
            claims = [gpu.claim() for _ in range(48)]
            for claim in claims[::2]:
                claim.release()
            futures = []
            for row, claim in zip(rows, claims[1::2], strict=True):
                claim.inputs["x"][:] = row
                futures.append(claim.publish())
            answers = [future.result(30)["y"] for future in futures]
            np.testing.assert_array_equal(answers, rows)


@pytest.mark.parametrize(("length", "least"), [(1 << 10, 0), (1 << 21, 80e-6)])
def test_stats_tell_transfers_from_compute(length, least):
    # Kernels move the short rows, copy engines the long ones: 8 MB at less than 100 GB/s.
    node = helper.make_node("Relu", ["x"], ["y"])
    x, y = (models.tensor(name, ["n", length]) for name in "xy")
    row = np.ones(length, np.float32)
    with on_gpu(models.build([node], [x], [y]), max_batch_size=1, capacity=4) as gpu:
        for _ in range(20):
            gpu.infer(row)
        stats = gpu.stats()
    stages = [stats[stage] for stage in ("queue", "input", "compute", "output")]
    assert sum(stage["mean"] for stage in stages) <= stats["total"]["mean"] * 1.01
    for stage in ("input", "output"):
        assert least < stats[stage]["mean"] < 0.01
        assert stats[f"batch_{stage}"] == {1: pytest.approx(stats[stage]["mean"])}


def test_claimed_slots_are_filled_in_pinned_memory():
    x = np.random.default_rng(0).random((3, 224, 224), np.float32)
    with on_gpu(default_model.path(), max_batch_size=2) as gpu:
        expected = gpu.infer(x)["probs"]
        with gpu.claim() as slot:
            slot.inputs["images"][:] = x
            np.testing.assert_array_equal(slot.publish().result(30)["probs"], expected)


def test_sessions_close_without_leaving_device_memory_behind():
    def cycle() -> None:
        with on_gpu(models.matmul_model(), max_batch_size=4, capacity=16) as gpu:
            gpu.infer(np.zeros(256, np.float32))

    cycle()
    before = _core.gpu_memory()[0]
    for _ in range(5):
        cycle()
    assert before - _core.gpu_memory()[0] < 8 << 20
