"""A convolution network of an ONNX file as PyTorch runs it best: half precision, channels last."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnx import NodeProto, numpy_helper
from torch import Tensor
from torch.nn import functional


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _conv(x: Tensor, weight: Tensor, bias: Tensor, **given: Any) -> Tensor:
    return functional.conv2d(x, weight, bias, given["strides"], given["pads"][:2])


def _max_pool(x: Tensor, **given: Any) -> Tensor:
    return functional.max_pool2d(x, given["kernel_shape"], given["strides"], given["pads"][:2])


OPERATORS = {
    "Add": lambda x, y: x + y,
    "Conv": _conv,
    "Flatten": lambda x: x.flatten(1),
    "Gemm": lambda x, weight, bias, transB: functional.linear(x, weight, bias),  # noqa: N803
    "GlobalAveragePool": lambda x: functional.adaptive_avg_pool2d(x, 1),
    "MaxPool": _max_pool,
    "Relu": functional.relu_,
}


class Network:
    """Runs the nodes one by one; captured in a CUDA graph, Python costs nothing."""

    def __init__(self, model: bytes, device: str = "cuda") -> None:
        torch.backends.cudnn.benchmark = True
        graph = onnx.load_model_from_string(model).graph
        self._nodes = [
            (OPERATORS[node.op_type], list(node.input), node.output[0], _attributes(node))
            for node in graph.node
        ]
        self._input, self._output = graph.input[0].name, graph.output[0].name
        self._weights = {
            tensor.name: self._load(torch.from_numpy(numpy_helper.to_array(tensor).copy()), device)
            for tensor in graph.initializer
        }

    @staticmethod
    def _load(weight: Tensor, device: str) -> Tensor:
        weight = weight.to(device)
        is_filter = weight.dim() == 4
        return weight.contiguous(memory_format=torch.channels_last) if is_filter else weight

    def __call__(self, x: Tensor) -> Tensor:
        values = {**self._weights, self._input: x.contiguous(memory_format=torch.channels_last)}
        for operator, inputs, output, attributes in self._nodes:
            values[output] = operator(*(values[name] for name in inputs), **attributes)
        return values[self._output]
