"""Small classifiers built in memory: class i scores 10 x the mean of color channel i."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from onnx import TensorProto, helper, numpy_helper

COLORS = ("red", "green", "blue")
SIZE = 8


def model(*, softmax=True, weights=None, trailing=None, op="Softmax", **metadata):
    """ONNX bytes: images [batch, 3, 8, 8] to scores [batch, classes].

    `weights` (3 x classes) replaces the identity x 10; `trailing` is the output's shape after the
    batch, where it is not (classes,).
    """
    weights = np.eye(3, dtype=np.float32) * 10 if weights is None else np.float32(weights)
    trailing = trailing or (weights.shape[1],)
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["colors"]),
        helper.make_node("MatMul", ["colors", "weights"], ["scores"]),
    ]
    if softmax:
        nodes.append(helper.make_node(op, ["scores"], ["last"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", ["scores"], ["last"]))
    constants = [numpy_helper.from_array(weights, "weights")]
    target = np.array([0, *trailing], np.int64)
    constants.append(numpy_helper.from_array(target, "target"))
    nodes.append(helper.make_node("Reshape", ["last", "target"], ["answer"]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", *trailing])
    graph = helper.make_graph(nodes, "classifier", [images], [answer], constants)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(built, metadata)
    return built.SerializeToString()


def ultralytics(**changes):
    """A model with the metadata that ultralytics writes."""
    names = str(dict(enumerate(COLORS)))
    return model(**{"task": "classify", "imgsz": f"[{SIZE}, {SIZE}]", "names": names, **changes})


def picture(color, height=20, width=30):
    """A plain picture: RGB array of 255 in the channel of the color, else 0."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., COLORS.index(color)] = 255
    return image


def png(image):
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
