"""Every request goes through here: who may ask, what is compressed, what went wrong."""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import orjson

from trtinfer.errors import InputError, TrtInferError
from trtinfer.server.errors import status_of
from trtinfer.server.http import compression
from trtinfer.server.http.message import Head, Request, Response
from trtinfer.server.http.page import PATHS
from trtinfer.server.http.routes import MethodError, Routes
from trtinfer.server.options import ServerOptions
from trtinfer.server.settings import LogSettings
from trtinfer.server.slot_body import SlotBody
from trtinfer.server.state import ServerState

logger = logging.getLogger("trtinfer")

Result = TypeVar("Result")

_OPEN_PATHS = frozenset({*PATHS, b"/v2/health/live", b"/v2/health/ready"})
#: Answered however busy the server is, and while it drains.
_UNCOUNTED_PATHS = frozenset({*_OPEN_PATHS, b"/metrics"})
_RETRY = (("Retry-After", "1"),)
_LARGE = 64 << 10  # bytes; compressing more would hold up the loop


class Application:
    """Answers requests; every one gets a response.

    Attributes:
        responses: How many there were, by status code.
    """

    def __init__(
        self, options: ServerOptions, routes: Routes, state: ServerState, log: LogSettings
    ) -> None:
        """Answer from a table of routes."""
        self.responses: Counter[int] = Counter()
        self._options = options
        self._routes = routes
        self._state = state
        self._log = log
        self._token = options.token.encode() if options.token is not None else None

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        try:
            handler = self._handler(request)
            if b"content-encoding" in request.headers:
                await self._decompress(request)
            if request.path in _UNCOUNTED_PATHS:
                response = await handler(request)
            else:
                self._state.begin()
                try:
                    response = await handler(request)
                finally:
                    self._state.end()
            if b"accept-encoding" in request.headers:
                response = await _compressed(response, request.headers[b"accept-encoding"])
        except asyncio.CancelledError:
            raise
        except Exception as error:
            response = self._failure(error)
        self.responses[response.status] += 1
        if self._log.verbose:
            where = (request.method.decode(), request.path.decode("latin-1"))
            logger.debug("%s %s: %d", *where, response.status)
        return response

    def claim(self, head: Head, part: memoryview) -> SlotBody | None:
        """Return where the end of a body may be read to; None: to memory of its own.

        Args:
            head: Of the request.
            part: Of the body, that has come.
        """
        if b"content-encoding" in head.headers:
            return None
        if not self._has_token(head.path, head.headers):
            return None
        try:
            claim = self._routes.find_claim(head.method, head.path)
            return None if claim is None else claim(head, part)
        except TrtInferError:  # which answering it will say
            return None

    def refuse(self, status: int, reason: str) -> Response:
        """Make the response to what never became a request, and count it."""
        self.responses[status] += 1
        return failure(status, reason)

    def _handler(self, request: Request) -> Callable[[Request], Awaitable[Response]]:
        if not self._has_token(request.path, request.headers):
            return _refuse_token
        return self._routes.find(request.method, request.path)

    def _has_token(self, path: bytes, headers: Mapping[bytes, bytes]) -> bool:
        if self._token is None or path in _OPEN_PATHS:
            return True
        sent = headers.get(b"authorization", b"")
        return hmac.compare_digest(sent, b"Bearer " + self._token)

    async def _decompress(self, request: Request) -> None:
        encoding = request.headers[b"content-encoding"].lower()
        if encoding == b"identity":
            return
        most, sent = self._options.max_body_bytes, len(request.body)
        body = bytearray()
        more = functools.partial(next, compression.decompress(request.body, encoding), None)
        try:
            while (part := await _maybe_off_loop(sent + len(body), more)) is not None:
                body += part
                request.hold(len(part))
                if len(body) > most:
                    raise InputError(f"the body is more than {most} bytes when decompressed")
        except Exception:  # a cancellation comes from a connection that holds nothing any more
            request.hold(-len(body))
            raise
        request.hold(-sent)
        request.body = body

    def _failure(self, error: Exception) -> Response:
        if isinstance(error, MethodError):
            return failure(405, str(error), (("Allow", error.allowed),))
        status = status_of(error).http
        if status == 500:
            logger.error("a request failed", exc_info=error)
        return failure(status, str(error), _RETRY if status == 503 else ())


async def _refuse_token(request: Request) -> Response:
    return failure(401, "a bearer token is needed", (("WWW-Authenticate", "Bearer"),))


def failure(status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return the response that tells a client what is wrong."""
    return Response(status, (orjson.dumps({"error": reason}),), headers=headers)


async def _compressed(response: Response, accepted: bytes) -> Response:
    size = sum(map(len, response.body))
    encoding = compression.choose(accepted) if size >= compression.SMALLEST else None
    if encoding is None:
        return response
    body = await _maybe_off_loop(size, lambda: compression.compress(response.body, encoding))
    headers = (*response.headers, ("Content-Encoding", encoding.decode()))
    return Response(response.status, (body,), response.content_type, headers, response.trace)


async def _maybe_off_loop(size: int, work: Callable[[], Result]) -> Result:
    return work() if size < _LARGE else await asyncio.to_thread(work)
