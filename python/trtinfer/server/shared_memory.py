"""Regions of this machine's shared memory that clients have registered.

Clients name them by key, as `shm_open` does; the server maps what the client made and never makes
or removes any itself.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtinfer.errors import InputError
from trtinfer.server.errors import NotAllowedError, NotFoundError

_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class Region:
    """A part of a shared memory object, mapped while anything uses it."""

    name: str
    key: str
    offset: int
    byte_size: int
    view: memoryview

    def describe(self) -> dict[str, Any]:
        """Return what the status call says of it."""
        return {
            "name": self.name,
            "key": self.key,
            "offset": self.offset,
            "byte_size": self.byte_size,
        }


class SharedMemory:
    """The registered regions. Use it on one event loop."""

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
        if not self._allowed:
            raise NotAllowedError("shared memory is off: start with --allow-shared-memory")
        if name in self._regions:
            raise InputError(f"the shared memory region {name!r} is registered already")
        self._regions[name] = Region(name, key, offset, byte_size, _map(key, offset, byte_size))

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all; unknown ones are none."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """Describe a region, or all.

        Raises:
            NotFoundError: It is not registered.
        """
        regions = [self._find(name)] if name else self._regions.values()
        return [region.describe() for region in regions]

    def read(self, name: str, offset: int, size: int) -> memoryview:
        """Return a view of a tensor's bytes.

        Raises:
            InputError: They are not within the region.
            NotFoundError: It is not registered.
        """
        return self._part(name, offset, size).toreadonly()

    def write(self, place: tuple[str, int, int], data: bytes | memoryview) -> dict[str, Any]:
        """Write a tensor's bytes and return the parameters that say so.

        Raises:
            InputError: They are not within the place that was asked for.
            NotFoundError: The region is not registered.
        """
        name, offset, size = place
        part = self._part(name, offset, size)
        if len(data) > size:
            raise InputError(f"an output of {len(data)} bytes has no room in {size} of {name!r}")
        part[: len(data)] = data
        return {
            "shared_memory_region": name,
            "shared_memory_offset": offset,
            "shared_memory_byte_size": len(data),
        }

    def _find(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise NotFoundError(f"the shared memory region {name!r} is not registered")
        return region

    def _part(self, name: str, offset: int, size: int) -> memoryview:
        region = self._find(name)
        if offset + size > region.byte_size:
            raise InputError(
                f"{size} bytes from {offset} are not within the {region.byte_size} of {name!r}"
            )
        return region.view[offset : offset + size]


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
