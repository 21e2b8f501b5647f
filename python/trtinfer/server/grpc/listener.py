"""The gRPC server itself: its port, limits, health and reflection."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from trtinfer.server.grpc.calls import Calls
from trtinfer.server.grpc.messages import SERVICE, pool
from trtinfer.server.options import ServerOptions

if TYPE_CHECKING:
    from trtinfer.server.grpc.core_server import CoreServer

logger = logging.getLogger("trtinfer")

for _file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
    pool.AddSerializedFile(_file.serialized_pb)  # so that reflection finds them beside ours

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Listener:
    """A gRPC server around a table of calls."""

    def __init__(self, options: ServerOptions, calls: Calls) -> None:
        """Prepare to listen; nothing is open yet."""
        self._options = options
        self._calls = calls
        self._health = health.aio.HealthServicer()
        self._server: CoreServer | grpc.aio.Server | None = None

    async def start(self, port: int) -> int:
        """Listen and return the port.

        Raises:
            OSError: The port is taken.
        """
        self._server = server = await self._open()
        try:
            port = self._listen(server, port)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        await server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def turn_unready(self) -> None:
        """Tell health checks to send nothing more here."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, seconds: float) -> None:
        """Refuse new calls and end the others, at the latest after some seconds."""
        if self._server is not None:
            await self._server.stop(seconds)

    async def _open(self) -> CoreServer | grpc.aio.Server:
        server = await _server(_channel_options(self._options), self._options.max_requests)
        server.add_generic_rpc_handlers((self._calls.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, _HEALTH, reflection.SERVICE_NAME)
        servicer = reflection.aio.ReflectionServicer(names, pool)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
        return server

    def _listen(self, server: CoreServer | grpc.aio.Server, port: int) -> int:
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        address = f"{host}:{port}"
        if self._options.certificate is None:
            bound: int = server.add_insecure_port(address)
        else:
            credentials = _credentials(self._options.certificate, self._options.key)
            bound = server.add_secure_port(address, credentials)
        return bound


async def _server(options: list[tuple[str, Any]], most: int) -> CoreServer | grpc.aio.Server:
    """A server on grpcio's core, or grpcio's own where its core is not as it was."""
    try:
        from trtinfer.server.grpc import core_server

        if await core_server.works():
            return core_server.CoreServer(options, most)
        reason = "a call was not answered"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    logger.warning(
        "gRPC goes through grpc.aio, which costs twice as much: grpcio %s has another core (%s)",
        grpc.__version__,
        reason,
    )
    return grpc.aio.server(options=options, maximum_concurrent_rpcs=most)


def _channel_options(options: ServerOptions) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", options.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", options.max_header_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.max_connection_idle_ms", int(options.keep_alive * 1000)),
    ]


def _credentials(certificate: str, key: str | None) -> Any:
    chain = Path(certificate).read_bytes()
    return grpc.ssl_server_credentials([(Path(key or certificate).read_bytes(), chain)])
