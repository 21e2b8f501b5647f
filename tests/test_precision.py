"""Conversion of ONNX models to 16 bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from models import build, matmul_model, tensor
from onnx import TensorProto, helper, numpy_helper

from trtinfer import default_model
from trtinfer.errors import ModelError
from trtinfer.precision import PRECISIONS, convert


def run(model: bytes, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def weight_types(model: bytes) -> set[int]:
    return {weight.data_type for weight in onnx.load_from_string(model).graph.initializer}


def io_types(model: bytes) -> set[int]:
    graph = onnx.load_from_string(model).graph
    return {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}


def test_fp32_changes_nothing():
    assert convert(matmul_model(), "fp32") == matmul_model()


@pytest.mark.parametrize(
    ("precision", "element_type"),
    [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)],
)
def test_weights_are_converted_and_requests_keep_their_type(precision, element_type):
    kept = convert(matmul_model(), precision)
    assert weight_types(kept) == {element_type}
    assert io_types(kept) == {TensorProto.FLOAT}
    assert io_types(convert(matmul_model(), precision, keep_io_types=False)) == {element_type}


def test_half_precision_answers_like_the_model():
    x = np.random.default_rng(2).standard_normal((5, 256), dtype=np.float32)
    exact, half = (run(model, x=x) for model in (matmul_model(), convert(matmul_model(), "fp16")))
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.01 * np.abs(exact).max()


def test_default_model_keeps_its_answers_in_half_precision():
    images = np.random.default_rng(3).standard_normal((4, 3, 224, 224), dtype=np.float32)
    half = run(convert(default_model.path(), "fp16"), images=images)
    exact = run(default_model.path().read_bytes(), images=images)
    assert np.abs(half - exact).max() < 0.01
    assert (half.argmax(axis=1) == exact.argmax(axis=1)).all()


def test_bfloat16_keeps_numbers_that_half_precision_cannot_hold():
    """Masks of -1e9 are common; float16 ends at 65504."""
    mask = helper.make_node(
        "Constant", [], ["mask"], value=numpy_helper.from_array(np.float32(-1e9))
    )
    nodes = [
        mask,
        helper.make_node("Add", ["x", "mask"], ["s"]),
        helper.make_node("Mul", "sw", "y"),
    ]
    tiny = np.array([1e-20, 3e38, 1 / 3], np.float32)
    model = build(nodes, [tensor("x", ["n", 3])], [tensor("y", ["n", 3])], w=tiny)
    graph = onnx.load_from_string(convert(model, "bf16")).graph
    (weights,) = graph.initializer
    assert weights.data_type == TensorProto.BFLOAT16
    np.testing.assert_array_equal(
        np.frombuffer(weights.raw_data, ml_dtypes.bfloat16), tiny.astype(ml_dtypes.bfloat16)
    )
    (value,) = (n.attribute[0].t for n in graph.node if n.op_type == "Constant")
    assert np.frombuffer(value.raw_data, ml_dtypes.bfloat16) == np.float32(-1e9).astype(
        ml_dtypes.bfloat16
    )
    assert not any(a.i == TensorProto.FLOAT16 for n in graph.node for a in n.attribute)


def test_external_weights_are_taken_in(tmp_path):
    path = tmp_path / "model.onnx"
    model = onnx.load_from_string(matmul_model())
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = np.ones((1, 256), np.float32)
    np.testing.assert_array_equal(run(convert(path, "fp32"), x=x), run(matmul_model(), x=x))


def test_quantized_model_must_be_quantized():
    with pytest.raises(ModelError, match="QuantizeLinear"):
        convert(matmul_model(), "int8-qdq")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    model = build(nodes, [tensor("x", ["n", 3])], [tensor("y", ["n", 3])], s=np.float32(0.1))
    assert convert(model, "int8-qdq") == model


def test_unknown_precision_lists_the_known():
    with pytest.raises(ValueError, match=", ".join(PRECISIONS)):
        convert(matmul_model(), "fp8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_no_model_is_an_error(tmp_path, precision):
    with pytest.raises(ModelError, match="cannot read a model of 4 bytes"):
        convert(b"junk", precision)
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        convert(tmp_path / "absent.onnx", precision)
