"""One connection of a client: bytes in, requests to the application, responses out in order."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from trtinfer import _core
from trtinfer.server.errors import UnavailableError
from trtinfer.server.http.message import Request, Response
from trtinfer.server.options import ServerOptions
from trtinfer.server.tracing import Tracer

logger = logging.getLogger("trtinfer")

Application = Callable[[Request], Awaitable[Response]]
#: Makes a response of an error that the application raised, or of a refusal of the connection.
Refuse = Callable[[int, str], Response]

_MAX_HEADERS = 100
_MAX_PIPELINED = 64  # requests that wait for the answer to the one before
_LINGER = 2.0  # seconds that a refused client has to read why
_SWEEP = 0.5  # seconds between two looks at the deadlines
_NO_ROOM = "the bodies of other requests take all memory: try again later"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Left out where a request is parsed again; what expects to be told to go on has been.
_OFFER = frozenset({b"connection", b"expect", b"http2-settings", b"upgrade"})


class Connection(asyncio.Protocol):
    """Reads requests with httptools and answers them one after the other.

    What a client may cost is bounded: bytes of headers and body, seconds for each phase, one
    request under way at a time; while one is, no more is read.

    A task for each connection answers, run by the parser's call that ends a request. A task for
    each request, scheduled by the loop, would cost more than parsing.

    Attributes:
        deadline: When the loop's clock ends the connection; `Connections` looks at it.
        busy: Whether a request is under way.
    """

    def __init__(self, connections: Connections) -> None:
        """Wait for the transport."""
        self._connections = connections
        self._options = connections.options
        self._loop = connections.loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._requests: deque[Request] = deque()
        self._arrival = _core.LoopFuture(self._loop)  # of the next request, when none is under way
        self._task = self._loop.create_task(self._answer())
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._began = 0
        self._received = 0  # bytes since the last message ended
        self._header_bytes = 0
        self._in_headers = True
        self._in_message = False
        self._timeout: float | None = None  # of the phase that begins with the bytes at hand
        self._held = 0  # bytes of bodies that are read, wait or are under way
        self._expects = False  # the client waits to be told to send the body
        self._refused = False
        self._refusal: Response | None = None  # to be sent after the answers that are owed
        self._paused = False
        self._drained: asyncio.Future[None] | None = None
        self.deadline = math.inf
        self.busy = False

    # --- The transport's calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, unless there are too many connections."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing
        self.deadline = self._loop.time() + self._options.keep_alive
        if not self._connections.add(self):
            self._write(self._connections.refuse(503, "too many connections").encode(False))
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Take back what is under way."""
        self.deadline = math.inf
        self._connections.remove(self)
        self._hold(-self._held)
        if self._drained is not None and not self._drained.done():
            self._drained.cancel()
        self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse; refuse what is no HTTP."""
        if self._refused:
            return
        self._received += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserUpgrade:
            self._stop_reading()  # the request itself is answered, and the connection then closed
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is no HTTP/1.1 request: {error}")
        else:
            if self._timeout is not None and not (self.busy or self._refused):
                self.deadline = self._loop.time() + self._timeout
                self._timeout = None
            # Headers that have not ended; sizes of chunks, and headers after them, too.
            if self._received - 2 * len(self._body) > self._options.max_header_bytes:
                self._refuse_headers()

    def eof_received(self) -> None:
        """Close, as the client did or will; what it asked for is taken back."""
        if self._in_message:
            self._refuse(400, "the connection ended within a request")

    def pause_writing(self) -> None:
        """Note that the client does not take its answers."""
        self._drained = self._loop.create_future()
        self.deadline = self._loop.time() + self._options.write_timeout

    def resume_writing(self) -> None:
        """Go on with the next answer."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None
        self._await_request()

    def _parse(self, data: bytes) -> None:
        """Parse; a request that offers an upgrade is parsed again as one that does not."""
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._refused or b"upgrade" not in self._headers:
                    raise
                data = self._head_without_offer() + data[upgrade.args[0] :]
            self._parser = httptools.HttpRequestParser(self)
            self._received = len(data)

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
        self._in_message = True
        self._target = b""
        self._headers = {}
        self._header_bytes = 0
        self._body = b""
        self._began = time.monotonic_ns() if self._connections.tracer.active else 0
        self._timeout = self._options.header_timeout

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
        elif not self._refused:
            if headers.get(b"expect", b"").lower() == b"100-continue":
                self._expects = True
                if not self.busy:
                    self._tell_to_go_on()
            self._timeout = self._options.body_timeout

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        if self._refused:
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
        elif self._connections.held > self._options.max_held_bytes:
            self._refuse(503, _NO_ROOM)

    def on_message_complete(self) -> None:
        """Hand the request to the application, or let it wait for the one before."""
        self._in_headers = True
        self._in_message = False
        self._timeout = None
        self._received = 0
        parser = self._parser
        upgrade = parser.should_upgrade()
        if self._refused or (upgrade and b"upgrade" in self._headers):
            return  # the parser leaves out the body of an offer: see _parse
        self._expects = False
        path, _, query = self._target.partition(b"?")
        keep_alive = parser.should_keep_alive() and not upgrade
        method = parser.get_method()
        self._requests.append(
            Request(
                method,
                path,
                query,
                self._headers,
                self._body,
                self._hold_within_limit,
                keep_alive,
                self._began,
            )
        )
        self._body = b""
        if not self.busy:
            self.busy = True
            self._arrival.resolve()
            return
        self._pause_reading()
        if len(self._requests) > _MAX_PIPELINED:
            self._refuse(429, "too many requests before an answer")

    # --- Answers --------------------------------------------------------------------------------

    async def _answer(self) -> None:
        """Answer requests one after the other, as they come."""
        while True:
            await self._arrival
            self.deadline = math.inf
            keep_alive = True
            while self._requests and keep_alive:
                request = self._requests.popleft()
                response = await self._connections.application(request)
                owes = bool(self._requests) or self._refusal is not None
                keep_alive = request.keep_alive and (owes or not self._connections.draining)
                self._hold(-len(request.body))
                self._write(response.encode(keep_alive, request.method != b"HEAD"))
                if self._drained is not None:
                    await self._drained
                    self.deadline = math.inf
                if response.trace is not None:
                    response.trace.note("HTTP_SEND_END")
                    response.trace.end()
                del request, response  # or a connection would keep their bodies until the next
            self.busy = False
            if keep_alive and self._refusal is not None:
                self._write(self._refusal.encode(keep_alive=False))
            if self._refused or not keep_alive:
                self._stop_reading()
                return
            self._tell_to_go_on()
            self._arrival = _core.LoopFuture(self._loop)
            self._await_request()
            self._resume_reading()

    def _hold(self, size: int) -> None:
        self._held += size
        self._connections.held += size

    def _hold_within_limit(self, size: int) -> None:
        """Count bytes that a body has become more, or fewer.

        Raises:
            UnavailableError: All bodies together are too many.
        """
        self._hold(size)
        if size > 0 and self._connections.held > self._options.max_held_bytes:
            raise UnavailableError(_NO_ROOM)

    def _tell_to_go_on(self) -> None:
        if self._expects:
            self._expects = False
            self._write([_CONTINUE])

    def _await_request(self) -> None:
        """Start to wait for the next request, or for the rest of it."""
        if not (self.busy or self._refused):
            seconds = self._options.keep_alive if self._timeout is None else self._timeout
            self.deadline = self._loop.time() + seconds
            self._timeout = None

    def _write(self, buffers: list[bytes | memoryview]) -> None:
        if not self._transport.is_closing():
            self._transport.writelines(buffers)

    # --- Ends -----------------------------------------------------------------------------------

    def _pause_reading(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _refuse_headers(self) -> None:
        most = self._options.max_header_bytes
        self._refuse(431, f"a request may have {_MAX_HEADERS} headers of {most} bytes together")

    def _refuse_body(self) -> None:
        self._refuse(413, f"a body may have {self._options.max_body_bytes} bytes")

    def _refuse(self, status: int, reason: str) -> None:
        """Say why, after the answers that are still owed, and end the connection."""
        if self._refused:
            return
        self._refused = True
        response = self._connections.refuse(status, reason)
        if self.busy:
            self._refusal = response
            return
        self._write(response.encode(keep_alive=False))
        self._stop_reading()

    def _stop_reading(self) -> None:
        """Ignore what still comes, so that the answer is read before a reset."""
        self._refused = True
        if self.busy or self._transport.is_closing():
            return
        self._resume_reading()
        sent = self._transport.get_write_buffer_size() == 0
        self.deadline = self._loop.time() + (_LINGER if sent else self._options.write_timeout)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    @property
    def sends(self) -> bool:
        """Whether the client has yet to take what was written."""
        return self._transport.get_write_buffer_size() > 0

    def close(self) -> None:
        """End the connection once what was written has gone out."""
        self._transport.close()

    def expire(self) -> None:
        """End the connection, whose deadline has passed."""
        if self._in_message and not (self.busy or self._refused):
            self._refuse(408, "the request did not come in time")
        else:
            self._transport.abort()


class Connections:
    """All connections of a server, and what they share.

    Attributes:
        options: The server's.
        loop: The running loop.
        application: What answers requests; raises nothing but cancellation.
        refuse: Makes a response of a status code and a reason.
        tracer: Says whether anything is traced.
        draining: Whether connections end once what they have received whole is answered.
        held: Bytes of all bodies in memory.
    """

    def __init__(
        self, options: ServerOptions, application: Application, refuse: Refuse, tracer: Tracer
    ) -> None:
        """Start to look after deadlines, on the running loop."""
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.application = application
        self.refuse = refuse
        self.tracer = tracer
        self.draining = False
        self.held = 0
        self._open: set[Connection] = set()
        self._sweeper = self.loop.call_later(_SWEEP, self._sweep)

    def add(self, connection: Connection) -> bool:
        """Return whether there is room for a connection; if so, look after it."""
        if len(self._open) >= self.options.max_connections:
            return False
        self._open.add(connection)
        return True

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._open.discard(connection)

    @property
    def busy(self) -> int:
        """The number of requests under way."""
        return sum(connection.busy for connection in self._open)

    @property
    def unsent(self) -> int:
        """The number of clients that have yet to take what was written."""
        return sum(connection.sends for connection in self._open)

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._open)

    def close(self) -> None:
        """End all connections."""
        self._sweeper.cancel()
        for connection in list(self._open):
            connection.close()

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in [c for c in self._open if c.deadline < now]:
            connection.expire()
        self._sweeper = self.loop.call_later(_SWEEP, self._sweep)
