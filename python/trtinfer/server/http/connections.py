"""All connections of a server: how many, until when, how much they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from trtinfer.server.http.message import Head, Request, Response
from trtinfer.server.options import ServerOptions
from trtinfer.server.slot_body import SlotBody
from trtinfer.server.tracing import Tracer

Application = Callable[[Request], Awaitable[Response]]
#: Takes the head of a request and the part of its body that has come.
Claim = Callable[[Head, memoryview], SlotBody | None]
#: Makes a response of an error that the application raised, or of a refusal of the connection.
Refuse = Callable[[int, str], Response]

_SWEEP = 0.5  # seconds between two looks at the deadlines
SCRATCH = 64 << 10  # bytes that are parsed at a time


class Member(Protocol):
    """A connection, as far as others look at it.

    Attributes:
        deadline: When the loop's clock ends it.
        busy: Whether a request is under way.
        sends: Whether the client has yet to take what was written.
    """

    deadline: float
    busy: bool

    @property
    def sends(self) -> bool:
        """Whether the client has yet to take what was written."""

    def close(self) -> None:
        """End once what was written has gone out."""

    def expire(self) -> None:
        """End: the deadline has passed."""


class Connections:
    """All connections of a server, and what they share.

    Attributes:
        options: The server's.
        loop: The running loop.
        application: What answers requests; raises nothing but cancellation.
        claim: Says where else the end of a long body may be read to.
        refuse: Makes a response of a status code and a reason.
        tracer: Says whether anything is traced.
        draining: Whether connections end once what they have received whole is answered.
        held: Bytes of all bodies in memory.
        scratch: Where bytes are read that are parsed at once.
    """

    def __init__(
        self,
        options: ServerOptions,
        application: Application,
        claim: Claim,
        refuse: Refuse,
        tracer: Tracer,
    ) -> None:
        """Start to look after deadlines, on the running loop."""
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.application = application
        self.claim = claim
        self.refuse = refuse
        self.tracer = tracer
        self.draining = False
        self.held = 0
        self.scratch = memoryview(bytearray(SCRATCH))
        self._open: set[Member] = set()
        self._sweeper = self.loop.call_later(_SWEEP, self._sweep)

    def add(self, connection: Member) -> bool:
        """Return whether there is room for a connection; if so, look after it."""
        if len(self._open) >= self.options.max_connections:
            return False
        self._open.add(connection)
        return True

    def remove(self, connection: Member) -> None:
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
