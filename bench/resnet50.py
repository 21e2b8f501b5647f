"""ResNet-50 (v1.5) in half precision, with random weights of a fixed seed.

K. He et al., "Deep Residual Learning for Image Recognition", 2015; the stride of a block is in its
3x3 convolution. Batch normalization is folded into the convolutions, as every runtime does.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

INPUT, OUTPUT, SIDE, CLASSES = "images", "logits", 224, 1000
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels inside a block, blocks
_EXPANSION = 4
_BRANCH_GAIN = 0.3  # the last of a block, so that sums of blocks stay in half precision's range


class _Network:
    """Nodes and weights, one after the other."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[np.float16]] = {}
        self._random = np.random.default_rng(50)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def draw(self, *shape: int, spread: float) -> str:
        name = f"weight_{len(self.weights)}"
        values = self._random.standard_normal(shape, np.float32) * spread
        self.weights[name] = values.astype(np.float16)
        return name

    def convolve(
        self, x: str, channels: tuple[int, int], size: int, stride: int = 1, gain: float = 1.0
    ) -> str:
        came, go = channels
        weight = self.draw(go, came, size, size, spread=gain * (2 / (came * size**2)) ** 0.5)
        bias = self.draw(go, spread=0.05)
        pads = [size // 2] * 4
        kernel, strides = [size, size], [stride, stride]
        return self.add("Conv", x, weight, bias, kernel_shape=kernel, pads=pads, strides=strides)

    def block(self, x: str, came: int, inside: int, stride: int) -> str:
        go = inside * _EXPANSION
        y = self.add("Relu", self.convolve(x, (came, inside), 1))
        y = self.add("Relu", self.convolve(y, (inside, inside), 3, stride))
        y = self.convolve(y, (inside, go), 1, gain=_BRANCH_GAIN)
        if came != go:
            x = self.convolve(x, (came, go), 1, stride, gain=0.5**0.5)
        return self.add("Relu", self.add("Add", x, y))


@functools.cache
def _network() -> _Network:
    network = _Network()
    x = network.add("Relu", network.convolve(INPUT, (3, 64), 7, 2))
    x = network.add("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    came = 64
    for stage, (inside, blocks) in enumerate(_STAGES):
        for i in range(blocks):
            x = network.block(x, came, inside, 2 if i == 0 and stage > 0 else 1)
            came = inside * _EXPANSION
    x = network.add("Flatten", network.add("GlobalAveragePool", x))
    weight = network.draw(CLASSES, came, spread=came**-0.5)
    bias = network.draw(CLASSES, spread=0.05)
    network.nodes.append(helper.make_node("Gemm", [x, weight, bias], [OUTPUT], transB=1))
    return network


def build(batch: int | None = None) -> bytes:
    """The ONNX file: `images` (n, 3, 224, 224) to `logits` (n, 1000), both float16.

    Args:
        batch: n; None leaves it open.
    """
    network, n = _network(), batch or "n"
    graph = helper.make_graph(
        network.nodes,
        "resnet50",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT16, [n, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT16, [n, CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in network.weights.items()],
    )
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())
