"""Plans as models, and one dynamic plan for all batch sizes: on a GPU, against the CPU."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import onnx
import pytest
import rtx
from onnx import helper

import trtinfer
from trtinfer import BackendError, BuildOptions, ModelError, TensorRtOptions, _core
from trtinfer.cli import main
from trtinfer.plan_cache import PlanCache

Range = tuple[list[int], list[int], list[int]]
TOLERANCE = 1e-3  # of the range of the outputs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanCache:
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path / "cache"))
    return PlanCache()


def plan_of(model: bytes, **ranges: Range) -> bytes:
    """A plan as other tools make them: whatever the profile admits."""
    builder = _core.TensorRtBuilder(rtx.library())
    builder.parse(model)
    shapes = {name: _core.TensorRtShapeRange(*sizes) for name, sizes in ranges.items()}
    return builder.build(shapes)[0]


def fixed(*shape: int) -> Range:
    return (list(shape),) * 3


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 256), dtype=np.float32)


def assert_close(got: np.ndarray, right: np.ndarray) -> None:
    assert got.shape == right.shape
    assert np.abs(got - right).max() <= TOLERANCE * np.ptp(right)


# --- Without a GPU ----------------------------------------------------------------------------

WITHOUT_GPU = pytest.mark.skipif(bool(_core.probe_cuda().devices), reason="there is a GPU")


@WITHOUT_GPU
@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_plan_needs_a_gpu(tmp_path: Path, backend: str) -> None:
    plan = plan_of(models.matmul_model(), x=fixed(4, 256))
    (tmp_path / "model.plan").write_bytes(plan)
    for model in (plan, tmp_path / "model.plan"):
        with pytest.raises(BackendError, match="plan runs on a GPU only: no"):
            trtinfer.Session(model, backend=backend)


def test_plan_does_not_run_on_the_cpu() -> None:
    with pytest.raises(BackendError, match="does not run on ONNX Runtime: give an ONNX model"):
        trtinfer.Session(b"vtrt" + bytes(100), backend="onnxruntime")


# --- Plans as models --------------------------------------------------------------------------


@pytest.mark.gpu
def test_static_plan_is_a_model_with_a_fixed_batch(tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(plan_of(models.matmul_model(), x=fixed(4, 256)))
    with trtinfer.Session(path) as session:
        assert session.backend == "tensorrt"
        assert session.stats()["fallback"] is None
        assert session.metadata == {}
        assert [str(info) for info in session.inputs] == ["x: float32[4, 256]"]
        assert [str(info) for info in session.outputs] == ["y: float32[4, 16]"]
        for x in (rows(1)[0], rows(4), rows(9)):
            assert_close(session.infer(x)["y"], x @ models.WEIGHTS)
        assert max(session.stats()["batch_sizes"]) <= 4


@pytest.mark.gpu
@pytest.mark.parametrize(("smallest", "largest"), [(1, 8), (3, 6)])
def test_dynamic_plan_runs_the_batches_of_its_profile(smallest: int, largest: int) -> None:
    plan = plan_of(models.matmul_model(), x=([smallest, 256], [largest, 256], [largest, 256]))
    with trtinfer.Session(plan, max_batch_size=64) as session:
        assert [str(info) for info in session.inputs] == ["x: float32[?, 256]"]
        for count in (1, 2, 3, 5, 6, 8, 20):
            x = rows(count, count)
            assert_close(session.infer(x)["y"], x @ models.WEIGHTS)
        assert max(session.stats()["batch_sizes"]) == largest
    with trtinfer.Session(plan, max_batch_size=5) as session:
        session.infer(rows(20))
        assert max(session.stats()["batch_sizes"]) == 5


@pytest.mark.gpu
def test_buckets_of_a_plan_are_within_its_profile() -> None:
    plan = plan_of(models.matmul_model(), x=([2, 256], [8, 256], [8, 256]))
    for buckets in ([1], [16]):
        with pytest.raises(ValueError, match="whole numbers from 2 to max_batch_size \\(8\\)"):
            trtinfer.Session(plan, tensorrt=TensorRtOptions(buckets=buckets))


@pytest.mark.gpu
def test_plan_may_have_no_batch_axis() -> None:
    x, factor = np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(3)
    with trtinfer.Session(plan_of(models.whole_model())) as session:
        np.testing.assert_array_equal(session.infer({"x": x, "factor": factor})["y"], 3 * x)
    plan = plan_of(models.matmul_model(), x=fixed(4, 256))
    with trtinfer.Session(plan, batched=False) as session:
        assert_close(session.infer(rows(4))["y"], rows(4) @ models.WEIGHTS)
        with pytest.raises(trtinfer.InputError, match="shape"):
            session.infer(rows(1)[0])
    with pytest.raises(ModelError, match="batched=True, but the first axes do not agree"):
        trtinfer.Session(plan_of(models.whole_model()), batched=True)


@pytest.mark.gpu
def test_recipe_goes_with_a_plan() -> None:
    recipe = trtinfer.Recipe(resize=8, crop=8)
    images = [np.full((20, 30, 3), value, np.uint8) for value in (0, 100, 255)]
    plan = plan_of(models.image_model(), images=([1, 3, 8, 8], [4, 3, 8, 8], [4, 3, 8, 8]))
    with (
        trtinfer.Session(plan, preprocess=recipe) as gpu,
        trtinfer.Session(models.image_model(), preprocess=recipe, backend="onnxruntime") as cpu,
    ):
        for image in images:
            np.testing.assert_allclose(
                gpu.infer(image)["means"], cpu.infer(image)["means"], rtol=1e-5, atol=1e-5
            )
    with pytest.raises(ModelError, match="the recipe makes"):
        trtinfer.Session(plan, preprocess=trtinfer.Recipe(resize=16, crop=16))


@pytest.mark.gpu
def test_kernels_of_a_plan_are_kept(cache: PlanCache) -> None:
    plan = plan_of(models.matmul_model(), x=fixed(4, 256))
    for _ in range(2):
        trtinfer.Session(plan).close()
        assert [entry.key["kind"] for entry in cache.entries()] == ["runtime cache"]


@pytest.mark.gpu
@pytest.mark.parametrize("start", [b"ptrt", b"vtrt"])
def test_what_only_begins_like_a_plan_is_refused(start: bytes) -> None:
    with pytest.raises((ModelError, BackendError), match="TensorRT"):
        trtinfer.Session(start + bytes(1000))


# --- One dynamic plan -------------------------------------------------------------------------


def dynamic(**more: object) -> TensorRtOptions:
    return TensorRtOptions(build=BuildOptions(dynamic_batch=True, **more))


@pytest.mark.gpu
def test_one_dynamic_plan_gives_the_answers_of_the_cpu(cache: PlanCache) -> None:
    model = models.several_model()
    rng = np.random.default_rng(3)
    with (
        trtinfer.Session(model, backend="onnxruntime") as cpu,
        trtinfer.Session(model, max_batch_size=16, tensorrt=dynamic()) as gpu,
    ):
        assert gpu.stats()["fallback"] == "onnxruntime"
        for count in (1, 2, 3, 7, 16, 33):
            request = {
                "a": rng.random((count, 4), np.float32),
                "b": rng.integers(-9, 9, (count, 2)),
            }
            right = cpu.infer(request)
            for name, answer in gpu.infer(request).items():
                np.testing.assert_allclose(answer, right[name], rtol=1e-3, atol=1e-3)
        assert gpu.backend == "tensorrt"
    assert [e.key["smallest"] for e in cache.entries() if e.key["kind"] == "plan"] == [1]


def wide_model() -> bytes:
    """64 MiB of weights: y = x @ w, 4096 numbers to 4096."""
    w = np.full((4096, 4096), 1e-3, np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x, y = (models.tensor(name, ["n", 4096]) for name in "xy")
    return models.build([node], [x], [y], w=w)


def device_bytes(model: bytes, options: TensorRtOptions) -> int:
    """What an open session takes on the GPU."""
    before = _core.gpu_memory()[0]
    with trtinfer.Session(model, max_batch_size=8, max_inflight=1, tensorrt=options) as session:
        session.infer(np.ones(4096, np.float32))
        return before - _core.gpu_memory()[0]


@pytest.mark.gpu
def test_dynamic_plan_holds_the_weights_once() -> None:
    model, weights = wide_model(), 64 << 20
    device_bytes(model, dynamic())  # what the first session of a process loads stays
    one, each = device_bytes(model, dynamic()), device_bytes(model, TensorRtOptions())
    print(f"one dynamic plan: {one >> 20} MiB, a plan for each of 4 buckets: {each >> 20} MiB")
    assert each - one > 2 * weights


@pytest.mark.gpu
@pytest.mark.parametrize("arguments", [[], ["--dynamic-batch"], ["--precision", "fp16"]])
def test_command_builds_what_sessions_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, arguments: list[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.matmul_model())
    assert main(["build", str(path), "--max-batch-size", "4", *arguments]) == 0
    build = BuildOptions(
        precision="fp16" if "fp16" in arguments else "fp32",
        dynamic_batch="--dynamic-batch" in arguments,
    )
    caplog.set_level("INFO", "trtinfer")
    trtinfer.Session(path, max_batch_size=4, tensorrt=TensorRtOptions(build)).close()
    assert "built the plan" not in caplog.text


# --- Types ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("element_type", rtx.TYPES, ids=onnx.TensorProto.DataType.Name)
def test_every_element_type_goes_through_a_session(element_type: int) -> None:
    model = models.twice_model(element_type)
    with (
        trtinfer.Session(model, backend="onnxruntime") as cpu,
        trtinfer.Session(model, backend="tensorrt", max_batch_size=4) as gpu,
    ):
        values = np.random.default_rng(8).integers(0, 2, (7, 3))
        x = values.astype(gpu.inputs[0].dtype)
        answer, right = gpu.infer(x)["y"], cpu.infer(x)["y"]
        assert answer.dtype == right.dtype
        np.testing.assert_array_equal(answer.astype(np.float32), right.astype(np.float32))
