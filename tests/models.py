"""Small ONNX models, built in memory."""

from __future__ import annotations

import functools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
WEIGHTS = np.random.default_rng(1).standard_normal((256, 16), dtype=np.float32)
TABLE = np.arange(40, dtype=np.float32).reshape(10, 4)

#: What a row of `slow_model` holds to keep the backend busy for a while, and for a long while.
BUSY, VERY_BUSY = 200_000.0, 1_000_000.0

Shape = list[int | str]


def tensor(name: str, shape: Shape, element_type: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, shape)


def build(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    opset: int = 19,
    **constants: np.ndarray,
) -> bytes:
    """The bytes of a model."""
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@functools.cache
def matmul_model(batch: int | str = "n") -> bytes:
    """y = x @ WEIGHTS: 256 numbers to 16."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return build([node], [tensor("x", [batch, 256])], [tensor("y", [batch, 16])], w=WEIGHTS)


@functools.cache
def several_model() -> bytes:
    """Inputs a (4, float32) and b (2, int64); outputs joined (6, float32) and total (), int64."""
    nodes = [
        helper.make_node("Cast", ["b"], ["b_float"], to=FLOAT),
        helper.make_node("Concat", ["a", "b_float"], ["joined"], axis=1),
        helper.make_node("ReduceSum", ["b", "axis"], ["total"], keepdims=0),
    ]
    return build(
        nodes,
        [tensor("a", ["n", 4]), tensor("b", ["n", 2], INT64)],
        [tensor("joined", ["n", 6]), tensor("total", ["n"], INT64)],
        axis=np.array([1]),
    )


@functools.cache
def image_identity_model() -> bytes:
    """Gives the network's input back, which shows what preprocessing and transfers made of it."""
    node = helper.make_node("Mul", ["x", "one"], ["y"])
    x, y = (tensor(name, ["n", 3, 224, 224]) for name in "xy")
    return build([node], [x], [y], one=np.float32(1))


@functools.cache
def identity_model(element_type: int) -> bytes:
    """The output is the input, of any element type of whole bytes."""
    node = helper.make_node("Identity", ["x"], ["y"])
    x, y = (tensor(name, ["n", 3], element_type) for name in "xy")
    return build([node], [x], [y])


@functools.cache
def cast_model(source: int, target: int) -> bytes:
    """The output is the input as another element type."""
    node = helper.make_node("Cast", ["x"], ["y"], to=target)
    return build([node], [tensor("x", ["n", 3], source)], [tensor("y", ["n", 3], target)], opset=21)


@functools.cache
def twice_model(element_type: int) -> bytes:
    """Doubles numbers in float32, whatever their type is."""
    nodes = [
        helper.make_node("Cast", ["x"], ["single"], to=FLOAT),
        helper.make_node("Add", ["single", "single"], ["double"]),
        helper.make_node("Cast", ["double"], ["y"], to=element_type),
    ]
    x, y = (tensor(name, ["n", 3], element_type) for name in "xy")
    return build(nodes, [x], [y])


@functools.cache
def varying_model() -> bytes:
    """Doubles rows of any length."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return build([node], [tensor("x", ["n", "length"])], [tensor("y", ["n", "length"])])


@functools.cache
def nonzero_model() -> bytes:
    """No batch axis: the places of the elements that are not zero, however many there are."""
    node = helper.make_node("NonZero", ["x"], ["places"])
    return build([node], [tensor("x", ["length"])], [tensor("places", [1, "count"], INT64)])


@functools.cache
def whole_model() -> bytes:
    """No batch axis: a matrix times a scalar."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    return build([node], [tensor("x", [2, 3]), tensor("factor", [])], [tensor("y", [2, 3])])


@functools.cache
def dependent_model() -> bytes:
    """Rows that depend on each other: a softmax down the first axis."""
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    return build([node], [tensor("x", ["n", 3])], [tensor("y", ["n", 3])])


@functools.cache
def gather_model(batch: int | str = "n") -> bytes:
    """A row of TABLE for an index; an index out of range fails while it runs."""
    node = helper.make_node("Gather", ["table", "index"], ["row"], axis=0)
    index, row = tensor("index", [batch], INT64), tensor("row", [batch, 4])
    return build([node], [index], [row], table=TABLE)


@functools.cache
def slow_model() -> bytes:
    """y = 2 x for one number, after as many turns of a loop as the largest x of the batch says.

    Every batch goes through some turns, so that a larger batch costs no more than a small one.
    """
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Sin", ["state_in"], ["state_out"]),
        ],
        "body",
        [
            tensor("turn", [], INT64),
            tensor("go_in", [], TensorProto.BOOL),
            tensor("state_in", []),
        ],
        [tensor("go_out", [], TensorProto.BOOL), tensor("state_out", [])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Add", ["largest", "some"], ["turns_float"]),
        helper.make_node("Cast", ["turns_float"], ["turns"], to=INT64),
        helper.make_node("Loop", ["turns", "go", "one"], ["state"], body=body),
        helper.make_node("Mul", ["state", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "x"], ["doubled"]),
        helper.make_node("Add", ["doubled", "nothing"], ["y"]),
    ]
    return build(
        nodes,
        [tensor("x", ["n"])],
        [tensor("y", ["n"])],
        some=np.float32(20),
        go=np.bool_(True),
        one=np.float32(1),
        zero=np.float32(0),
    )


@functools.cache
def string_model() -> bytes:
    """Strings in, upper-case strings out."""
    node = helper.make_node(
        "StringNormalizer", ["x"], ["y"], case_change_action="UPPER", locale="C"
    )
    return build([node], [tensor("x", ["n"], STRING)], [tensor("y", ["n"], STRING)])


@functools.cache
def sequence_model() -> bytes:
    """The second tensor of a sequence."""
    node = helper.make_node("SequenceAt", ["xs", "position"], ["y"])
    xs = helper.make_tensor_sequence_value_info("xs", FLOAT, None)
    return build([node], [xs], [tensor("y", ["length"])], position=np.array(1))


@functools.cache
def image_model(side: int = 8) -> bytes:
    """The mean of each channel of an image."""
    node = helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0)
    return build(
        [node],
        [tensor("images", ["n", 3, side, side])],
        [tensor("means", ["n", 3])],
        axes=np.array([2, 3]),
    )
