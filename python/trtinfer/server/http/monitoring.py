"""GET /metrics: what the server and its models count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from trtinfer.server import gpu_metrics
from trtinfer.server.grpc.calls import Calls
from trtinfer.server.http.application import Application
from trtinfer.server.http.connections import Connections
from trtinfer.server.http.message import Request, Response
from trtinfer.server.http.routes import Routes
from trtinfer.server.metrics import CONTENT_TYPE, Reading, render
from trtinfer.server.repository import Repository
from trtinfer.server.state import ServerState


@dataclass(frozen=True)
class ServerCounters:
    """What counts beside the models: the state of the server, and both protocols."""

    state: ServerState
    application: Application
    connections: Connections
    calls: Calls

    def read(self) -> Iterator[Reading]:
        """Yield what is counted."""
        name, text = "trtinfer_http_responses_total", "Responses by status"
        for status, count in sorted(self.application.responses.items()):
            yield Reading(name, "counter", text, {"status": str(status)}, count)
        name, text = "trtinfer_grpc_responses_total", "Calls by status"
        for code, count in sorted(self.calls.responses.items()):
            yield Reading(name, "counter", text, {"status": code}, count)
        name, text = "trtinfer_http_connections", "Open connections"
        yield Reading(name, "gauge", text, {}, len(self.connections))
        name, text = "trtinfer_requests_under_way", "Requests without answer"
        yield Reading(name, "gauge", text, {}, self.state.under_way)


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
