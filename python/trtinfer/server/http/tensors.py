"""The Open Inference Protocol's bodies: JSON, and the raw tensors that may follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from trtinfer.errors import InputError
from trtinfer.server.http.message import BINARY, Buffer, Head, Request, Response
from trtinfer.server.inference import (
    InferenceAnswer,
    InferenceRequest,
    OutputRequest,
    OutputTensor,
    shared_memory_place,
)
from trtinfer.server.shared_memory import SharedMemory
from trtinfer.server.tensors import DeviceTensor, Tensor, TensorHead

#: The header that says how long the JSON before the raw tensors is; 0: the body is one raw tensor.
LENGTH_HEADER = "Inference-Header-Content-Length"
_LENGTH = LENGTH_HEADER.lower().encode()


def is_raw(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a body has no JSON and is the bare elements of the only input."""
    return headers.get(_LENGTH) == b"0"


def read_json(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Read a JSON object; nothing is an empty one.

    Raises:
        InputError: The body is something else.
    """
    if not body:
        return {}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f"the body is a JSON {type(document).__name__}, an object is needed")
    return document


class Preface(NamedTuple):
    """What comes before the elements of the only input.

    Attributes:
        size: Bytes.
        document: The JSON that they are.
        input: What it says of the input.
    """

    size: int
    document: dict[str, Any]
    input: TensorHead


def read_preface(head: Head, part: memoryview) -> Preface | None:
    """Read how a body begins, of which a part has come.

    Returns:
        None: There are several inputs, the elements are not the whole rest of the body, or too
        little of it has come.

    Raises:
        InputError: It does not follow the protocol.
    """
    start = _json_length(head.headers, head.length)
    if start > len(part):
        return None
    document = read_json(part[:start])
    entries = _entries(document, "inputs")
    if (
        len(entries) != 1
        or parameters_of(entries[0]).get("binary_data_size") != head.length - start
    ):
        return None
    (entry,) = entries
    said = TensorHead(_text(entry, "name"), _text(entry, "datatype"), entry.get("shape"))
    return Preface(start, document, said)


def read_request(request: Request, memory: SharedMemory) -> InferenceRequest:
    """Read a request; its tensors borrow the body, or shared memory.

    Raises:
        InputError: It does not follow the protocol.
        NotFoundError: A region of shared memory is not registered.
    """
    if request.slots is not None:
        document, elements = request.slots.document, request.slots.room
    else:
        view = memoryview(request.body)
        length = _json_length(request.headers, len(view))
        document, elements = read_json(view[:length]), view[length:]
    raw = _RawTensors(elements)
    inputs = {}
    for entry in _entries(document, "inputs"):
        tensor = _read_input(entry, raw, memory)
        if tensor.name in inputs:
            raise InputError(f"the input {tensor.name!r} comes twice")
        inputs[tensor.name] = tensor
    raw.expect_end()
    asked = InferenceRequest(inputs, _text(document, "id", ""), slots=request.slots)
    asked.read_parameters(parameters_of(document))
    asked.outputs = [
        OutputRequest.read(_text(entry, "name"), parameters_of(entry), asked.binary_outputs)
        for entry in _entries(document, "outputs")
    ]
    return asked


def write_answer(answer: InferenceAnswer, memory: SharedMemory) -> Response:
    """Write an answer, its binary outputs without a copy.

    Raises:
        InputError: An output has no place in the shared memory that was named for it.
        NotFoundError: A region of shared memory is not registered.
    """
    raw: list[Buffer] = []
    document: dict[str, Any] = {
        "model_name": answer.model_name,
        "model_version": answer.model_version,
        "outputs": [_write_output(output, raw, memory) for output in answer.outputs],
    }
    if answer.id:
        document["id"] = answer.id
    text = orjson.dumps(document)
    if not raw:
        return Response(200, (text,))
    return Response(200, (text, *raw), BINARY, ((LENGTH_HEADER, str(len(text))),))


class _RawTensors:
    """The raw tensors that follow the JSON, in the order of the inputs."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, name: str, size: object) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self._data):
            raise InputError(
                f"the input {name!r} has binary_data_size {size!r}, but {len(self._data)} bytes "
                "are left of the body"
            )
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def expect_end(self) -> None:
        if self._data:
            raise InputError(f"{len(self._data)} bytes of the body belong to no input")


def _json_length(headers: Mapping[bytes, bytes], size: int) -> int:
    text = headers.get(_LENGTH)
    if text is None:
        return size
    if not text.isdigit() or len(text) > 18 or int(text) > size:
        raise InputError(
            f"{LENGTH_HEADER} is {text.decode('latin-1')!r}, which is no length within the body's "
            f"{size} bytes"
        )
    return int(text)


def _read_input(
    entry: dict[str, Any], raw: _RawTensors, memory: SharedMemory
) -> Tensor | DeviceTensor:
    name, datatype = _text(entry, "name"), _text(entry, "datatype")
    shape, parameters = entry.get("shape"), parameters_of(entry)
    if not isinstance(shape, list):
        raise InputError(f"the input {name!r} has the shape {shape!r}, a list is needed")
    if "binary_data_size" in parameters:
        data = raw.take(name, parameters["binary_data_size"])
        return Tensor.from_raw(name, datatype, shape, data)
    if (place := shared_memory_place(parameters)) is not None:
        return memory.read(name, datatype, shape, place)
    if isinstance(entry.get("data"), list):
        return Tensor.from_values(name, datatype, shape, entry["data"])
    raise InputError(f"the input {name!r} has neither data nor binary_data_size")


def _write_output(output: OutputTensor, raw: list[Buffer], memory: SharedMemory) -> dict[str, Any]:
    tensor, request = output.tensor, output.request
    entry: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
    }
    if request.region is not None:
        # Not told in the answer: Triton's C++ client takes any parameters for binary_data_size.
        memory.write(request.region, tensor.raw())
    elif request.binary:
        data = tensor.raw()
        entry["parameters"] = {"binary_data_size": len(data)}
        raw.append(data)
    else:
        entry["data"] = tensor.values()
    return entry


def _entries(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = document.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{name!r} is a list of objects, {str(entries)[:80]} was received")
    return entries


def parameters_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request or of a part of it.

    Raises:
        InputError: They are no object.
    """
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError(f"'parameters' is an object, {str(parameters)[:80]} was received")
    return parameters


def _text(document: dict[str, Any], name: str, default: str | None = None) -> str:
    value = document.get(name, default)
    if not isinstance(value, str):
        raise InputError(f"{name!r} is text, {str(value)[:80]} was received")
    return value
