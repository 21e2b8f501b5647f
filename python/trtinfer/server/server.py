"""A server's life: load the models, listen, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Callable, Sequence

from trtinfer.server.grpc.calls import Calls
from trtinfer.server.grpc.control import ControlCalls as GrpcControlCalls
from trtinfer.server.grpc.inference import InferenceCalls as GrpcInferenceCalls
from trtinfer.server.grpc.listener import Listener
from trtinfer.server.http.application import Application
from trtinfer.server.http.classify import ClassifyCall
from trtinfer.server.http.connection import Connection
from trtinfer.server.http.connections import Connections
from trtinfer.server.http.control import ControlCalls
from trtinfer.server.http.inference import InferenceCalls
from trtinfer.server.http.monitoring import MonitoringCall, ServerCounters
from trtinfer.server.http.openapi import OpenApiCall
from trtinfer.server.http.page import PageCall
from trtinfer.server.http.routes import Routes
from trtinfer.server.options import ServerOptions
from trtinfer.server.repository import Repository, Source
from trtinfer.server.settings import LogSettings
from trtinfer.server.shared_memory import SharedMemory
from trtinfer.server.state import ServerState
from trtinfer.server.tracing import Tracer

logger = logging.getLogger("trtinfer")

_LAST_REQUESTS = 0.2  # seconds in which requests sent before the drain was seen are refused


class Server:
    """Serves models on the running event loop.

    Attributes:
        http_port: What it listens on; None before `start` and without HTTP.
        grpc_port: Likewise for gRPC.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        options: ServerOptions,
        find: Callable[[str], Source | None] = lambda name: None,
    ) -> None:
        """Prepare to serve; nothing is opened yet.

        Args:
            sources: One for each model.
            options: How to serve them.
            find: Looks for models that clients want loaded later.
        """
        self.http_port: int | None = None
        self.grpc_port: int | None = None
        self._options = options
        self._names = [source.name for source in sources]
        self._repository = Repository(sources, options.allow_repository_control, find)
        self._memory = SharedMemory(options.allow_shared_memory)
        self._state = ServerState(self._repository, options.max_requests)
        self._log = LogSettings()
        self._tracer = Tracer(options.trace_file)
        self._connections: Connections | None = None
        self._http: asyncio.Server | None = None
        self._calls = Calls(options.token, self._log)
        self._grpc: Listener | None = None

    async def start(self) -> None:
        """Open the models, then listen: whoever can connect finds them warm.

        Raises:
            TrtInferError: A model cannot be opened.
            OSError: A port is taken.
        """
        await asyncio.gather(*(self._repository.load(name) for name in self._names))
        if self._options.http_port is not None:
            await self._listen_http(self._options.http_port)
        if self._options.grpc_port is not None:
            await self._listen_grpc(self._options.grpc_port)

    async def serve_until_signalled(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends the wait."""
        loop = asyncio.get_running_loop()
        signalled = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled.set)
        await signalled.wait()
        signalled.clear()
        drain = asyncio.ensure_future(self.drain())
        again = asyncio.ensure_future(signalled.wait())
        await asyncio.wait((drain, again), return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        drain.cancel()
        await asyncio.gather(drain, again, return_exceptions=True)

    async def drain(self) -> None:
        """Turn readiness off, finish what is under way, refuse the rest, close everything."""
        self._state.retire()
        if self._grpc is not None:
            await self._grpc.turn_unready()
        await asyncio.sleep(self._options.drain_delay)
        if self._http is not None:
            self._http.close()
        if self._connections is not None:
            self._connections.draining = True
        until = asyncio.get_running_loop().time() + self._options.drain_timeout
        left = await self._state.finish(until, self._unsent)
        if left:
            logger.warning("%d requests are not answered: the drain timeout is over", left)
        if self._connections is not None:
            await asyncio.sleep(_LAST_REQUESTS)
            self._connections.close()
        if self._grpc is not None:
            await self._grpc.stop(_LAST_REQUESTS)
        await self._repository.close()
        self._tracer.close()
        self._log.close()

    def _unsent(self) -> int:
        return 0 if self._connections is None else self._connections.unsent

    async def _listen_http(self, port: int) -> None:
        routes = Routes()
        InferenceCalls(self._repository, self._memory, self._state, self._tracer).add_to(routes)
        ControlCalls(self._repository, self._memory, self._log, self._tracer).add_to(routes)
        ClassifyCall(self._repository).add_to(routes)
        PageCall().add_to(routes)
        OpenApiCall().add_to(routes)
        application = Application(self._options, routes, self._state, self._log)
        connections = Connections(
            self._options, application, application.claim, application.refuse, self._tracer
        )
        counters = ServerCounters(self._state, application, connections, self._calls)
        MonitoringCall(self._repository, counters).add_to(routes)
        self._connections = connections
        self._http = await asyncio.get_running_loop().create_server(
            lambda: Connection(connections),
            self._options.host,
            port,
            ssl=_tls(self._options),
            backlog=1024,
        )
        self.http_port = self._http.sockets[0].getsockname()[1]

    async def _listen_grpc(self, port: int) -> None:
        repository, memory = self._repository, self._memory
        GrpcInferenceCalls(repository, memory, self._state, self._tracer).add_to(self._calls)
        GrpcControlCalls(repository, memory, self._log, self._tracer).add_to(self._calls)
        self._grpc = Listener(self._options, self._calls)
        self.grpc_port = await self._grpc.start(port)


def _tls(options: ServerOptions) -> ssl.SSLContext | None:
    if options.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    return context
