"""Heads of requests that come again as they are, and need no parser then."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trtinfer.server.http.message import Request

#: Heads that are remembered in vain before those of a client are taken to differ for good.
_CHANCES = 8
#: Headers that change more than what a handler does with its request.
_CHANGES_MORE = (b"expect", b"transfer-encoding", b"upgrade")

_Parsed = tuple[bytes, bytes, bytes, Mapping[bytes, bytes]]


class RepeatedHead:
    """The head of a client's last request. Most clients send the same one over and over.

    It is known again byte by byte, together with the length of its request, so nothing is read
    into bytes that the parser has not read into the same bytes before.
    """

    def __init__(self) -> None:
        """Know none yet."""
        self._head = b""
        self._size = 0  # bytes of the whole request
        self._parsed: _Parsed = (b"", b"", b"", {})
        self._chances = _CHANCES

    def request(self, data: memoryview, size: int, hold: Callable[[int], None]) -> Request | None:
        """Return the request that so many bytes are if its head is known, else None."""
        if size != self._size:
            return None
        end = len(self._head)
        if data[:end].tobytes() != self._head:
            return None
        self._chances = _CHANCES
        return Request(*self._parsed, data[end:size].tobytes(), hold)

    def learn(self, data: memoryview, request: Request) -> None:
        """Remember the head of the only request that was parsed of these bytes."""
        if self._chances == 0:
            return
        self._chances -= 1
        text, headers = data.tobytes(), request.headers
        end = text.find(b"\r\n\r\n") + 4
        head = text[:end]
        if head.count(b"\n") != head.count(b"\r\n"):
            return  # a parser may take others for ends of lines
        if any(name in headers for name in _CHANGES_MORE) or not request.keep_alive:
            return
        length = int(headers.get(b"content-length", b"0"))
        if length == len(text) - end and request.body == text[end:]:
            self._head, self._size = head, len(text)
            self._parsed = request.method, request.path, request.query, headers
