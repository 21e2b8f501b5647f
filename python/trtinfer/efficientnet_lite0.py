"""EfficientNet-Lite0 as an ONNX graph, built from its PyTorch weights with NumPy and onnx only.

The layers are those of table 1 in "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks" (Tan and Le, 2019), in the Lite variant: no squeeze-and-excite, ReLU6, a fixed stem and
head. Batch normalization is folded into the convolutions, in float64; padding is TensorFlow's
"SAME", which is asymmetric. The same weights give the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trtinfer.errors import ModelError

SIZE, CLASSES = 224, 1000  # height and width of the input; width of the output
_OPSET, _IR_VERSION = 17, 8
_BATCH_NORM_EPSILON = 1e-3

Weights = Mapping[str, npt.NDArray[Any]]


class _Stage(NamedTuple):
    """A row of inverted residual blocks; only the first one strides and widens."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


_STEM_CHANNELS = 32
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def build(weights: Weights) -> bytes:
    """Builds the model.

    Args:
        weights: The state dict of the PyTorch model, name to array.

    Returns:
        A serialized ONNX model: `images` float32 [batch, 3, 224, 224] to `probs` float32
        [batch, 1000], softmax applied.

    Raises:
        ModelError: The onnx package is missing, or a weight is.
    """
    try:
        graph = _Graph(weights)
        _add_layers(graph)
        return graph.serialize()
    except ImportError as error:
        raise ModelError('the conversion needs onnx; run: pip install "trtinfer[demo]"') from error
    except KeyError as error:
        raise ModelError(
            f"the weights have no {error}; they are not EfficientNet-Lite0's"
        ) from error


def _add_layers(graph: _Graph) -> None:
    x = graph.convolve("images", "_conv_stem", "_bn0", stride=2)
    block, channels = 0, _STEM_CHANNELS
    for stage in _STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            inner = _add_block(graph, x, f"_blocks.{block}.", stride, channels * stage.expand)
            if repeat > 0:
                inner = graph.add("Add", [inner, x], f"add{block}")
            x, channels, block = inner, stage.channels, block + 1
    x = graph.convolve(x, "_conv_head", "_bn1")
    x = graph.add("GlobalAveragePool", [x], "pool")
    x = graph.add("Flatten", [x], "features", axis=1)
    fc = [
        graph.store("fc_w", graph.weights["_fc.weight"]),
        graph.store("fc_b", graph.weights["_fc.bias"]),
    ]
    x = graph.add("Gemm", [x, *fc], "logits", transB=1)
    graph.add("Softmax", [x], "probs", axis=1)


def _add_block(graph: _Graph, x: str, prefix: str, stride: int, width: int) -> str:
    if prefix + "_expand_conv.weight" in graph.weights:
        x = graph.convolve(x, prefix + "_expand_conv", prefix + "_bn0")
    x = graph.convolve(x, prefix + "_depthwise_conv", prefix + "_bn1", stride, group=width)
    return graph.convolve(x, prefix + "_project_conv", prefix + "_bn2", activate=False)


class _Graph:
    """Collects nodes and weights; follows the image size, which the padding depends on."""

    def __init__(self, weights: Weights) -> None:
        """Starts with nothing but the bounds of ReLU6."""
        import onnx  # of the extra `demo`

        self._onnx = onnx
        self.weights = weights
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._size = SIZE
        self._relu6 = [self.store("zero", np.float32(0)), self.store("six", np.float32(6))]

    def store(self, name: str, values: npt.ArrayLike) -> str:
        """Adds a constant, as float32."""
        array = np.ascontiguousarray(values, "<f4").reshape(np.shape(values))
        self._initializers.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node named after its only output."""
        make_node = self._onnx.helper.make_node
        self._nodes.append(make_node(op, inputs, [output], name=output, **attributes))
        return output

    def convolve(
        self,
        x: str,
        layer: str,
        norm: str,
        stride: int = 1,
        *,
        group: int = 1,
        activate: bool = True,
    ) -> str:
        """Adds a convolution with the batch normalization that follows it, and ReLU6."""
        kernel, bias = self._fold(layer, norm)
        name = layer.replace(".", "_").strip("_")
        side = kernel.shape[-1]
        constants = [self.store(name + "_w", kernel), self.store(name + "_b", bias)]
        output = name if not activate else name + "_conv"
        self.add(
            "Conv",
            [x, *constants],
            output,
            group=group,
            kernel_shape=[side, side],
            pads=self._pad_same(side, stride),
            strides=[stride, stride],
        )
        return self.add("Clip", [output, *self._relu6], name) if activate else output

    def _fold(self, layer: str, norm: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        def float64(name: str) -> npt.NDArray[np.float64]:
            return self.weights[name].astype(np.float64)

        scale = float64(norm + ".weight") / np.sqrt(
            float64(norm + ".running_var") + _BATCH_NORM_EPSILON
        )
        bias = float64(norm + ".bias") - float64(norm + ".running_mean") * scale
        return float64(layer + ".weight") * scale[:, None, None, None], bias

    def _pad_same(self, kernel: int, stride: int) -> list[int]:
        """Pads as TensorFlow: ceil(size / stride) outputs, the odd pixel below and right."""
        output = -(-self._size // stride)
        total = max((output - 1) * stride + kernel - self._size, 0)
        self._size = output
        return [total // 2, total // 2, total - total // 2, total - total // 2]

    def serialize(self) -> bytes:
        """Writes the model, from `images` to `probs`."""
        helper, floats = self._onnx.helper, self._onnx.TensorProto.FLOAT
        images = helper.make_tensor_value_info("images", floats, ["batch", 3, SIZE, SIZE])
        probs = helper.make_tensor_value_info("probs", floats, ["batch", CLASSES])
        graph = helper.make_graph(
            self._nodes, "efficientnet_lite0", [images], [probs], self._initializers
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="trtinfer"
        )
        return bytes(model.SerializeToString(deterministic=True))
