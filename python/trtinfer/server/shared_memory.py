"""Regions of this machine's shared memory, and of its GPUs, that clients have registered.

Clients name them by key, as `shm_open` does, or by a handle of CUDA; the server maps what the
client made and never makes or removes any itself.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtinfer.errors import InputError
from trtinfer.server.cuda_memory import CudaRegion
from trtinfer.server.errors import NotAllowedError, NotFoundError
from trtinfer.server.tensors import DeviceTensor, Tensor

_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class SystemRegion:
    """A part of a shared memory object, mapped while anything uses it."""

    name: str
    key: str
    offset: int
    byte_size: int
    view: memoryview

    @classmethod
    def open(cls, name: str, key: str, offset: int, byte_size: int) -> SystemRegion:
        """Map a part of the object that a client made.

        Raises:
            InputError: There is no such part.
        """
        return cls(name, key, offset, byte_size, _map(key, offset, byte_size))

    def describe(self) -> dict[str, Any]:
        """Return what the status call says of it."""
        return {
            "name": self.name,
            "key": self.key,
            "offset": self.offset,
            "byte_size": self.byte_size,
        }

    def tensor(
        self, name: str, datatype: str, shape: Sequence[int], place: tuple[int, int]
    ) -> Tensor:
        """Return the tensor at an offset, of a size; it borrows the memory.

        Raises:
            InputError: The shape, the datatype and the size do not agree.
        """
        offset, size = place
        return Tensor.from_raw(
            name, datatype, shape, self.view[offset : offset + size].toreadonly()
        )

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Copy bytes to an offset."""
        self.view[offset : offset + len(data)] = data


Region = SystemRegion | CudaRegion


class SharedMemory:
    """The registered regions; those of both kinds share their names. Use it on one event loop."""

    def __init__(self, allowed: bool) -> None:
        """Start without regions.

        Args:
            allowed: False to refuse every registration.
        """
        self._allowed = allowed
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map a part of the object that a client made.

        Raises:
            InputError: The name is taken, or there is no such part.
            NotAllowedError: The server was started without shared memory.
        """
        self._check_new(name)
        self._regions[name] = SystemRegion.open(name, key, offset, byte_size)

    def register_cuda(self, name: str, handle: bytes, device: int, byte_size: int) -> None:
        """Open memory of a GPU that a client made.

        Raises:
            InputError: The name is taken, or there is no such memory, or no GPU.
            NotAllowedError: The server was started without shared memory.
        """
        self._check_new(name)
        self._regions[name] = CudaRegion.open(name, handle, device, byte_size)

    def unregister(self, kind: type[Region], name: str = "") -> None:
        """Forget a region, or all of a kind; unknown ones are none."""
        for region in self._of_kind(kind):
            if name in ("", region.name):
                del self._regions[region.name]

    def status(self, kind: type[Region], name: str = "") -> list[dict[str, Any]]:
        """Describe a region, or all of a kind.

        Raises:
            NotFoundError: It is not registered.
        """
        found = [region for region in self._of_kind(kind) if name in ("", region.name)]
        if name and not found:
            raise _unknown(name)
        return [region.describe() for region in found]

    def read(
        self, name: str, datatype: str, shape: Sequence[int], place: tuple[str, int, int]
    ) -> Tensor | DeviceTensor:
        """Return a tensor; it borrows the memory.

        Raises:
            InputError: It is not within the region, or its shape and size do not agree.
            NotFoundError: The region is not registered.
        """
        return self._region(place).tensor(name, datatype, shape, place[1:])

    def write(self, place: tuple[str, int, int], data: bytes | memoryview) -> dict[str, Any]:
        """Write a tensor's bytes and return the parameters that say so.

        Raises:
            InputError: They are not within the place that was asked for.
            NotFoundError: The region is not registered.
        """
        name, offset, size = place
        region = self._region(place)
        if len(data) > size:
            raise InputError(f"an output of {len(data)} bytes has no room in {size} of {name!r}")
        region.write(offset, data)
        return {
            "shared_memory_region": name,
            "shared_memory_offset": offset,
            "shared_memory_byte_size": len(data),
        }

    def _check_new(self, name: str) -> None:
        if not self._allowed:
            raise NotAllowedError("shared memory is off: start with --allow-shared-memory")
        if not name:
            raise InputError("a shared memory region needs a name")
        if name in self._regions:
            raise InputError(f"the shared memory region {name!r} is registered already")

    def _of_kind(self, kind: type[Region]) -> list[Region]:
        return [region for region in self._regions.values() if isinstance(region, kind)]

    def _region(self, place: tuple[str, int, int]) -> Region:
        name, offset, size = place
        region = self._regions.get(name)
        if region is None:
            raise _unknown(name)
        if offset + size > region.byte_size:
            raise InputError(
                f"{size} bytes from {offset} are not within the {region.byte_size} of {name!r}"
            )
        return region


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"the shared memory region {name!r} is not registered")


def _map(key: str, offset: int, byte_size: int) -> memoryview:
    """Map a part of a shared memory object; the key is a name, never a path."""
    name = key.removeprefix("/")
    if not name or "/" in name or name in (".", "..") or "\0" in name:
        raise InputError(f"{key!r} is no key of shared memory")
    try:
        descriptor = os.open(_FOLDER / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"the shared memory {key!r} cannot be opened: {error.strerror}") from None
    try:
        size = os.fstat(descriptor).st_size
        if not 0 < byte_size <= size - offset:
            raise InputError(
                f"{byte_size} bytes from {offset} are not within the {size} of {key!r}"
            )
        return memoryview(mmap.mmap(descriptor, offset + byte_size))[offset:]
    finally:
        os.close(descriptor)
