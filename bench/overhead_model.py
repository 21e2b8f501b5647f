"""The model of bench_overhead.py: y = x @ WEIGHTS, a few microseconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.random.default_rng(1).standard_normal((256, 16), dtype=np.float32)

Array = NDArray[np.float32]


def make_model() -> bytes:
    """y = x @ WEIGHTS with a dynamic batch."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "overhead",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def check(x: Array, answer: Array | dict[str, Array]) -> None:
    if isinstance(answer, dict):  # outputs by name
        answer = answer["y"]
    if not np.allclose(answer, x @ WEIGHTS, rtol=1e-3, atol=1e-3):
        raise AssertionError("a wrong answer")


def make_inputs(callers: int) -> list[Array]:
    return list(np.random.default_rng(2).standard_normal((callers, 256), dtype=np.float32))
