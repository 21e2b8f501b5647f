"""Engines and execution contexts on a GPU, driven through the driver's own interface."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import models
import numpy as np
import onnxruntime
import pytest
from gpu import Gpu
from onnx import TensorProto

from trtinfer import _core, default_model, precision, tensorrt_library
from trtinfer.errors import BackendError, ModelError

# About the range of the outputs of matmul_model. TensorRT for RTX 1.6.1 multiplies fp32 numbers on
# Hopper with errors of TF32's size, although the plan is built without it.
RANGE = 60

# Folders of lean runtimes (tensorrt-lean-cu13-libs): TensorRT 10 and 11 without a builder.
LEAN = [folder for folder in os.environ.get("TRTINFER_LEAN_RUNTIMES", "").split(":") if folder]


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    return Gpu()


@pytest.fixture(scope="module")
def library() -> _core.TensorRtLibrary:
    found = tensorrt_library.find()
    if not found.can_build:
        pytest.skip(found.build_reason)
    return found


def shapes(batch: int, *sample: int, most: int | None = None) -> _core.TensorRtShapeRange:
    return _core.TensorRtShapeRange([batch, *sample], [batch, *sample], [most or batch, *sample])


def build(
    library: _core.TensorRtLibrary, model: bytes, **ranges: _core.TensorRtShapeRange
) -> bytes:
    builder = _core.TensorRtBuilder(library)
    builder.parse(model)
    return builder.build(ranges)[0]


@pytest.fixture(scope="module")
def plan(library: _core.TensorRtLibrary) -> bytes:
    return build(library, models.matmul_model(), x=shapes(4, 256))


def run(
    gpu: Gpu,
    context: _core.TensorRtExecutionContext,
    x: np.ndarray,
    rows: int,
    columns: int,
    names: tuple[str, str] = ("x", "y"),
) -> np.ndarray:
    output = gpu.allocate(rows * columns * 4)
    context.set_address(names[0], gpu.upload(x))
    context.set_address(names[1], output)
    context.enqueue(gpu.stream)
    gpu.synchronize()
    return gpu.download(output, np.empty((rows, columns), np.float32))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape, dtype=np.float32)


@pytest.mark.gpu
def test_engine_describes_its_tensors(gpu, library, plan):
    engine = _core.TensorRtEngine(library, plan)
    assert [
        (t.name, t.is_input, t.is_on_host, t.element_type, t.shape) for t in engine.tensors
    ] == [
        ("x", True, False, TensorProto.FLOAT, [4, 256]),
        ("y", False, False, TensorProto.FLOAT, [4, 16]),
    ]
    assert engine.profile_count == 1
    assert engine.profile_shapes("x").max == [4, 256]
    assert 0 <= engine.device_memory_size < 1 << 30


@pytest.mark.gpu
@pytest.mark.parametrize(("input", "profile"), [("y", 0), ("absent", 0), ("x", 1), ("x", -1)])
def test_unknown_profile_is_an_error(gpu, library, plan, input, profile):
    with pytest.raises(ModelError):
        _core.TensorRtEngine(library, plan).profile_shapes(input, profile)


@pytest.mark.gpu
def test_computes_what_the_model_says(gpu, library, plan):
    context = _core.TensorRtExecutionContext(_core.TensorRtEngine(library, plan))
    x = random(4, 256)
    assert context.tensor_shape("y") == [4, 16]
    np.testing.assert_allclose(run(gpu, context, x, 4, 16), x @ models.WEIGHTS, atol=1e-3 * RANGE)


@pytest.mark.gpu
def test_one_plan_serves_a_range_of_batches(gpu, library):
    plan = build(library, models.matmul_model(), x=shapes(1, 256, most=8))
    engine = _core.TensorRtEngine(library, plan)
    assert engine.tensors[0].shape == [-1, 256]
    context = _core.TensorRtExecutionContext(engine)
    for rows in (1, 8, 3):
        x = random(rows, 256)
        context.set_input_shape("x", [rows, 256])
        assert context.tensor_shape("y") == [rows, 16]
        got = run(gpu, context, x, rows, 16)
        np.testing.assert_allclose(got, x @ models.WEIGHTS, atol=1e-3 * RANGE)
    with pytest.raises(BackendError, match=r"cannot have the shape \(9, 256\)"):
        context.set_input_shape("x", [9, 256])


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 1e-3), ("fp16", 0.02), ("bf16", 0.1)])
def test_default_model_answers_like_the_cpu(gpu, library, name, tolerance):
    model = precision.convert(default_model.path(), name)
    plan = build(library, model, images=shapes(2, 3, 224, 224))
    context = _core.TensorRtExecutionContext(_core.TensorRtEngine(library, plan))
    x = random(2, 3, 224, 224)
    reference = onnxruntime.InferenceSession(
        default_model.path(), providers=["CPUExecutionProvider"]
    ).run(None, {"images": x})[0]
    answer = run(gpu, context, x, 2, 1000, ("images", "probs"))
    assert np.abs(answer - reference).max() <= tolerance * reference.max()


@pytest.mark.gpu
def test_two_contexts_of_an_engine_agree(gpu, library, plan):
    engine = _core.TensorRtEngine(library, plan)
    x = random(4, 256)
    first, second = (_core.TensorRtExecutionContext(engine) for _ in range(2))
    np.testing.assert_array_equal(run(gpu, first, x, 4, 16), run(gpu, second, x, 4, 16))


@pytest.mark.gpu
def test_context_outlives_the_names_of_what_it_needs(gpu, library, plan):
    context = _core.TensorRtExecutionContext(_core.TensorRtEngine(library, plan))
    x = random(4, 256)
    expected = x @ models.WEIGHTS
    np.testing.assert_allclose(run(gpu, context, x, 4, 16), expected, atol=1e-3 * RANGE)


@pytest.mark.gpu
def test_runtime_cache_is_kept_and_taken_again(gpu, library, plan):
    if not library.is_rtx:
        with pytest.raises(BackendError, match="only TensorRT-RTX"):
            _core.TensorRtRuntimeCache(_core.TensorRtEngine(library, plan))
        return
    engine = _core.TensorRtEngine(library, plan)
    cache = _core.TensorRtRuntimeCache(engine)
    context = _core.TensorRtExecutionContext(engine, cache)
    x = random(4, 256)
    expected = run(gpu, context, x, 4, 16)
    kernels = cache.serialize()
    assert len(kernels) > 0
    again = _core.TensorRtRuntimeCache(engine)
    assert not again.deserialize(b"junk" * 100)
    assert again.deserialize(kernels)
    warm = _core.TensorRtExecutionContext(engine, again)
    np.testing.assert_array_equal(run(gpu, warm, x, 4, 16), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_nvidias_own_bindings_give_the_same_bits(gpu, library, name):
    if not library.is_rtx:
        pytest.skip(f"the bindings at hand are those of TensorRT for RTX, not {library.version}")
    bindings = pytest.importorskip("tensorrt_rtx_bindings")
    model = precision.convert(default_model.path(), name)
    plan = build(library, model, images=shapes(4, 3, 224, 224))
    images = np.random.default_rng(6).random((4, 3, 224, 224), np.float32)
    context = _core.TensorRtExecutionContext(_core.TensorRtEngine(library, plan))
    ours = run(gpu, context, images, 4, 1000, ("images", "probs"))

    runtime = bindings.Runtime(bindings.Logger(bindings.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(plan)
    theirs = engine.create_execution_context()
    output = gpu.allocate(ours.nbytes)
    theirs.set_tensor_address("images", gpu.upload(images))
    theirs.set_tensor_address("probs", output)
    assert theirs.execute_async_v3(gpu.stream)
    gpu.synchronize()
    assert gpu.download(output, np.empty_like(ours)).tobytes() == ours.tobytes()
    np.testing.assert_allclose(ours.sum(axis=1), 1, atol=1e-3)


@pytest.mark.gpu
def test_wrong_use_of_a_context_is_an_error(gpu, library, plan):
    context = _core.TensorRtExecutionContext(_core.TensorRtEngine(library, plan))
    with pytest.raises(BackendError, match="absent"):
        context.set_address("absent", 4096)
    with pytest.raises(BackendError, match="profile 7"):
        context.set_profile(7, gpu.stream)
    with pytest.raises(BackendError, match="cannot be enqueued"):
        context.enqueue(gpu.stream)  # no addresses are set


def damaged(plan: bytes) -> Iterator[bytes]:
    yield b""
    yield b"not a plan at all"
    yield plan[: len(plan) // 2]
    yield b"\0" * len(plan)


@pytest.mark.gpu
def test_damaged_plans_are_errors(gpu, library, plan):
    for data in damaged(plan):
        with pytest.raises(ModelError):
            _core.TensorRtEngine(library, data)
    assert _core.TensorRtEngine(library, plan).tensors


def lean(folder: str) -> tensorrt_library.Candidate:
    return tensorrt_library.candidates(folder)[0]


@pytest.mark.skipif(bool(_core.tensorrt_driver_reason()), reason="needs a GPU")
@pytest.mark.parametrize("folder", LEAN)
def test_lean_runtimes_pass_the_handshake(folder):
    library = tensorrt_library.find(folder)
    assert not library.is_rtx
    assert not library.can_build
    assert "lean" in library.build_reason
    with pytest.raises(ModelError):
        _core.TensorRtEngine(library, b"not a plan at all")


@pytest.mark.skipif(bool(_core.tensorrt_driver_reason()), reason="needs a GPU")
@pytest.mark.parametrize("folder", LEAN)
@pytest.mark.parametrize("family", ["TENSORRT_10", "TENSORRT_11", "RTX_1"])
def test_wrong_table_for_a_lean_runtime_is_an_error(folder, family):
    """In a process of its own, so that a crash would fail this test only."""
    library = lean(folder).library
    program = (
        "import sys\n"
        "from trtinfer import _core, errors\n"
        "try:\n"
        "    found = _core.TensorRtLibrary.load(sys.argv[1], '', _core.TensorRtFamily.FAMILY)\n"
        "    print('loaded', found.version)\n"
        "except errors.BackendError as error:\n"
        "    print('refused', error)\n"
    ).replace("FAMILY", family)
    run = subprocess.run(
        [sys.executable, "-c", program, library],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr
    right = f"TENSORRT_{Path(library).name.rpartition('.')[2]}" == family
    assert run.stdout.startswith("loaded" if right else "refused"), run.stdout
