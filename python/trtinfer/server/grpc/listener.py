"""The gRPC server itself: its port, limits, health and reflection."""

from __future__ import annotations

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


class Listener:
    """A gRPC server around a table of calls."""

    def __init__(self, options: ServerOptions, calls: Calls) -> None:
        """Prepare to listen; nothing is open yet."""
        self._options = options
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=_channel_options(options), maximum_concurrent_rpcs=options.max_requests
        )
        self._server.add_generic_rpc_handlers((calls.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, _HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, pool)

    async def start(self, port: int) -> int:
        """Listen and return the port.

        Raises:
            OSError: The port is taken.
        """
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        address = f"{host}:{port}"
        try:
            if self._options.certificate is None:
                bound: int = self._server.add_insecure_port(address)
            else:
                credentials = _credentials(self._options.certificate, self._options.key)
                bound = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        await self._server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return bound

    async def turn_unready(self) -> None:
        """Tell health checks to send nothing more here."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, seconds: float) -> None:
        """Refuse new calls and end the others, at the latest after some seconds."""
        await self._server.stop(seconds)


def _channel_options(options: ServerOptions) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", options.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", options.max_header_bytes),
        ("grpc.so_reuseport", 0),  # or a second server would share the port unnoticed
        ("grpc.max_connection_idle_ms", int(options.keep_alive * 1000)),
    ]


def _credentials(certificate: str, key: str | None) -> Any:
    chain = Path(certificate).read_bytes()
    return grpc.ssl_server_credentials([(Path(key or certificate).read_bytes(), chain)])
