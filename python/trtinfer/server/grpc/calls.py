"""Every call goes through here: who may ask, what is counted, what went wrong."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from trtinfer.errors import InputError
from trtinfer.server.errors import status_of
from trtinfer.server.grpc.messages import PACKAGE, SERVICE, description, message
from trtinfer.server.settings import LogSettings

logger = logging.getLogger("trtinfer")

_Unary = Callable[[Any], Awaitable[Any]]
_Stream = Callable[[AsyncIterator[Any]], AsyncIterator[Any]]

_OPEN_CALLS = ("ServerLive", "ServerReady")


class Calls:
    """A table of handlers by the names of inference.proto.

    Attributes:
        responses: How many calls ended, by the name of their status.
    """

    def __init__(self, token: str | None, log: LogSettings) -> None:
        """Start without any.

        Args:
            token: What callers must send as the metadata "authorization: Bearer"; None: nothing.
            log: Says whether every call is logged.
        """
        self.responses: Counter[str] = Counter()
        self._log = log
        self._token = None if token is None else f"Bearer {token}".encode()
        (service,) = description().service
        self._types = {call.name: (call.input_type, call.output_type) for call in service.method}
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    def add(self, name: str, handler: _Unary) -> None:
        """Add a call with one request and one response."""
        read, write = self._codec(name)

        async def answer(received: bytes, context: Any) -> Any:
            try:
                self._check_token(name, context)
                response = await handler(read(received))
            except Exception as error:
                return await self._abort(name, context, error)
            except asyncio.CancelledError:
                self._count(name, "CANCELLED")
                raise
            self._count(name, "OK")
            return response

        self._handlers[name] = grpc.unary_unary_rpc_method_handler(answer, None, write)

    def add_stream(self, name: str, handler: _Stream) -> None:
        """Add a call with streams both ways."""
        read, write = self._codec(name)

        async def answer(received: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            try:
                self._check_token(name, context)
                async for response in handler(read(data) async for data in received):
                    yield response
            except Exception as error:
                await self._abort(name, context, error)
            self._count(name, "OK")

        self._handlers[name] = grpc.stream_stream_rpc_method_handler(answer, None, write)

    def handler(self) -> Any:
        """Return what a gRPC server takes."""
        return grpc.method_handlers_generic_handler(SERVICE, self._handlers)

    def _codec(self, name: str) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
        """What reads a request and writes a response."""
        request, response = (
            message(kind.removeprefix(f".{PACKAGE}.")) for kind in self._types[name]
        )

        def read(received: bytes) -> Any:  # grpc itself would call a bad message UNKNOWN
            try:
                return request.FromString(received)
            except DecodeError as error:
                raise InputError(f"this is no {request.__name__}: {error}") from None

        return read, response.SerializeToString

    def _check_token(self, name: str, context: Any) -> None:
        if self._token is None or name in _OPEN_CALLS:
            return
        sent = dict(context.invocation_metadata()).get("authorization", "")
        if not hmac.compare_digest(str(sent).encode(), self._token):
            raise _UnauthenticatedError("a bearer token is needed")

    async def _abort(self, name: str, context: Any, error: Exception) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        status = status_of(error)
        code = "UNAUTHENTICATED" if isinstance(error, _UnauthenticatedError) else status.grpc
        self._count(name, code)
        if code == "INTERNAL":
            logger.error("a call failed", exc_info=error)
        await context.abort(grpc.StatusCode[code], str(error))

    def _count(self, name: str, code: str) -> None:
        self.responses[code] += 1
        if self._log.verbose:
            logger.debug("%s: %s", name, code)


class _UnauthenticatedError(Exception):
    """The caller did not send the token."""
