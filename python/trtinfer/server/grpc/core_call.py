"""One call of a `CoreServer`: messages in, messages and a status out."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc

from trtinfer.server.grpc.core_events import CoreEvents

logger = logging.getLogger("trtinfer")

_NO_FLAGS = 0


class Call:
    """A call under way; the context that its handler gets. Use it on one event loop."""

    def __init__(
        self, event: Any, handler: Any, events: CoreEvents, ended: Callable[[Call], None]
    ) -> None:
        """Serve a call that has arrived.

        Args:
            event: The core's, of the arrival.
            handler: The `grpc.RpcMethodHandler` of its method.
            events: What takes its operations.
            ended: Called once the client has all, or is gone.
        """
        self._core = event.call
        self._metadata = event.invocation_metadata
        self._handler = handler
        self._events = events
        self._ended = ended
        self._status = (cygrpc.StatusCode.ok, b"")
        self._begun = False  # whether initial metadata has been sent
        self._gone = False
        self._task: asyncio.Task[None] | None = None
        self._start(self._on_end, cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS))
        if handler.request_streaming:
            self._serve(None)
        else:
            self._start(self._on_request, cygrpc.ReceiveMessageOperation(_NO_FLAGS))

    # --- What handlers see ------------------------------------------------------------------------

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Return what the client sent beside its messages: pairs of name and value."""
        metadata: Sequence[tuple[str, str | bytes]] = self._metadata
        return metadata

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        """End the call with a status.

        Raises:
            AbortError: Always.
        """
        self._status = (code.value[0], details.encode())
        raise grpc.aio.AbortError

    async def write(self, response: Any) -> None:
        """Send one message of several; returns when there is room for the next.

        Raises:
            CancelledError: The client is gone.
        """
        event = await self._done(*self._beginning(), self._message(response))
        if not event.success:
            raise asyncio.CancelledError

    # --- Serving ----------------------------------------------------------------------------------

    def _serve(self, request: bytes | None) -> None:
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: bytes | None) -> None:
        last: tuple[Any, ...] = ()
        try:
            if self._handler.response_streaming:
                await self._write_all(request)
            else:
                last = (self._message(await self._handler.unary_unary(self._read(request), self)),)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            self._status = (cygrpc.StatusCode.cancelled, b"")
        except Exception as error:
            logger.exception("a handler of a gRPC call failed")
            self._status = (cygrpc.StatusCode.unknown, f"{type(error).__name__}: {error}".encode())
        self._end(*last)

    async def _write_all(self, request: bytes | None) -> None:
        """Send what a handler yields, or let it write for itself."""
        handler = self._handler
        if handler.request_streaming:
            responses = handler.stream_stream(self._requests(), self)
        else:
            responses = handler.unary_stream(self._read(request), self)
        if not hasattr(responses, "__aiter__"):
            await responses
            return
        async for response in responses:
            await self.write(response)

    async def _requests(self) -> AsyncIterator[Any]:
        while True:
            event = await self._done(cygrpc.ReceiveMessageOperation(_NO_FLAGS))
            request = _message_of(event)
            if request is None:
                return
            yield self._read(request)

    def _on_request(self, event: Any) -> None:
        request = _message_of(event)
        if self._gone:
            return
        if request is not None:
            self._serve(request)
        else:
            self._status = (cygrpc.StatusCode.unimplemented, b"exactly one request is needed")
            self._end()

    def _on_end(self, event: Any) -> None:
        self._ended(self)
        if event.batch_operations[0].cancelled():
            self._gone = True
            if self._task is not None:
                self._task.cancel()

    # --- Operations of the core -------------------------------------------------------------------

    def _start(self, tag: Callable[[Any], object], *operations: Any) -> bool:
        return self._events.start(self._core, operations, tag)

    async def _done(self, *operations: Any) -> Any:
        """Wait for operations and return their event.

        Raises:
            CancelledError: It is too late for them.
        """
        done = asyncio.get_running_loop().create_future()
        if not self._start(functools.partial(_resolve, done), *operations):
            raise asyncio.CancelledError
        return await done

    def _end(self, *last: Any) -> None:
        """Send the status, behind a last message."""
        if not self._gone:
            status = cygrpc.SendStatusFromServerOperation((), *self._status, _NO_FLAGS)
            self._start(_ignore, *self._beginning(), *last, status)

    def _beginning(self) -> tuple[Any, ...]:
        """What goes before everything else, once."""
        if self._begun:
            return ()
        self._begun = True
        return (cygrpc.SendInitialMetadataOperation((), _NO_FLAGS),)

    def _message(self, response: Any) -> Any:
        write = self._handler.response_serializer
        data = response if write is None else write(response)
        return cygrpc.SendMessageOperation(data, _NO_FLAGS)

    def _read(self, request: bytes | None) -> Any:
        read = self._handler.request_deserializer
        return request if read is None else read(request)


def refuse(event: Any, events: CoreEvents, code: Any, details: bytes) -> None:
    """Answer a call that has arrived with a status only."""
    operations = (
        cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),
        cygrpc.SendInitialMetadataOperation((), _NO_FLAGS),
        cygrpc.SendStatusFromServerOperation((), code, details, _NO_FLAGS),
    )
    events.start(event.call, operations, _ignore)


def _message_of(event: Any) -> bytes | None:
    """Return the message that has come; None: there is none any more."""
    message: bytes | None = event.batch_operations[0].message()
    return message


def _resolve(future: asyncio.Future[Any], event: Any) -> None:
    if not future.done():
        future.set_result(event)


def _ignore(event: Any) -> None:
    """Nothing waits for it."""
