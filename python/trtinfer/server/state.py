"""Whether a server takes requests, and how many are under way over both protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from trtinfer.server.errors import UnavailableError
from trtinfer.server.repository import Repository

_CHECK = 0.02  # seconds


class ServerState:
    """The part of a server that both protocols ask and change. Use it on one event loop.

    Attributes:
        ready: What the readiness check answers.
        refusing: Whether new requests are refused.
        under_way: Requests that have no answer yet.
        owed: Requests of streams whose answer has not been written; a stream may be read slowly.
    """

    def __init__(self, repository: Repository, most: int) -> None:
        """Take requests, at most ``most`` at a time."""
        self._repository = repository
        self._most = most
        self._retired = False
        self.refusing = False
        self.under_way = 0
        self.owed = 0

    @property
    def ready(self) -> bool:
        """Whether clients should send requests here."""
        return not self._retired and self._repository.ready

    def begin(self) -> None:
        """Count a request that has come; `end` must follow.

        Raises:
            UnavailableError: There are too many, or the server is about to end.
        """
        if self.refusing:
            raise UnavailableError("the server is shutting down")
        if self.under_way >= self._most:
            raise UnavailableError(f"{self.under_way} requests are under way: try again later")
        self.under_way += 1

    def end(self) -> None:
        """Count off a request that has its answer."""
        self.under_way -= 1

    def retire(self) -> None:
        """Turn readiness off, for good."""
        self._retired = True

    async def finish(self, until: float, unsent: Callable[[], int]) -> int:
        """Refuse new requests and wait for those under way, and for answers that are ``unsent``.

        Returns:
            How many are left by then.
        """
        self.refusing = True
        loop = asyncio.get_running_loop()
        while (left := max(self.under_way, self.owed) + unsent()) and loop.time() < until:
            await asyncio.sleep(_CHECK)
        return left
