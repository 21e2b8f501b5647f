"""A server in a thread of the test's process, and plain sockets to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvloop

from trtinfer.server.options import ServerOptions
from trtinfer.server.repository import Source
from trtinfer.server.server import Server
from trtinfer.server.source import FileSource


class Served:
    """A server that runs in a thread until `stop`."""

    def __init__(
        self,
        sources: list[Source],
        options: ServerOptions,
        find: Callable[[str], Source | None] = lambda name: None,
    ) -> None:
        self._find = find
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run(sources, options)))
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    async def _run(self, sources: list[Source], options: ServerOptions) -> None:
        try:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            self.server = Server(sources, options, self._find)
            await self.server.start()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._ready.set()
        await self._stop.wait()
        await self.server.drain()

    @property
    def port(self) -> int:
        assert self.server.http_port is not None
        return self.server.http_port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.server.grpc_port}"

    def begin_stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        self.begin_stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers (lower-case names) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return response.status, response.read(), named

    def ask_json(self, method: str, path: str, document: object = None) -> tuple[int, Any]:
        body = None if document is None else json.dumps(document).encode()
        status, answer, _ = self.ask(method, path, body)
        return status, json.loads(answer) if answer else None

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextlib.contextmanager
def serving(
    models: Mapping[str, bytes], folder: Path, *, model_options: Any = None, **options: Any
) -> Iterator[Served]:
    """Serve models from files in a folder; on the CPU, unless the options say more."""
    sources: list[Source] = []
    chosen = dict(model_options or {})
    chosen["session_options"] = {"backend": "onnxruntime", **chosen.get("session_options", {})}
    for name, model in models.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(model)
        sources.append(FileSource(name=name, path=path, **chosen))
    with serving_sources(sources, **options) as served:
        yield served


@contextlib.contextmanager
def serving_sources(sources: list[Source], **options: Any) -> Iterator[Served]:
    served = Served(sources, ServerOptions(**{"http_port": 0, "grpc_port": None, **options}))
    try:
        yield served
    finally:
        served.stop()


def read_response(connection: socket.socket) -> tuple[int, bytes]:
    """One response from a socket that may carry more."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()
