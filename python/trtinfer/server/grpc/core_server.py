"""A gRPC server on grpcio's core, at half of what `grpc.aio` costs a call with the same core.

The core does HTTP/2, TLS, flow control, deadlines, compression and limits. `grpc.aio` goes round
the loop for each of a call's operations, with a thread that wakes the loop each time; here the loop
takes the core's events itself (`core_events.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
from grpc._cython import cygrpc

from trtinfer.server.grpc.core_call import Call, refuse
from trtinfer.server.grpc.core_events import CoreEvents

_WAITING = 64  # calls that the core may hand over before it hears from us again
_PATIENCE = 5.0  # seconds: reached only where the core is another one


class CoreServer:
    """The part of `grpc.aio.Server` that is used here. Use it on one event loop.

    It takes handlers with one request or a stream of them and one response or a stream; not one
    response to a stream of requests.
    """

    def __init__(self, options: Sequence[tuple[str, Any]], maximum_concurrent_rpcs: int) -> None:
        """Prepare to listen.

        Args:
            options: The core's channel arguments.
            maximum_concurrent_rpcs: Calls beyond are refused as RESOURCE_EXHAUSTED.
        """
        self._most = maximum_concurrent_rpcs
        self._finders: list[grpc.GenericRpcHandler] = []
        self._handlers: dict[bytes, Any] = {}
        self._calls: set[Call] = set()
        self._events = CoreEvents()
        self._server = cygrpc.Server(tuple(options), False)
        self._server.register_completion_queue(self._events.queue)

    def add_generic_rpc_handlers(self, finders: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add what finds a method's handler."""
        self._finders.extend(finders)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Do nothing: generated code adds the same handlers as generic ones."""

    def add_insecure_port(self, address: str) -> int:
        """Listen on "host:port" and return the port.

        Raises:
            RuntimeError: It is taken.
        """
        return _bound(address, self._server.add_http2_port(address.encode()))

    def add_secure_port(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Likewise, with TLS."""
        bound = self._server.add_http2_port(address.encode(), credentials._credentials)
        return _bound(address, bound)

    async def start(self) -> None:
        """Take calls."""
        self._server.start()
        for _ in range(_WAITING):
            self._request_call()
        self._events.open()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, wait for the others, cancel what is left after some seconds."""
        down = asyncio.get_running_loop().create_future()
        self._server.shutdown(self._events.queue, down.set_result)
        await asyncio.wait((down,), timeout=grace)
        if not down.done():
            self._server.cancel_all_calls()
            await down
        await self._events.close()

    def _request_call(self) -> None:
        self._server.request_call(self._events.queue, self._events.queue, self._on_call)

    def _on_call(self, event: Any) -> None:
        if not event.success:
            return  # the server stops
        self._request_call()
        handler = self._handler(event)
        if handler is None:
            refuse(event, self._events, cygrpc.StatusCode.unimplemented, b"no such method")
        elif len(self._calls) >= self._most:
            details = f"{len(self._calls)} calls are under way: try again later".encode()
            refuse(event, self._events, cygrpc.StatusCode.resource_exhausted, details)
        else:
            self._calls.add(Call(event, handler, self._events, self._calls.discard))

    def _handler(self, event: Any) -> Any:
        method = event.call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            asked = _CallDetails(method.decode(), event.invocation_metadata)
            found = (finder.service(asked) for finder in self._finders)
            handler = next(filter(None, found), None)
            if handler is not None:
                self._handlers[method] = handler
        return handler


async def works() -> bool:
    """Whether a call through a `CoreServer` is answered.

    The core's Python interface is not grpcio's public one; a release may change it.
    """
    handler = grpc.unary_unary_rpc_method_handler(_echo)
    server = CoreServer((), 1)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("trtinfer", {"Echo": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        return await asyncio.to_thread(_ask, port) == b"core"
    finally:
        await server.stop(0)


async def _echo(request: bytes, context: object) -> bytes:
    return request


def _ask(port: int) -> bytes:
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        answer: bytes = channel.unary_unary("/trtinfer/Echo")(b"core", timeout=_PATIENCE)
        return answer


class _CallDetails(NamedTuple):
    """What generic handlers are asked with; the fields of `grpc.HandlerCallDetails`."""

    method: str
    invocation_metadata: Any


def _bound(address: str, port: int) -> int:
    if port == 0:
        raise RuntimeError(f"cannot listen on {address}")
    return port
