"""Heads of requests that come again as they are, and need no parser then."""

from __future__ import annotations

from trtinfer.server.http.message import Head

#: Other heads in a row after which the last one takes the place of the one that is known, and after
#: which those of a client are taken to differ for good.
_LEAST, _MOST = 2, 8
#: Headers that change more than what a handler does with its request.
_CHANGES_MORE = (b"expect", b"transfer-encoding", b"upgrade")


class RepeatedHead:
    """A head that a client has sent. Most clients send the same one over and over.

    It is known again byte by byte, so nothing is read into bytes that the parser has not read into
    the same bytes before.

    Attributes:
        size: Bytes of the head; 0 while none is known.
        length: Bytes of the body that follows it.
        head: What it says.
    """

    def __init__(self) -> None:
        """Know none yet."""
        self.size = self.length = 0
        self.head = Head(b"", b"", b"", {}, True)
        self._text = b""
        self._others = 0

    def begins(self, data: memoryview) -> bool:
        """Return whether a request begins with the head."""
        if data[: self.size].tobytes() != self._text:
            return False
        self._others = 0
        return True

    def learn(self, data: memoryview, head: Head, body: bytes | bytearray) -> None:
        """Remember the head of the only request in these bytes, where that pays.

        Args:
            data: What was parsed.
            head: What that gave.
            body: As much of it as was in these bytes.
        """
        if self.size:
            self._others += 1
            if not _LEAST <= self._others <= _MOST:
                return
        whole = data.tobytes()
        end = whole.find(b"\r\n\r\n") + 4
        text = whole[:end]
        if text.count(b"\n") != text.count(b"\r\n") or whole[end:] != body:
            return  # the parser takes something else for ends of lines
        if head.keep_alive and not any(name in head.headers for name in _CHANGES_MORE):
            self._text, self.size, self.length, self.head = text, end, head.length, head
