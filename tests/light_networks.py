"""Well-known networks that the package onnx ships without their weights: with seeded ones."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

# A channel that is dead in one image must not be magnified in others.
_LEAST = numpy_helper.from_array(np.float32(0.01), "least_variance")


@functools.cache
def network(name: str) -> bytes:
    """The ONNX bytes of `light_NAME.onnx`, whose own weights are all 0.02.

    Weights are normal numbers of the variance that keeps activations of one size (K. He et al.,
    "Delving Deep into Rectifiers", 2015), and batch normalization gets the statistics of an image,
    as training would give it those of many: so that answers depend on the image.
    """
    model = onnx.load(str(FOLDER / f"light_{name}.onnx"))
    model.ir_version = 8  # from 4 on, initializers need not be inputs
    _draw_weights(model.graph)
    _open_batch(model.graph)
    _normalize(model)
    return model.SerializeToString()


def smooth_image(seed: int) -> np.ndarray:
    """1 x 3 x 224 x 224, from -1 to 1: squares of random colors and some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (1, 3, 7, 7)).repeat(32, 2).repeat(32, 3)
    return (0.8 * coarse + 0.2 * rng.uniform(-1, 1, coarse.shape)).astype(np.float32)


def _open_batch(graph: Any) -> None:
    """Batches of every size, not only of one."""
    targets = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in targets:
            shape = numpy_helper.to_array(tensor).copy()
            shape[0] = 0 if shape[0] == 1 else shape[0]  # 0: as it is
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "n"


def _draw_weights(graph: Any) -> None:
    """Replaces the nodes that make constants by initializers."""
    rng = np.random.default_rng(0)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {
        node.output[0]: stored[node.input[0]]
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    is_scale = {node.input[1] for node in nodes if node.op_type in ("BatchNormalization", "Mul")}
    for node in nodes:  # a scale that is reshaped first
        if node.op_type == "Unsqueeze" and node.output[0] in is_scale:
            is_scale.add(node.input[0])
    weights = [
        numpy_helper.from_array(_weights(rng, shape, float(name in is_scale)), name)
        for name, shape in shapes.items()
    ]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [value for value in graph.input if value.name not in stored]
    for field, values in (("node", nodes), ("initializer", kept + weights), ("input", inputs)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)


def _weights(rng: np.random.Generator, shape: np.ndarray, center: float) -> np.ndarray:
    fan_in = np.prod(shape[np.argmax(shape > 1) + 1 :])  # some shapes begin with 1
    deviation = 0.02 if len(shape) == 1 else np.sqrt(2 / fan_in)
    return (center + deviation * rng.standard_normal(shape)).astype(np.float32)


def _normalize(model: Any) -> None:
    """Gives each BatchNormalization the mean and the variance of what one image brings to it."""
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    if not norms:
        return
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    _replace_norms(watched.graph)
    names = [f"{node.output[0]}_{kind}" for node in norms for kind in ("mean", "variance")]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it would name every statistic that is not used
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    statistics = session.run(names, {session.get_inputs()[0].name: smooth_image(0)})
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    places = [name for node in norms for name in node.input[3:5]]
    for place, array in zip(places, statistics, strict=True):
        weights[place].CopyFrom(numpy_helper.from_array(array.reshape(-1), place))


def _replace_norms(graph: Any) -> None:
    """Normalizes by the statistics of the input itself, which become values of the graph."""
    nodes = []
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        x, scale, shift = node.input[:3]
        y, centered, square = (f"{node.output[0]}{end}" for end in ("", "_centered", "_square"))
        mean, variance, deviation = (f"{y}_{kind}" for kind in ("mean", "variance", "deviation"))
        unit, scaled = f"{y}_unit", f"{y}_scaled"
        nodes += [
            helper.make_node("ReduceMean", [x], [mean], axes=[0, 2, 3]),
            helper.make_node("Sub", [x, mean], [centered]),
            helper.make_node("Mul", [centered, centered], [square]),
            helper.make_node("ReduceMean", [square], [f"{y}_square_mean"], axes=[0, 2, 3]),
            helper.make_node("Add", [f"{y}_square_mean", _LEAST.name], [variance]),
            helper.make_node("Sqrt", [variance], [deviation]),
            helper.make_node("Div", [centered, deviation], [unit]),
            helper.make_node("Unsqueeze", [scale], [f"{y}_scale"], axes=[0, 2, 3]),
            helper.make_node("Unsqueeze", [shift], [f"{y}_shift"], axes=[0, 2, 3]),
            helper.make_node("Mul", [unit, f"{y}_scale"], [scaled]),
            helper.make_node("Add", [scaled, f"{y}_shift"], [y]),
        ]
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.initializer.append(_LEAST)
