"""Precision of an ONNX model, for releases of TensorRT that take it from the model only.

`fp16` is done by the converter that ONNX Runtime ships (`onnxruntime.transformers.float16`), which
keeps what half precision would break in fp32. `bf16` is the same model with the other 16-bit type:
that converter has none, and the rules of where to convert are the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from trtinfer.errors import ModelError

PRECISIONS = ("fp32", "fp16", "bf16", "int8-qdq")

_MAX_BYTES = 2**31 - 1  # of one protobuf message
_FLOAT, _FLOAT16, _BFLOAT16 = 1, 10, 16  # onnx.TensorProto.DataType
_INSTALL = "install onnx 1.17 or newer"


def convert(model: bytes | Path, precision: str, keep_io_types: bool = True) -> bytes:
    """Rewrites a model so that its numbers have a precision.

    Args:
        model: A serialized ONNX model, or the path of one, whose external weights are read too.
        precision: `"fp32"` and `"int8-qdq"` leave the model as it is (the latter has to hold
            QuantizeLinear and DequantizeLinear nodes, and what they do not enclose keeps its
            type); `"fp16"` and `"bf16"` convert it.
        keep_io_types: Inputs and outputs stay float32; else they are converted too.

    Returns:
        The serialized model, with its weights inside.

    Raises:
        ModelError: The model cannot be read or converted, has no quantized nodes, or gets larger
            than the 2 GiB of one protobuf message; or the package onnx is not installed.
        ValueError: Another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; give one of {', '.join(PRECISIONS)}")
    proto = _load(model)
    if precision == "int8-qdq" and not any(
        node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in proto.graph.node
    ):
        raise ModelError(
            "precision is 'int8-qdq', but the model has no QuantizeLinear or DequantizeLinear "
            "nodes; quantize it first, with onnxruntime.quantization for example"
        )
    if precision in ("fp16", "bf16"):
        exact = _float_values(proto) if precision == "bf16" else {}
        proto = _to_float16(proto, keep_io_types)
        if precision == "bf16":
            _to_bfloat16(proto, exact)
    return _serialize(proto)


def _load(model: bytes | Path) -> Any:
    onnx = _import("onnx")
    try:
        if isinstance(model, Path):
            return onnx.load(str(model))
        return onnx.load_model_from_string(model)
    except Exception as error:  # protobuf's own types, which differ between its releases
        name = str(model) if isinstance(model, Path) else f"a model of {len(model)} bytes"
        raise ModelError(f"cannot read {name} as ONNX: {error}") from error


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(f"{name} is needed to convert a model ({error}); {_INSTALL}") from error


def _serialize(proto: Any) -> bytes:
    size = proto.ByteSize()
    if size > _MAX_BYTES:
        raise ModelError(
            f"the model has {size} bytes, more than a protobuf message can hold; convert it "
            "before, and give the path of a model with external weights"
        )
    return bytes(proto.SerializeToString())


def _to_float16(proto: Any, keep_io_types: bool) -> Any:
    converter = _import("onnxruntime.transformers.float16")
    try:
        return converter.convert_float_to_float16(proto, keep_io_types=keep_io_types)
    except Exception as error:  # assertions and key errors, for models it does not expect
        raise ModelError(f"the model cannot be converted to 16 bits: {error!r}") from error


def _graphs(graph: Any) -> Iterator[Any]:
    """The graph and those inside its If, Loop and Scan nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _graphs(inner)


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """Every stored tensor with the name under which nodes use it."""
    for inner in _graphs(graph):
        for tensor in inner.initializer:
            yield tensor.name, tensor
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield node.output[0], attribute.t


def _float_values(proto: Any) -> dict[str, np.ndarray[Any, Any]]:
    helper = _import("onnx.numpy_helper")
    return {
        name: helper.to_array(tensor)
        for name, tensor in _tensors(proto.graph)
        if tensor.data_type == _FLOAT
    }


def _to_bfloat16(proto: Any, exact: dict[str, np.ndarray[Any, Any]]) -> None:
    """Turns every float16 of a converted model into bfloat16; `exact` has the values before."""
    helper = _import("onnx.numpy_helper")
    for name, tensor in _tensors(proto.graph):
        if tensor.data_type == _FLOAT16:
            values = exact.get(name)
            if values is None:
                values = helper.to_array(tensor)
            shape, kept_name = tuple(tensor.dims), tensor.name
            tensor.Clear()
            tensor.name, tensor.data_type = kept_name, _BFLOAT16
            tensor.dims.extend(shape)
            tensor.raw_data = values.astype(ml_dtypes.bfloat16).tobytes()
    for graph in _graphs(proto.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.tensor_type.elem_type == _FLOAT16:
                info.type.tensor_type.elem_type = _BFLOAT16
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i == _FLOAT16:
                    attribute.i = _BFLOAT16
