"""Regions of a GPU's memory that clients have made and registered by their CUDA IPC handles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trtinfer import _core
from trtinfer.errors import BackendError, InputError
from trtinfer.server.datatypes import BYTES, dtype_of
from trtinfer.server.tensors import DeviceTensor, Tensor, checked_size
from trtinfer.types import ELEMENT_TYPES


@dataclass(frozen=True)
class CudaRegion:
    """The first bytes of an allocation on a GPU, open while anything uses it.

    Attributes:
        name: What clients call it.
        device: The number of its GPU.
        byte_size: How many bytes clients may use.
        memory: What they lie in.
    """

    name: str
    device: int
    byte_size: int
    memory: _core.IpcMemory

    @classmethod
    def open(cls, name: str, handle: bytes, device: int, byte_size: int) -> CudaRegion:
        """Open what a client made; it must be another process.

        Raises:
            InputError: There is no such memory, or no GPU.
        """
        probe = _core.probe_cuda()
        if device >= len(probe.devices):
            reason = probe.reason or f"this machine has {len(probe.devices)} of them"
            raise InputError(f"the memory of GPU {device} cannot be used: {reason}")
        try:
            memory = _core.IpcMemory(handle, device)
        except BackendError as error:
            raise InputError(f"the handle of {name!r} opens nothing: {error}") from None
        if not 0 < byte_size <= memory.byte_size:
            raise InputError(f"{byte_size} bytes are not within the {memory.byte_size} of {name!r}")
        return cls(name, device, byte_size, memory)

    def describe(self) -> dict[str, Any]:
        """Return what the status call says of it."""
        return {"name": self.name, "device_id": self.device, "byte_size": self.byte_size}

    def tensor(
        self, name: str, datatype: str, shape: Sequence[int], place: tuple[int, int]
    ) -> Tensor | DeviceTensor:
        """Return the tensor at an offset, of a size; numbers are read where they lie.

        Raises:
            InputError: The shape, the datatype and the size do not agree.
        """
        offset, size = place
        if datatype == BYTES:
            return Tensor.from_raw(name, datatype, shape, self.memory.read(offset, size))
        checked_size(name, datatype, shape, size)
        element_type = ELEMENT_TYPES[dtype_of(datatype)]
        return DeviceTensor(
            name,
            datatype,
            tuple(shape),
            lambda dimensions: self.memory.tensor(offset, element_type, dimensions),
        )

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Copy bytes to an offset; they are there when this returns."""
        self.memory.write(offset, data)
