"""A request and a response of HTTP, free of everything that connections do with them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

from trtinfer.server.slot_body import SlotBody
from trtinfer.server.trace import Trace

Buffer = bytes | memoryview

JSON, BINARY = "application/json", "application/octet-stream"

_LARGEST_JOINED = 64 << 10  # bytes; up to here one write of a copy is cheaper than several

_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Head(NamedTuple):
    """What is known of a request before its body.

    Attributes:
        method: As b"GET".
        path: Of the target, still quoted.
        query: What follows the question mark.
        headers: By lower-case name.
        keep_alive: Whether the client may send another request on the connection.
    """

    method: bytes
    path: bytes
    query: bytes
    headers: Mapping[bytes, bytes]
    keep_alive: bool

    @property
    def length(self) -> int:
        """Bytes of the body; 0 where they are not told beforehand."""
        return int(self.headers.get(b"content-length", b"0"))


@dataclass(slots=True)
class Request:
    """A whole request.

    Attributes:
        method: As b"GET".
        path: Of the target, still quoted.
        query: What follows the question mark.
        headers: By lower-case name.
        body: All of it, but for what lies in slots.
        hold: Counts bytes that the body has become more, or fewer; refuses more than is allowed.
        keep_alive: Whether the client may send another request on the connection.
        began: When its first byte came, as traces count time; 0 while nothing is traced.
        slots: What of the body was read into slots: its end.
    """

    method: bytes
    path: bytes
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes | bytearray
    hold: Callable[[int], None]
    keep_alive: bool = True
    began: int = 0
    slots: SlotBody | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return len(self.body) + (0 if self.slots is None else len(self.slots))

    def parameters(self) -> dict[str, str]:
        """Return the query's parameters; of several of one name, the last."""
        return dict(parse_qsl(self.query.decode("latin-1"), keep_blank_values=True))


@dataclass(slots=True)
class Response:
    """A response.

    Attributes:
        status: The code.
        body: Its parts in order.
        content_type: Of the body.
        headers: Further ones.
        trace: Of the request, if it is traced; ends when the response is sent.
    """

    status: int = 200
    body: tuple[Buffer, ...] = ()
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = field(default=())
    trace: Trace | None = None

    def encode(self, keep_alive: bool, with_body: bool = True) -> list[Buffer]:
        """Return what to write to the connection.

        Args:
            keep_alive: Whether the connection stays open.
            with_body: False to leave out the body, not its length, as HEAD wants it.
        """
        length = sum(map(len, self.body))
        head = _head(self.status, self.content_type, length, self.headers, keep_alive)
        if not with_body:
            return [head]
        if length <= _LARGEST_JOINED:
            return [b"".join((head, *self.body))]
        return [head, *self.body]


@functools.lru_cache(maxsize=1024)
def _head(
    status: int,
    content_type: str,
    length: int,
    headers: tuple[tuple[str, str], ...],
    keep_alive: bool,
) -> bytes:
    extra = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if not keep_alive:
        extra += "Connection: close\r\n"
    head = f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n{extra}\r\n"
    return _LINES[status] + head.encode("latin-1")
