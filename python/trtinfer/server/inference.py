"""One inference as the Open Inference Protocol describes it; knows neither HTTP nor gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trtinfer.errors import InputError
from trtinfer.server.slot_body import SlotBody
from trtinfer.server.tensors import DeviceTensor, Tensor
from trtinfer.server.trace import Trace

#: The session's priorities; the protocol counts from 1, the highest, and 0 is the model's default.
_HIGHEST, _LOWEST = 7, -8

Parameters = Mapping[str, Any]


@dataclass(slots=True)
class OutputRequest:
    """An output that a client asks for.

    Attributes:
        name: Of the model's output.
        binary: Whether its elements follow the JSON of the answer; HTTP only.
        class_count: The K largest elements are asked for as text "value:index:label"; 0: all
            elements as they are.
        region: A place in shared memory to write the elements to: its name, offset and size.
    """

    name: str
    binary: bool = False
    class_count: int = 0
    region: tuple[str, int, int] | None = None

    @classmethod
    def read(cls, name: str, parameters: Parameters, binary: bool = False) -> OutputRequest:
        """Read an output's parameters.

        Raises:
            InputError: A parameter has a value of the wrong kind.
        """
        if not parameters:
            return cls(name, binary)
        return cls(
            name,
            bool(parameters.get("binary_data", binary)),
            integer(parameters, "classification", 0),
            shared_memory_place(parameters),
        )


@dataclass(slots=True)
class InferenceRequest:
    """What a client asks of a model.

    Attributes:
        inputs: By name.
        id: Handed back with the answer.
        outputs: Those asked for; empty: all, as ``binary_outputs`` says.
        binary_outputs: Whether outputs that are not listed are sent as binary data; HTTP only.
        timeout: Seconds; None: the server's own.
        priority: As a session takes it.
        trace: Of this request, if it is traced.
        slots: Where the elements of the only input lie already; None: in memory of their own.
    """

    inputs: dict[str, Tensor | DeviceTensor]
    id: str = ""
    outputs: list[OutputRequest] = field(default_factory=list)
    binary_outputs: bool = False
    timeout: float | None = None
    priority: int = 0
    trace: Trace | None = None
    slots: SlotBody | None = None

    def read_parameters(self, parameters: Parameters) -> None:
        """Take over what the request's own parameters say of its schedule.

        Raises:
            InputError: A parameter has a value of the wrong kind.
        """
        self.binary_outputs = bool(parameters.get("binary_data_output", self.binary_outputs))
        microseconds = integer(parameters, "timeout", 0)
        self.timeout = microseconds / 1e6 if microseconds else None
        level = integer(parameters, "priority", 0)
        self.priority = max(_HIGHEST + 1 - level, _LOWEST) if level else 0


@dataclass(slots=True)
class OutputTensor:
    """An output of an answer and how it was asked for."""

    tensor: Tensor
    request: OutputRequest


@dataclass(slots=True)
class InferenceAnswer:
    """What a client gets back."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


def integer(parameters: Parameters, name: str, default: int) -> int:
    """Return a parameter that is a number, 0 or more.

    Raises:
        InputError: It is something else.
    """
    value = parameters.get(name, default)
    if type(value) is str and value.isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise InputError(f"the parameter {name!r} is a whole number, {value!r} was received")
    return value


def shared_memory_place(parameters: Parameters) -> tuple[str, int, int] | None:
    """Return the region, offset and size that a tensor's parameters name; None without a region.

    Raises:
        InputError: A parameter has a value of the wrong kind.
    """
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    if not isinstance(region, str):
        raise InputError(f"shared_memory_region is a name, {region!r} was received")
    size = integer(parameters, "shared_memory_byte_size", 0)
    return region, integer(parameters, "shared_memory_offset", 0), size
