"""Bodies that are compressed, within bounds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from trtinfer.errors import InputError
from trtinfer.server.http.message import Buffer

_WINDOW = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_PART = 128 << 10  # bytes to read or to return at a time
_LEVEL = 1  # tensors hardly shrink, and time matters
#: Shorter bodies are sent as they are.
SMALLEST = 1024


def decompress(body: bytes | bytearray, encoding: bytes) -> Iterator[bytes]:
    """Yield what a body was before compression, some 100 KiB at a time.

    Raises:
        InputError: The encoding is unknown, or the data is damaged.
    """
    window = _WINDOW.get(encoding.lower())
    if window is None:
        raise InputError(f"the content encoding {encoding.decode('latin-1')!r} is not supported")
    reader = zlib.decompressobj(window)
    place = 0
    try:
        while place < len(body) and not reader.eof:
            part = bytes(memoryview(body)[place : place + _PART])
            place += len(part)
            full = False  # then the reader may hold back more
            while (part or full) and not reader.eof:
                data = reader.decompress(part, _PART)
                yield data
                part, full = reader.unconsumed_tail, len(data) == _PART
    except zlib.error as error:
        raise InputError(f"the body cannot be decompressed: {error}") from None
    if not reader.eof or reader.unused_data or place < len(body):
        raise InputError("the compressed body is truncated, or more follows it")


def choose(accepted: bytes) -> bytes | None:
    """Return an encoding that the client's Accept-Encoding names and that is known here."""
    for offer in accepted.lower().split(b","):
        name, _, quality = offer.partition(b";")
        if name.strip() in _WINDOW and quality.strip().replace(b" ", b"") not in (b"q=0", b"q=0.0"):
            return name.strip()
    return None


def compress(parts: tuple[Buffer, ...], encoding: bytes) -> bytes:
    """Return the parts of a body, compressed."""
    writer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[encoding])
    return b"".join([writer.compress(part) for part in parts] + [writer.flush()])
