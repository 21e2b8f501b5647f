"""Products of fp32 numbers in three parts: on hardware that rounds factors to TF32, made here."""

from __future__ import annotations

import models
import numpy as np
import onnx
import onnxruntime
import pytest
import rtx
from models import build, tensor
from onnx import TensorProto, helper, numpy_helper

from trtinfer import _core, default_model
from trtinfer.precision import convert
from trtinfer.split_products import split_array

PRODUCTS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def one(op: str, names: str, *weights: np.ndarray, shape: list[int], **attributes: object) -> bytes:
    """A model of one operator, whose inputs are named by a letter: x, and w and b for weights."""
    node = helper.make_node(op, list(names), ["y"], **attributes)
    y = tensor("y", [f"size_{axis}" for axis in range(len(shape))])
    return build([node], [tensor("x", shape)], [y], **dict(zip("wb", weights, strict=False)))


MODELS = {
    "matmul": one("MatMul", "xw", random(256, 16), shape=[5, 256]),
    "weights first": one("MatMul", "wx", random(16, 256), shape=[256, 5]),
    "gemm": one(
        "Gemm", "xwb", random(8, 96), random(8), shape=[5, 96], alpha=0.5, beta=2.0, transB=1
    ),
    "no weights": one("Einsum", "xx", shape=[7, 64], equation="ij,kj->ik"),
    "convolution": one(
        "Conv", "xwb", random(24, 16, 3, 3), random(24), shape=[2, 16, 9, 9], pads=[1, 1, 1, 1]
    ),
    "depthwise": one("Conv", "xw", random(16, 1, 5, 5), shape=[2, 16, 9, 9], group=16),
    "transposed": one(
        "ConvTranspose", "xw", random(16, 8, 3, 3), shape=[2, 16, 5, 5], strides=[2, 2]
    ),
}


def exact(model: bytes) -> bytes:
    return convert(model, "fp32", tf32=False)


def in_tf32(model: bytes) -> bytes:
    """The model with every factor of a product rounded to 11 bits first, the way of T. Dekker."""
    proto = onnx.load_from_string(model)
    nodes = []
    for node in proto.graph.node:
        for place in range(2 if node.op_type in PRODUCTS else 0):
            factor, name = node.input[place], f"factor_{len(nodes)}"
            nodes += [
                helper.make_node("Mul", [factor, "shift"], [f"{name}_large"]),
                helper.make_node("Sub", [f"{name}_large", factor], [f"{name}_rest"]),
                helper.make_node("Sub", [f"{name}_large", f"{name}_rest"], [name]),
            ]
            node.input[place] = name
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(2**13 + 1), "shift"))
    return proto.SerializeToString()


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def error(model: bytes, x: np.ndarray, right: np.ndarray) -> float:
    """The largest of the model's errors in TF32, in parts of the range of its answers."""
    return float(np.abs(run(in_tf32(model), x) - right).max() / np.ptp(right))


@pytest.mark.parametrize("name", MODELS)
def test_products_are_exact_in_tf32(name):
    model = MODELS[name]
    shape = onnx.load_from_string(model).graph.input[0].type.tensor_type.shape
    x = random(*(dim.dim_value for dim in shape.dim))
    right = run(model, x)
    assert error(model, x, right) > 1e-4
    assert error(exact(model), x, right) < 5e-6


def test_default_model_is_exact_in_tf32():
    x = np.random.default_rng(0).random((4, 3, 224, 224), np.float32)
    model = default_model.path().read_bytes()
    right = run(model, x)
    assert error(model, x, right) > 1e-3
    assert error(exact(model), x, right) < 2e-5


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_parts_of_an_array_are_exact(scale):
    array = np.float32(scale) * random(50, 40)
    high, low = split_array(array)
    np.testing.assert_array_equal(high + low, array)
    assert not (high.view(np.uint32) & 0x1FFF).any()
    assert (np.abs(low) <= np.abs(array) * 2.0**-11).all()


def test_each_factor_is_split_once():
    nodes = [helper.make_node("MatMul", ["x", "w"], [name]) for name in ("once", "twice")]
    nodes.append(helper.make_node("Add", ["once", "twice"], ["y"]))
    model = build(nodes, [tensor("x", [2, 32])], [tensor("y", [2, 32])], w=random(32, 32))
    graph = onnx.load_from_string(exact(model)).graph
    assert [node.op_type for node in graph.node].count("Cast") == 2
    assert len(graph.initializer) == 2  # the parts; the whole is gone


def test_products_inside_branches_are_split():
    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["x", "w"], [name])
        return helper.make_graph([node], name, [], [tensor(name, [2, 32])])

    node = helper.make_node(
        "If", ["is_so"], ["y"], then_branch=branch("then"), else_branch=branch("else")
    )
    constants = {"w": random(32, 32), "is_so": np.bool_(True)}
    model = build([node], [tensor("x", [2, 32])], [tensor("y", [2, 32])], **constants)
    split = onnx.load_from_string(exact(model)).graph.node[0].attribute
    assert [[n.op_type for n in a.g.node].count("MatMul") for a in split] == [3, 3]
    np.testing.assert_allclose(
        run(exact(model), random(2, 32)), run(model, random(2, 32)), rtol=1e-4, atol=1e-5
    )


def test_products_inside_functions_are_split():
    opset = helper.make_opsetid("", 19)
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    function = helper.make_function("own", "Product", ["a", "b"], ["c"], body, [opset])
    graph = helper.make_graph(
        [helper.make_node("Product", ["x", "w"], ["y"], domain="own")],
        "graph",
        [tensor("x", [2, 32])],
        [tensor("y", [2, 8])],
        [numpy_helper.from_array(random(32, 8), "w")],
    )
    imports = [opset, helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=10)
    split = onnx.load_from_string(exact(model.SerializeToString()))
    assert [node.op_type for node in split.graph.node].count("MatMul") == 3


def test_other_types_stay_as_they_are():
    half = [tensor(name, [4, 4], TensorProto.FLOAT16) for name in "xy"]
    model = build([helper.make_node("MatMul", ["x", "x"], ["y"])], half[:1], half[1:])
    assert onnx.load_from_string(exact(model)) == onnx.load_from_string(model)


def test_tensorrt_rtx_builds_plans_of_split_models():
    library = rtx.library()
    for model in MODELS.values():
        builder = _core.TensorRtBuilder(library)
        builder.parse(exact(model))
        assert builder.build({})[0]


def test_fp32_stays_whole_where_tf32_is_allowed():
    assert convert(models.matmul_model(), "fp32", tf32=True) == models.matmul_model()
