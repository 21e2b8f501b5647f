"""The file of one cache entry: a header, the key, the data, and a checksum over both.

The header is little-endian: 8 bytes of magic, the format's version (uint32), the size of the key
(uint32) and of the data (uint64), and the sha256 of key and data. Plans are code, so a file that
others could have written is not read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from pathlib import Path
from typing import IO

from trtinfer import cache

#: Part of every key too; a change makes all that was written before unfindable.
FORMAT = 1

_MAGIC = b"trtinfer"
_HEADER = struct.Struct("<8sIIQ32s")
_NO_LINK_NO_WAIT = os.O_NOFOLLOW | os.O_NONBLOCK  # the latter for what is no file, as a FIFO


class DamagedFileError(Exception):
    """A file that is not what was once written there."""


class UnsafeFileError(Exception):
    """A file or folder that somebody else can write to."""


def write(path: Path, key: bytes, data: bytes) -> None:
    """Writes an entry whole or not at all; only its owner may read it.

    Raises:
        OSError: It cannot be written.
    """
    header = _HEADER.pack(_MAGIC, FORMAT, len(key), len(data), _checksum(key, data))
    cache.write(path, (header, key, data), 0o600)


def read(path: Path, key: bytes) -> bytes:
    """Reads the data of an entry.

    Raises:
        DamagedFileError: It is no whole entry of this format, or one of another key.
        UnsafeFileError: Others could have written it.
        OSError: It cannot be read.
    """
    with open(path, "rb", opener=_opener) as file:
        found, size, checksum = _read_start(file)
        if found != key:
            raise DamagedFileError("it belongs to another key")
        data = file.read(size)
    if _checksum(key, data) != checksum:
        raise DamagedFileError("its checksum is wrong")
    return data


def read_key(path: Path) -> bytes:
    """Reads the key of an entry, whose data is not checked; raises as `read`."""
    with open(path, "rb", opener=_opener) as file:
        return _read_start(file)[0]


def check_safe(status: os.stat_result) -> None:
    """Raises UnsafeFileError when others than this user and root can write a file or folder."""
    if status.st_uid not in (os.geteuid(), 0):
        raise UnsafeFileError(f"it belongs to user {status.st_uid}; plans are code")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeFileError("others may write to it, and plans are code; run chmod go-w on it")


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_LINK_NO_WAIT)


def _read_start(file: IO[bytes]) -> tuple[bytes, int, bytes]:
    """The key, the size of the data, and the checksum."""
    status = os.fstat(file.fileno())
    check_safe(status)
    start = file.read(_HEADER.size)
    if not stat.S_ISREG(status.st_mode) or len(start) < _HEADER.size:
        raise DamagedFileError("it is no entry of trtinfer's cache")
    magic, version, key_size, data_size, checksum = _HEADER.unpack(start)
    if magic != _MAGIC or version != FORMAT:
        raise DamagedFileError(f"it is no entry of trtinfer's cache, format {FORMAT}")
    expected = _HEADER.size + key_size + data_size
    if status.st_size != expected:  # before a damaged size is believed
        raise DamagedFileError(f"it has {status.st_size} bytes instead of {expected}")
    return file.read(key_size), data_size, checksum


def _checksum(key: bytes, data: bytes) -> bytes:
    digest = hashlib.sha256(key)
    digest.update(data)
    return digest.digest()
