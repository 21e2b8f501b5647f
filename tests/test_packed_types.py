"""Elements of less than a byte, and a float of one byte that is all exponent."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import trtinfer

PACKED = {
    "UINT4": (ml_dtypes.uint4, 0, 16),
    "INT4": (ml_dtypes.int4, -8, 8),
    "UINT2": (ml_dtypes.uint2, 0, 4),
    "INT2": (ml_dtypes.int2, -2, 2),
}


def cast_model(source: str, target: str) -> bytes:
    """y = Cast(x), of any length."""
    types = [getattr(TensorProto, name) for name in (source, target)]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=types[1])],
        "graph",
        [helper.make_tensor_value_info("x", types[0], ["n"])],
        [helper.make_tensor_value_info("y", types[1], ["n"])],
    )
    opset = helper.make_opsetid("", 25)
    return helper.make_model(graph, opset_imports=[opset], ir_version=12).SerializeToString()


def open_cast(source: str, target: str) -> trtinfer.Session:
    try:
        onnxruntime.InferenceSession(cast_model(source, target))
    except Exception as error:
        pytest.skip(f"this ONNX Runtime has no such kernel: {error}")
    return trtinfer.Session(cast_model(source, target), backend="onnxruntime")


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 1001])
@pytest.mark.parametrize("name", PACKED)
def test_packed_elements_keep_their_values_both_ways(name: str, length: int) -> None:
    scalar, low, high = PACKED[name]
    values = np.random.default_rng(length).integers(low, high, length).astype(np.float32)
    with open_cast(name, "FLOAT") as session:
        assert session.inputs[0].dtype == scalar
        np.testing.assert_array_equal(session.infer(values.astype(scalar))["y"], values)
        future = session.submit(values.astype(scalar))
        np.testing.assert_array_equal(future.result()["y"], values)
    with open_cast("FLOAT", name) as session:
        packed = session.infer(values)["y"]
        assert packed.dtype == scalar
        np.testing.assert_array_equal(packed.astype(np.float32), values)


def test_packed_inputs_are_checked() -> None:
    with open_cast("INT4", "FLOAT") as session:
        with pytest.raises(trtinfer.InputError, match="int4"):
            session.infer(np.zeros(3, np.int8))
        with pytest.raises(trtinfer.InputError, match=r"\(3, 1\)"):
            session.infer(np.zeros((3, 1), ml_dtypes.int4))
        with pytest.raises(trtinfer.InputError, match="infer"):
            session.claim()


def test_floats_that_are_all_exponent() -> None:
    values = np.array([2.0**-127, 0.25, 1, 2, 2.0**100], np.float32)
    with open_cast("FLOAT8E8M0", "FLOAT") as session:
        assert session.inputs[0].dtype == ml_dtypes.float8_e8m0fnu
        got = session.infer(values.astype(ml_dtypes.float8_e8m0fnu))["y"]
        np.testing.assert_array_equal(got, values)
