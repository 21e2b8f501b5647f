"""GET /metrics: what the server and its models count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trtinfer.server import gpu_metrics
from trtinfer.server.grpc.calls import Calls
from trtinfer.server.http.application import Application
from trtinfer.server.http.connection import Connections
from trtinfer.server.http.message import Request, Response
from trtinfer.server.http.routes import Routes
from trtinfer.server.metrics import CONTENT_TYPE, render
from trtinfer.server.repository import Repository
from trtinfer.server.state import ServerState


@dataclass(frozen=True)
class ServerCounters:
    """What counts beside the models: the state of the server, and both protocols."""

    state: ServerState
    application: Application
    connections: Connections
    calls: Calls

    def read(self) -> Iterator[tuple[str, str, Mapping[str, str], float]]:
        """Yield name, help, labels and value of each counter."""
        for status, count in sorted(self.application.responses.items()):
            labels = {"status": str(status)}
            yield "trtinfer_http_responses_total", "Responses by status", labels, count
        for code, count in sorted(self.calls.responses.items()):
            yield "trtinfer_grpc_responses_total", "Calls by status", {"status": code}, count
        yield "trtinfer_http_connections", "Open connections", {}, len(self.connections)
        yield "trtinfer_requests_under_way", "Requests without answer", {}, self.state.under_way


class MonitoringCall:
    """The handler of /metrics."""

    def __init__(self, repository: Repository, counters: ServerCounters) -> None:
        """Tell of a server."""
        self._repository = repository
        self._counters = counters

    def add_to(self, routes: Routes) -> None:
        """Add the call to a table."""
        routes.add("GET", "/metrics", self._metrics)

    async def _metrics(self, request: Request) -> Response:
        gpus = await asyncio.to_thread(lambda: list(gpu_metrics.read()))
        text = render(self._repository, [*self._counters.read(), *gpus])
        return Response(200, (text.encode(),), CONTENT_TYPE)
