"""The Open Inference Protocol's messages, read into requests and written from answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trtinfer.errors import InputError
from trtinfer.server.grpc.messages import message
from trtinfer.server.inference import (
    InferenceAnswer,
    InferenceRequest,
    OutputRequest,
    OutputTensor,
    shared_memory_place,
)
from trtinfer.server.shared_memory import SharedMemory
from trtinfer.server.tensors import DeviceTensor, Tensor

ModelInferResponse = message("ModelInferResponse")
_OutputTensor = message("ModelInferResponse.InferOutputTensor")

#: The field that holds the elements of a datatype, where they are not sent raw.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def read_request(received: Any, memory: SharedMemory) -> InferenceRequest:
    """Read a ModelInferRequest; its tensors borrow the message, or shared memory.

    Raises:
        InputError: It does not follow the protocol.
        NotFoundError: A region of shared memory is not registered.
    """
    raw = iter(received.raw_input_contents)
    is_raw = len(received.raw_input_contents) > 0
    inputs = {}
    for entry in received.inputs:
        tensor = _read_input(entry, raw if is_raw else None, memory)
        if tensor.name in inputs:
            raise InputError(f"the input {tensor.name!r} comes twice")
        inputs[tensor.name] = tensor
    if next(raw, None) is not None:
        raise InputError("there are more raw_input_contents than inputs")
    request = InferenceRequest(inputs, received.id)
    if received.parameters:
        request.read_parameters(_parameters(received.parameters))
    request.outputs = [
        OutputRequest.read(entry.name, _parameters(entry.parameters)) for entry in received.outputs
    ]
    return request


def write_answer(answer: InferenceAnswer, memory: SharedMemory) -> Any:
    """Write a ModelInferResponse; its elements are raw.

    Raises:
        InputError: An output has no place in the shared memory that was named for it.
        NotFoundError: A region of shared memory is not registered.
    """
    written = [_write_output(output, memory) for output in answer.outputs]
    return ModelInferResponse(
        model_name=answer.model_name,
        model_version=answer.model_version,
        id=answer.id,
        outputs=[output for output, _ in written],
        raw_output_contents=[data for _, data in written],
    )


def _read_input(
    entry: Any, raw: Iterator[bytes] | None, memory: SharedMemory
) -> Tensor | DeviceTensor:
    shape: Sequence[int] = list(entry.shape)
    place = shared_memory_place(_parameters(entry.parameters)) if entry.parameters else None
    if place is not None:
        return memory.read(entry.name, entry.datatype, shape, place)
    if raw is not None:
        data = next(raw, None)
        if data is None:
            raise InputError(f"raw_input_contents has nothing for the input {entry.name!r}")
        return Tensor.from_raw(entry.name, entry.datatype, shape, data)
    field = _CONTENTS.get(entry.datatype)
    if field is None:
        raise InputError(f"the input {entry.name!r} of {entry.datatype} must be sent raw")
    values = list(getattr(entry.contents, field))
    return Tensor.from_values(entry.name, entry.datatype, shape, values)


def _write_output(output: OutputTensor, memory: SharedMemory) -> tuple[Any, bytes]:
    tensor = output.tensor
    written = _OutputTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    if output.request.region is None:
        return written, bytes(tensor.raw())
    for name, value in memory.write(output.request.region, tensor.raw()).items():
        kind = "string_param" if isinstance(value, str) else "int64_param"
        setattr(written.parameters[name], kind, value)
    return written, b""


def _parameters(received: Any) -> dict[str, Any]:
    """Parameters as values of Python; those without a value are left out."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in received.items()}
    return {name: getattr(received[name], kind) for name, kind in chosen.items() if kind}
