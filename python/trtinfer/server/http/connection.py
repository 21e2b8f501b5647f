"""One connection of a client: requests to the application, responses out in order."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import cast

from trtinfer import _core
from trtinfer.server.errors import UnavailableError
from trtinfer.server.http.connections import Connections
from trtinfer.server.http.message import Head, Request, Response
from trtinfer.server.http.reader import RequestReader
from trtinfer.server.slot_body import SlotBody

_MAX_PIPELINED = 64  # requests that wait for the answer to the one before
_LINGER = 2.0  # seconds that a refused client has to read why
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.BufferedProtocol):
    """Has requests read, and answers them one after the other.

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
        self._reader = RequestReader(
            self, connections.options, connections.tracer, connections.scratch
        )
        self._transport: asyncio.Transport
        self._requests: deque[Request] = deque()
        self._arrival = _core.LoopFuture(self._loop)  # of the next request, when none is under way
        self._task = self._loop.create_task(self._answer())
        self._held = 0  # bytes of bodies that are read, wait or are under way
        self._expects = False  # the client waits to be told to send the body
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
        self.hold(-self._held)
        self._reader.close()
        if self._drained is not None and not self._drained.done():
            self._drained.cancel()
        self._task.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put the bytes that come next."""
        return self._reader.room

    def buffer_updated(self, size: int) -> None:
        """Have them read."""
        reader = self._reader
        reader.received(size)
        if reader.timeout is not None and not (self.busy or reader.closed):
            self.deadline = self._loop.time() + reader.timeout
            reader.timeout = None

    def eof_received(self) -> None:
        """Close, as the client did or will; what it asked for is taken back."""
        self._reader.end()

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

    # --- The reader's calls ---------------------------------------------------------------------

    def take(self, request: Request) -> None:
        """Have a request answered, or let it wait for the one before."""
        self._expects = False
        self._requests.append(request)
        if not self.busy:
            self.busy = True
            self._arrival.resolve()
            return
        self._pause_reading()
        if len(self._requests) > _MAX_PIPELINED:
            self._reader.refuse(429, "too many requests before an answer")

    def expect(self) -> None:
        """Tell the client to send a body, once it has its answers."""
        self._expects = True
        if not self.busy:
            self._tell_to_go_on()

    def claim(self, head: Head, part: memoryview) -> SlotBody | None:
        """Ask the application where the end of a long body may be read to."""
        return self._connections.claim(head, part)

    def hold(self, size: int) -> None:
        """Count bytes that a body has become longer, or shorter.

        Raises:
            UnavailableError: All bodies together are too many.
        """
        connections = self._connections
        self._held += size
        connections.held += size
        if size > 0 and connections.held > self._options.max_held_bytes:
            raise UnavailableError("the bodies of other requests take all memory: try again later")

    def refuse(self, status: int, reason: str) -> None:
        """Say why, after the answers that are still owed, and end the connection."""
        response = self._connections.refuse(status, reason)
        if self.busy:
            self._refusal = response
            return
        self._write(response.encode(keep_alive=False))
        self._stop_reading()

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
                self.hold(-request.size)
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
            if self._reader.closed or not keep_alive:
                self._stop_reading()
                return
            self._tell_to_go_on()
            self._arrival = _core.LoopFuture(self._loop)
            self._await_request()
            self._resume_reading()

    def _tell_to_go_on(self) -> None:
        if self._expects:
            self._expects = False
            self._write([_CONTINUE])

    def _await_request(self) -> None:
        """Start to wait for the next request, or for the rest of it."""
        reader = self._reader
        if not (self.busy or reader.closed):
            seconds = self._options.keep_alive if reader.timeout is None else reader.timeout
            self.deadline = self._loop.time() + seconds
            reader.timeout = None

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

    def _stop_reading(self) -> None:
        """Ignore what still comes, so that the answer is read before a reset."""
        self._reader.close()
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
        if self._reader.in_message and not (self.busy or self._reader.closed):
            self._reader.refuse(408, "the request did not come in time")
        else:
            self._transport.abort()
