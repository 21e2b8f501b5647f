"""The gRPC server itself: its port, limits, health and reflection."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from trtinfer.server.grpc.calls import Calls
from trtinfer.server.grpc.messages import SERVICE, pool
from trtinfer.server.options import ServerOptions

for _file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
    pool.AddSerializedFile(_file.serialized_pb)  # so that reflection finds them beside ours

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


#: Servers behind the port. grpc.aio accepts one call at a time and goes round its loop for each;
#: with several, calls of different connections come and go together, and cost a third less.
_SERVERS = 8


class Listener:
    """gRPC servers around a table of calls; they share a port, and the kernel connections out."""

    def __init__(self, options: ServerOptions, calls: Calls) -> None:
        """Prepare to listen; nothing is open yet."""
        self._options = options
        self._health = health.aio.HealthServicer()
        self._servers = [self._server(calls) for _ in range(_SERVERS)]

    async def start(self, port: int) -> int:
        """Listen and return the port.

        Raises:
            OSError: The port is taken.
        """
        _check_free(self._options.host, port)
        try:
            for server in self._servers:
                port = self._listen(server, port)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        for server in self._servers:
            await server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def turn_unready(self) -> None:
        """Tell health checks to send nothing more here."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, seconds: float) -> None:
        """Refuse new calls and end the others, at the latest after some seconds."""
        await asyncio.gather(*(server.stop(seconds) for server in self._servers))

    def _server(self, calls: Calls) -> grpc.aio.Server:
        options = self._options
        server = grpc.aio.server(
            options=_channel_options(options), maximum_concurrent_rpcs=options.max_requests
        )
        server.add_generic_rpc_handlers((calls.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, _HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool)
        return server

    def _listen(self, server: grpc.aio.Server, port: int) -> int:
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        address = f"{host}:{port}"
        if self._options.certificate is None:
            bound: int = server.add_insecure_port(address)
        else:
            credentials = _credentials(self._options.certificate, self._options.key)
            bound = server.add_secure_port(address, credentials)
        return bound


def _check_free(host: str, port: int) -> None:
    """Raise an OSError if others listen there: they would get a share of the connections."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a server that ended
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise


def _channel_options(options: ServerOptions) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", options.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", options.max_header_bytes),
        ("grpc.so_reuseport", 1),
        ("grpc.max_connection_idle_ms", int(options.keep_alive * 1000)),
    ]


def _credentials(certificate: str, key: str | None) -> Any:
    chain = Path(certificate).read_bytes()
    return grpc.ssl_server_credentials([(Path(key or certificate).read_bytes(), chain)])
