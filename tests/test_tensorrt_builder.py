"""Plans out of ONNX models, on a machine that needs no GPU: TensorRT-RTX builds on the CPU."""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Mapping
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
import rtx
import yolov8
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

from trtinfer import _core, default_model, precision, tensorrt_library
from trtinfer.errors import BackendError, ModelError


@pytest.fixture(scope="module")
def library() -> _core.TensorRtLibrary:
    package = importlib.util.find_spec("tensorrt_rtx_libs")
    if package is None or package.origin is None:
        pytest.skip('needs the extra "tensorrt-rtx"')
    return tensorrt_library.find(Path(package.origin).parent)


def fixed(*shape: int) -> _core.TensorRtShapeRange:
    return _core.TensorRtShapeRange(shape, shape, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[int | str]]],
    outputs: Mapping[str, tuple[int, list[int | str]]],
    **weights: np.ndarray,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *facts) for name, facts in inputs.items()],
        [helper.make_tensor_value_info(name, *facts) for name, facts in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", 19)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def matmul() -> onnx.ModelProto:
    weights = np.random.default_rng(1).standard_normal((64, 16), dtype=np.float32)
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n", 64])},
        {"y": (TensorProto.FLOAT, ["n", 16])},
        w=weights,
    )


def parsed(library: _core.TensorRtLibrary, model: onnx.ModelProto) -> _core.TensorRtBuilder:
    builder = _core.TensorRtBuilder(library)
    builder.parse(model.SerializeToString())
    return builder


def test_reads_inputs_and_outputs(library):
    builder = parsed(library, matmul())
    assert [(t.name, t.is_input, t.element_type, t.shape) for t in builder.tensors] == [
        ("x", True, TensorProto.FLOAT, [-1, 64]),
        ("y", False, TensorProto.FLOAT, [-1, 16]),
    ]
    assert builder.layer_count > 0


@pytest.mark.parametrize("element_type", rtx.TYPES, ids=TensorProto.DataType.Name)
def test_every_element_type_is_kept(library, element_type):
    builder = _core.TensorRtBuilder(library)
    builder.parse(models.twice_model(element_type))
    assert {t.element_type for t in builder.tensors} == {element_type}
    assert len(builder.build({"x": fixed(2, 3)})[0]) > 1000


def test_one_parse_gives_a_plan_per_bucket(library):
    builder = parsed(library, matmul())
    plans = [builder.build({"x": fixed(batch, 64)})[0] for batch in (1, 2, 4)]
    assert len(set(plans)) == 3


def test_other_dimensions_than_the_batch_may_be_open(library):
    model = model_of(
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
        {"x": (TensorProto.FLOAT, ["n", 3, "height", "width"])},
        {"y": (TensorProto.FLOAT, ["n", 3, "h", "w"])},
    )
    builder = parsed(library, model)
    sizes = _core.TensorRtShapeRange([1, 3, 32, 32], [4, 3, 64, 64], [8, 3, 128, 128])
    assert builder.build({"x": sizes})[0]


def test_open_dimension_without_a_range_is_an_error(library):
    with pytest.raises(ModelError, match="input x has open dimensions"):
        parsed(library, matmul()).build({})


@pytest.mark.parametrize(
    "sizes",
    [([4, 64], [2, 64], [8, 64]), ([1, 63], [1, 63], [1, 63]), ([1] * 9, [1] * 9, [1] * 9)],
    ids=["not in order", "not the model's", "too many"],
)
def test_impossible_range_is_an_error(library, sizes):
    with pytest.raises(ModelError):
        parsed(library, matmul()).build({"x": _core.TensorRtShapeRange(*sizes)})


def test_unknown_input_is_an_error(library):
    with pytest.raises(ModelError, match="no input named other"):
        parsed(library, matmul()).build({"x": fixed(1, 64), "other": fixed(1, 64)})


def test_every_refused_node_is_named(library):
    model = model_of(
        [
            helper.make_node("NotAnOperator", ["x"], ["a"], name="first"),
            helper.make_node("Relu", ["x"], ["b"], name="fine"),
            helper.make_node("NorThis", ["b"], ["c"], name="second"),
            helper.make_node("Add", ["a", "c"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, [1, 64])},
        {"y": (TensorProto.FLOAT, [1, 64])},
    )
    with pytest.raises(ModelError) as raised:
        parsed(library, model)
    message = str(raised.value)
    assert "node 0 (NotAnOperator 'first'): " in message
    assert "node 2 (NorThis 'second'): " in message
    assert "fine" not in message
    assert "--- Begin node ---" not in message


@pytest.mark.parametrize("data", [b"", b"not a model"], ids=["empty", "junk"])
def test_what_is_no_model_is_an_error(library, data):
    with pytest.raises(ModelError):
        _core.TensorRtBuilder(library).parse(data)


def test_absent_file_is_an_error(library, tmp_path):
    with pytest.raises(ModelError):
        _core.TensorRtBuilder(library).parse_file(str(tmp_path / "absent.onnx"))


def test_external_weights_are_read(library, tmp_path):
    path = tmp_path / "model.onnx"
    model = matmul()
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size >= 64 * 16 * 4
    from_file = _core.TensorRtBuilder(library)
    from_file.parse_file(str(path))
    from_bytes = _core.TensorRtBuilder(library)
    from_bytes.parse(path.read_bytes(), str(path))
    inside = len(parsed(library, matmul()).build({"x": fixed(1, 64)})[0])
    for builder in (from_file, from_bytes):
        assert abs(len(builder.build({"x": fixed(1, 64)})[0]) - inside) < 1000


def test_missing_external_weights_are_an_error(library, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(matmul(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin"):
        _core.TensorRtBuilder(library).parse_file(str(path))


def test_progress_is_reported_to_the_end(library):
    seen = []
    parsed(library, matmul()).build({"x": fixed(1, 64)}, progress=lambda *facts: seen.append(facts))
    roots = [(step, steps) for _, parent, step, steps in seen if not parent]
    assert roots[0][0] == 0
    assert roots[-1][0] == roots[-1][1] > 0
    assert roots == sorted(roots)
    assert all(step <= steps for _, _, step, steps in seen)


def test_progress_callback_stops_a_build(library):
    calls = []

    def stop(*facts: object) -> bool:
        calls.append(facts)
        return False

    with pytest.raises(ModelError, match="stopped"):
        parsed(library, matmul()).build({"x": fixed(1, 64)}, progress=stop)
    assert len(calls) == 1


def test_error_in_the_progress_callback_reaches_the_caller(library):
    def fail(*facts: object) -> bool:
        raise KeyError("mine")

    builder = parsed(library, matmul())
    with pytest.raises(KeyError, match="mine"):
        builder.build({"x": fixed(1, 64)}, progress=fail)
    assert builder.build({"x": fixed(1, 64)})[0]


def test_builds_for_gpus_that_are_not_there(library):
    builder = parsed(library, matmul())
    for targets in ([89], [80, 86, 120]):
        assert builder.build({"x": fixed(1, 64)}, compute_capabilities=targets)[0]


def test_unsupported_target_is_named(library):
    with pytest.raises(ModelError, match=r"compute capability 9\.0"):
        parsed(library, matmul()).build({"x": fixed(1, 64)}, compute_capabilities=[90])


def test_options_are_taken(library):
    plan, timing_cache = parsed(library, matmul()).build(
        {"x": fixed(1, 64)},
        tf32=True,
        workspace_bytes=1 << 26,
        optimization_level=5,
        max_aux_streams=0,
    )
    budget = re.search(rb"memory_budget = (\d+)", plan)  # of scratch memory and constants
    assert budget is not None
    assert 1 << 26 <= int(budget[1]) < (1 << 26) + (1 << 16)
    again, _ = parsed(library, matmul()).build({"x": fixed(1, 64)}, timing_cache=timing_cache)
    assert again
    junk, _ = parsed(library, matmul()).build({"x": fixed(1, 64)}, timing_cache=b"junk" * 50)
    assert junk


def test_precision_flags_do_not_exist_in_strongly_typed_releases(library):
    with pytest.raises(BackendError, match="convert the ONNX model"):
        _core.TensorRtBuilder(library, _core.TensorRtPrecision.FP16)


def test_builders_work_side_by_side(library):
    plans = {}

    def build(batch: int) -> None:
        plans[batch], _ = parsed(library, matmul()).build({"x": fixed(batch, 64)})

    threads = [threading.Thread(target=build, args=(batch,)) for batch in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(plans) == [1, 2, 3]


def test_python_runs_while_a_plan_is_built(library):
    """The GIL is free: a thread counts on while another builds."""
    counted = 0
    building = threading.Event()
    builder = parsed(library, matmul())

    def build() -> None:
        building.set()
        builder.build({"x": fixed(1, 64)})

    thread = threading.Thread(target=build)
    thread.start()
    building.wait()
    while thread.is_alive():
        counted += 1
    assert counted > 100


@pytest.mark.skipif(not _core.tensorrt_driver_reason(), reason="there is a driver")
def test_opening_a_plan_without_a_gpu_says_so(library):
    plan, _ = parsed(library, matmul()).build({"x": fixed(1, 64)})
    with pytest.raises(BackendError, match="CUDA"):
        _core.TensorRtEngine(library, plan)


@pytest.mark.parametrize("name", precision.PRECISIONS[:3])
def test_default_model_builds_at_every_precision(library, name):
    builder = _core.TensorRtBuilder(library)
    builder.parse(precision.convert(default_model.path(), name))
    plan, _ = builder.build({"images": fixed(8, 3, 224, 224)})
    weights = 4.6e6 * (4 if name == "fp32" else 2)
    assert weights < len(plan) < weights * 1.3
    shapes = {t.name: (t.element_type, t.shape) for t in builder.tensors}
    assert shapes == {
        "images": (TensorProto.FLOAT, [-1, 3, 224, 224]),
        "probs": (TensorProto.FLOAT, [-1, 1000]),
    }


def test_half_precision_inputs_are_kept_where_wanted(library):
    builder = _core.TensorRtBuilder(library)
    builder.parse(precision.convert(default_model.path(), "fp16", keep_io_types=False))
    assert {t.element_type for t in builder.tensors} == {TensorProto.FLOAT16}
    assert builder.build({"images": fixed(1, 3, 224, 224)})[0]


class Calibration(quantization.CalibrationDataReader):
    """Four batches of invented inputs."""

    def __init__(self) -> None:
        rows = np.random.default_rng(2).standard_normal((4, 8, 64), dtype=np.float32)
        self._batches = iter([{"x": batch} for batch in rows])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantized(activations: quantization.QuantType, folder: Path) -> bytes:
    """A model of two matrix products, quantized by onnxruntime with invented inputs."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((2, 64, 64), dtype=np.float32)
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "v"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "w"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, ["n", 64])},
        {"y": (TensorProto.FLOAT, ["n", 64])},
        v=weights[0],
        w=weights[1],
    )
    path = folder / "quantized.onnx"
    quantization.quantize_static(
        *(model, path, Calibration(), quantization.QuantFormat.QDQ),
        activation_type=activations,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"ActivationSymmetric": activations == quantization.QuantType.QInt8},
    )
    return path.read_bytes()


def test_model_quantized_by_onnxruntime_builds(library, tmp_path):
    model = quantized(quantization.QuantType.QInt8, tmp_path)
    builder = _core.TensorRtBuilder(library)
    builder.parse(precision.convert(model, "int8-qdq"))
    assert builder.build({"x": fixed(8, 64)})[0]


def test_quantization_that_is_not_symmetric_is_refused_by_name(library, tmp_path):
    model = quantized(quantization.QuantType.QUInt8, tmp_path)
    with pytest.raises(ModelError, match=r"node \d+ \(QuantizeLinear '.*zero point"):
        _core.TensorRtBuilder(library).parse(model)


def test_quantized_model_builds(library):
    quantized = model_of(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xf"]),
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"]),
            helper.make_node("MatMul", ["xf", "wf"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, ["n", 64])},
        {"y": (TensorProto.FLOAT, ["n", 16])},
        s=np.float32(0.05),
        z=np.int8(0),
        w=np.random.default_rng(1).integers(-127, 127, (64, 16), dtype=np.int8),
    )
    builder = _core.TensorRtBuilder(library)
    builder.parse(precision.convert(quantized.SerializeToString(), "int8-qdq"))
    assert builder.build({"x": fixed(8, 64)})[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of torch and ultralytics
def test_yolov8_builds_as_ultralytics_exports_it(library, tmp_path, monkeypatch):
    path = yolov8.export(tmp_path, monkeypatch)
    sizes = []
    for name in ("fp32", "fp16"):
        builder = _core.TensorRtBuilder(library)
        builder.parse(precision.convert(path, name))
        sizes.append(len(builder.build({"images": fixed(8, 3, 224, 224)})[0]))
    weights = 2.7e6 * 4
    assert weights < sizes[0] < 1.5 * weights
    assert weights / 2 < sizes[1] < 1.5 * weights / 2


@pytest.mark.parametrize("tf32", [True, False])
def test_nvidias_own_bindings_build_the_same_plan(library, tf32):
    """Which shows that no option is lost on the way."""
    bindings = pytest.importorskip("tensorrt_rtx_bindings")
    model = precision.convert(default_model.path(), "fp16")
    logger = bindings.Logger(bindings.Logger.ERROR)
    builder = bindings.Builder(logger)
    network = builder.create_network(0)
    assert bindings.OnnxParser(network, logger).parse(model)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("images", *[(4, 3, 224, 224)] * 3)
    config.add_optimization_profile(profile)
    if not tf32:
        config.clear_flag(bindings.BuilderFlag.TF32)
    ours = _core.TensorRtBuilder(library)
    ours.parse(model)
    plan, _ = ours.build({"images": fixed(4, 3, 224, 224)}, tf32=tf32)
    assert plan == bytes(builder.build_serialized_network(network, config))


LIGHT_MODELS = sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/light_*.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("path", LIGHT_MODELS, ids=lambda p: p.stem)
def test_networks_of_the_onnx_package_build(library, path):
    builder = _core.TensorRtBuilder(library)
    builder.parse_file(str(path))
    assert builder.build({})[0]
