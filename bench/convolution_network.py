"""The larger model of bench_server.py: three convolutions, about a millisecond on a core."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SIDE = 112


def make_model() -> bytes:
    """3 x 112 x 112 to 16: three convolutions, a mean and a classification; a dynamic batch."""
    dice = np.random.default_rng(4)
    nodes, constants, source, channels = [], [], "x", 3
    for i, width in enumerate((16, 32, 64)):
        weights = dice.standard_normal((width, channels, 3, 3), dtype=np.float32) / channels
        constants.append(numpy_helper.from_array(weights, f"w{i}"))
        nodes.append(
            helper.make_node("Conv", [source, f"w{i}"], [f"c{i}"], strides=[2, 2], pads=[1] * 4)
        )
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        source, channels = f"r{i}", width
    nodes.append(helper.make_node("GlobalAveragePool", [source], ["pool"]))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"]))
    last = dice.standard_normal((channels, 16), dtype=np.float32)
    constants.append(numpy_helper.from_array(last, "last"))
    nodes.append(helper.make_node("MatMul", ["flat", "last"], ["y"]))
    shape = ["n", 3, SIDE, SIDE]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])
    graph = helper.make_graph(nodes, "convolution", [x], [y], constants)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
