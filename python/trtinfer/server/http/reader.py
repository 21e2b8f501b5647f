"""Bytes of one client to whole requests, within limits."""

from __future__ import annotations

import time
from typing import Protocol

import httptools

from trtinfer import _core
from trtinfer.server.errors import UnavailableError
from trtinfer.server.http.message import Head, Request
from trtinfer.server.http.repeated_head import RepeatedHead
from trtinfer.server.options import ServerOptions
from trtinfer.server.slot_body import SlotBody
from trtinfer.server.tracing import Tracer

_MAX_HEADERS = 100
#: Left out where a request is parsed again; what expects to be told to go on has been.
_OFFER = frozenset({b"connection", b"expect", b"http2-settings", b"upgrade"})


class Taker(Protocol):
    """What a `RequestReader` tells of what it reads."""

    def take(self, request: Request) -> None:
        """A request is whole."""

    def expect(self) -> None:
        """The client waits to be told to send a body."""

    def claim(self, head: Head, part: memoryview) -> SlotBody | None:
        """A long body begins with this part; where else its end may be read to, if anywhere."""

    def hold(self, size: int) -> None:
        """A body has become longer.

        Raises:
            UnavailableError: All bodies together are too many.
        """

    def refuse(self, status: int, reason: str) -> None:
        """No more is read; this is why."""


class RequestReader:
    """Reads requests with httptools, and long bodies from the socket into their own memory.

    Attributes:
        room: Where to put the bytes that come next.
        in_message: Whether a request has begun and is not whole.
        closed: Whether what still comes is dropped.
        timeout: Seconds for the phase that begins with the bytes at hand; whoever acts on it sets
            it to None.
    """

    def __init__(
        self, taker: Taker, options: ServerOptions, tracer: Tracer, scratch: memoryview
    ) -> None:
        """Wait for the first request.

        Args:
            taker: Who gets the requests.
            options: The limits.
            tracer: Says whether requests note when they begin.
            scratch: Where bytes are put to be parsed at once; shared with other readers.
        """
        self._taker = taker
        self._options = options
        self._tracer = tracer
        self._scratch = self.room = scratch
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._slots: SlotBody | None = None
        self._began = 0
        self._repeated = RepeatedHead()
        self._messages = 0  # begun in the bytes that are parsed
        self._read: tuple[Head, bytes | bytearray] | None = None  # there: a head, and of its body
        self._head: Head  # of the long body that is read
        self._received = 0  # bytes since the last message ended
        self._header_bytes = 0
        self._in_headers = True
        self.in_message = False
        self.closed = False
        self.timeout: float | None = None

    def received(self, size: int) -> None:
        """Read bytes that were put there; refuse what is no HTTP."""
        if self.closed:
            return
        if self.room is not self._scratch:
            self._fill_body(size)
            return
        if not self._received and self._is_repeated(size):
            return
        was_within, self._messages = self._received > 0, 0
        self._received += size
        data = self._scratch[:size]
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._parse_without_offer(data, upgrade)
        except httptools.HttpParserUpgrade:
            self.close()  # the request itself is answered, and the connection then closed
        except httptools.HttpParserError as error:
            self.refuse(400, f"this is no HTTP/1.1 request: {error}")
        else:
            # Headers that have not ended; sizes of chunks, and headers after them, too.
            if self._received - 2 * len(self._body) > self._options.max_header_bytes:
                self._refuse_headers()
            elif self.in_message and not (self._in_headers or self.closed):
                head, part = self._parsed_head(), self._body
                self._make_room_for_body(head, memoryview(part))
                if self.room is not self._scratch:
                    self._read = head, part
                    self._parser = httptools.HttpRequestParser(self)  # the old one waits for more
            if self._read is not None and self._messages == 1 and not was_within:
                self._repeated.learn(data, *self._read)
        self._read = None

    def end(self) -> None:
        """Refuse a request that the client has ended within."""
        if self.in_message:
            self.refuse(400, "the connection ended within a request")

    def close(self) -> None:
        """Drop what has come of a request, and what still comes."""
        self.closed = True
        self.room, self._body, self._slots = self._scratch, b"", None

    def _is_repeated(self, size: int) -> bool:
        """Return whether a request begins with the known head, and is whole or long: then take it.

        The parser and its calls would need three times as long.
        """
        known = self._repeated
        left = known.size + known.length - size  # of the body
        if known.size > size or (left != 0 and left < len(self._scratch)) or self._tracer.active:
            return False
        if not known.begins(self._scratch):
            return False
        part = self._scratch[known.size : size]
        self._began = 0
        self._hold(len(part))
        if self.closed:
            return True
        if left == 0:
            self._take(known.head, part.tobytes())
        else:
            self.in_message, self.timeout = True, self._options.body_timeout
            self._make_room_for_body(known.head, part)
        return True

    def _make_room_for_body(self, head: Head, part: memoryview) -> None:
        """Have the rest of a long body go past the parser, which would copy it twice.

        To slots where the taker has some for it, else to the body's own memory, which is asked for
        at once: a length costs address space, bytes cost memory.
        """
        length = head.length
        if length - len(part) < len(self._scratch):
            return
        self._slots = self._taker.claim(head, part)
        if self._slots is not None:
            start = length - len(self._slots)  # of the elements, behind JSON
            self._body, rest, room = bytes(part[:start]), part[start:], self._slots.room
        else:
            try:
                self._body, rest = _core.new_bytearray(length), part
            except MemoryError:
                self.refuse(503, "there is no memory for the body: try again later")
                return
            room = memoryview(self._body)
        room[: len(rest)] = rest
        self.room = room[len(rest) :]
        self._head = head

    def _fill_body(self, size: int) -> None:
        self.room = self.room[size:]
        self._hold(size)
        if not self.room:
            self.room = self._scratch
            self._take(self._head, self._body)

    def _parse_without_offer(
        self, data: bytes | memoryview, upgrade: httptools.HttpParserUpgrade
    ) -> None:
        """Parse a request that offers an upgrade again, as one that does not.

        Raises:
            HttpParserUpgrade: It is more than an offer.
        """
        while True:
            if self.closed or b"upgrade" not in self._headers:
                raise upgrade
            data = self._head_without_offer() + data[upgrade.args[0] :]
            self._parser = httptools.HttpRequestParser(self)
            self._received = len(data)
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as another:
                upgrade = another

    def _head_without_offer(self) -> bytes:
        """Return the head of the request that was parsed last, no longer than it came."""
        parser = self._parser
        line = b"%s %s HTTP/%s" % (
            parser.get_method(),
            self._target,
            parser.get_http_version().encode(),
        )
        headers = [b"%s:%s" % pair for pair in self._headers.items() if pair[0] not in _OFFER]
        headers.append(b"connection:" + (b"keep-alive" if parser.should_keep_alive() else b"close"))
        return b"\r\n".join((line, *headers, b"\r\n"))

    # --- The parser's calls ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Forget the last request."""
        self.in_message = True
        self._messages += 1
        self._target = b""
        self._headers = {}
        self._header_bytes = 0
        self._body, self._slots = b"", None
        self._began = time.monotonic_ns() if self._tracer.active else 0
        self.timeout = self._options.header_timeout

    def on_url(self, target: bytes) -> None:
        """Take a part of the request's target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those after a chunked body are dropped."""
        if not self._in_headers:
            return
        headers = self._headers
        headers[name.lower()] = value
        self._header_bytes += len(name) + len(value)
        if len(headers) > _MAX_HEADERS or self._header_bytes > self._options.max_header_bytes:
            self._refuse_headers()

    def on_headers_complete(self) -> None:
        """Refuse a body that is too long before it comes."""
        self._in_headers = False
        headers = self._headers
        if int(headers.get(b"content-length", b"0")) > self._options.max_body_bytes:
            self._refuse_body()
        elif not self.closed:
            if headers.get(b"expect", b"").lower() == b"100-continue":
                self._taker.expect()
            self.timeout = self._options.body_timeout

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        if self.closed:
            return
        if not self._body:
            self._body = part
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += part
        self._hold(len(part))
        if len(self._body) > self._options.max_body_bytes:
            self._refuse_body()

    def on_message_complete(self) -> None:
        """Hand the request over."""
        head, upgrade = self._parsed_head(), self._parser.should_upgrade()
        if self.closed or (upgrade and b"upgrade" in head.headers):
            self._end_message()
            return  # the parser leaves out the body of an offer: see _parse_without_offer
        self._read = head, self._body
        self._take(head, self._body)

    def _parsed_head(self) -> Head:
        parser = self._parser
        path, _, query = self._target.partition(b"?")
        keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        return Head(parser.get_method(), path, query, self._headers, keep_alive)

    def _take(self, head: Head, body: bytes | bytearray) -> None:
        method, path, query, headers, keep_alive = head
        hold, slots = self._taker.hold, self._slots
        self._end_message()
        self._taker.take(
            Request(method, path, query, headers, body, hold, keep_alive, self._began, slots)
        )

    def _end_message(self) -> None:
        self._in_headers = True
        self.in_message = False
        self.timeout = None
        self._received = 0
        self._body, self._slots = b"", None

    # --- Refusals -------------------------------------------------------------------------------

    def _hold(self, size: int) -> None:
        try:
            self._taker.hold(size)
        except UnavailableError as error:
            self.refuse(503, str(error))

    def _refuse_headers(self) -> None:
        most = self._options.max_header_bytes
        self.refuse(431, f"a request may have {_MAX_HEADERS} headers of {most} bytes together")

    def _refuse_body(self) -> None:
        self.refuse(413, f"a body may have {self._options.max_body_bytes} bytes")

    def refuse(self, status: int, reason: str) -> None:
        """Read no more, and have the client told why."""
        if not self.closed:
            self.close()
            self._taker.refuse(status, reason)
