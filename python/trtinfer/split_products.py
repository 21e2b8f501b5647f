"""Products of fp32 numbers that stay exact where they are computed in TF32; needs onnx.

TF32 keeps 11 significant bits of a factor. So each factor becomes a high part of 11 bits or less
and a low part, what is left: x w = h w' + l w' + h v with x = h + l, w = w' + v. What is missing,
l v, is next to nothing, and sums are fp32 anyway. (Known as 3xTF32: H. Ootomo and R. Yokota,
"Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak
performance", 2022.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, inliner, numpy_helper, shape_inference

from trtinfer.onnx_graph import graphs

_FLOAT, _BFLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16
# Linear in each of their first two inputs.
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
_LOST_BITS = 13  # of fp32's 24 significant ones, in TF32


class _Parts(NamedTuple):
    """Names of the tensors that a factor is the sum of."""

    high: str
    low: str


def split(model: Any) -> Any:
    """Replaces each product of fp32 tensors in an `onnx.ModelProto` by three.

    A factor that is infinite, or above 3.39e38, then gives NaN.

    Returns:
        The model; the one given is used up.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    splitter = _Splitter(model.graph, _element_types(model))
    for graph in reversed(list(graphs(model.graph))):  # a node is copied with what is inside it
        splitter.split_graph(graph)
    splitter.drop_unused()
    return model


def split_array(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The nearest numbers of 11 significant bits, and what is left."""
    bits = np.asarray(values, order="C").view(np.uint32).astype(np.uint64)
    is_odd = bits >> _LOST_BITS & 1
    kept = bits + (1 << _LOST_BITS - 1) - 1 + is_odd >> _LOST_BITS << _LOST_BITS
    high = kept.astype(np.uint32).view(np.float32)
    return high, values - high


def _element_types(model: Any) -> dict[str, int]:
    """Of all values, by name, where they can be told."""
    types = {}
    for graph in graphs(shape_inference.infer_shapes(model).graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            types[value.name] = value.type.tensor_type.elem_type
        for tensor in graph.initializer:
            types[tensor.name] = tensor.data_type
    return types


def _constants(graph: Any) -> Iterator[tuple[str, Any]]:
    for inner in graphs(graph):
        for tensor in inner.initializer:
            yield tensor.name, tensor
        for node in inner.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                yield node.output[0], node.attribute[0].t


class _Splitter:
    """Splits the products of a model, one graph after the other.

    Constants are split here, into initializers of the main graph; all other factors while the model
    runs, by a cast to bfloat16 (8 bits) and back, which no compiler may leave out.
    """

    def __init__(self, main: Any, types: dict[str, int]) -> None:
        self._main = main
        self._types = types
        self._constants = dict(_constants(main))
        self._constant_parts: dict[str, _Parts] = {}
        self._count = 0

    def split_graph(self, graph: Any) -> None:
        nodes: list[Any] = []
        parts: dict[str, _Parts] = {}  # of the values split in this graph
        for node in graph.node:
            if not self._is_fp32_product(node):
                nodes.append(node)
                continue
            for name in node.input[:2]:
                if name in self._constants:
                    parts[name] = self._parts_of_constant(name)
                elif name not in parts:
                    parts[name] = self._new_parts(name)
                    nodes += _casts(name, parts[name])
            nodes += _three_products(node, parts[node.input[0]], parts[node.input[1]])
        del graph.node[:]
        graph.node.extend(nodes)

    def drop_unused(self) -> None:
        """Takes out what only products used."""
        used = {name for graph in graphs(self._main) for node in graph.node for name in node.input}
        used.update(value.name for value in (*self._main.input, *self._main.output))
        kept = [
            tensor
            for tensor in self._main.initializer
            if tensor.name in used or tensor.name not in self._constant_parts
        ]
        del self._main.initializer[:]
        self._main.initializer.extend(kept)

    def _is_fp32_product(self, node: Any) -> bool:
        if node.op_type not in _PRODUCTS or node.domain not in ("", "ai.onnx"):
            return False
        if node.op_type == "Einsum" and len(node.input) != 2:
            return False
        return _FLOAT in (self._types.get(name) for name in node.input[:2])

    def _new_parts(self, name: str) -> _Parts:
        self._count += 1
        return _Parts(f"{name}/high_{self._count}", f"{name}/low_{self._count}")

    def _parts_of_constant(self, name: str) -> _Parts:
        if name not in self._constant_parts:
            parts = self._constant_parts[name] = self._new_parts(name)
            arrays = split_array(numpy_helper.to_array(self._constants[name]))
            self._main.initializer.extend(map(numpy_helper.from_array, arrays, parts))
        return self._constant_parts[name]


def _casts(name: str, parts: _Parts) -> Iterator[Any]:
    rounded = f"{parts.high}/bfloat16"
    yield helper.make_node("Cast", [name], [rounded], to=_BFLOAT16)
    yield helper.make_node("Cast", [rounded], [parts.high], to=_FLOAT)
    yield helper.make_node("Sub", [name, parts.high], [parts.low])


def _three_products(node: Any, a: _Parts, b: _Parts) -> Iterator[Any]:
    """The same operator on parts, and the sum, smallest first."""
    output = node.output[0]
    low_high, high_low, high_high, low = (
        f"{output}/{part}" for part in ("low_high", "high_low", "high_high", "low")
    )
    yield _product(node, (a.low, b.high), low_high)
    yield _product(node, (a.high, b.low), high_low)
    yield helper.make_node("Add", [low_high, high_low], [low])
    yield _product(node, (a.high, b.high, *node.input[2:]), high_high)  # with the bias
    yield helper.make_node("Add", [low, high_high], [output])


def _product(node: Any, inputs: tuple[str, ...], output: str) -> Any:
    product = onnx.NodeProto()
    product.CopyFrom(node)
    product.name = output
    product.input[:] = inputs
    product.output[:] = [output]
    return product
