"""GET /metrics: what the server and its models count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trtinfer.server.http.application import Application
from trtinfer.server.http.connection import Connections
from trtinfer.server.http.message import Request, Response
from trtinfer.server.http.routes import Routes
from trtinfer.server.metrics import CONTENT_TYPE, render
from trtinfer.server.repository import Repository
from trtinfer.server.state import ServerState


class MonitoringCall:
    """The handler of /metrics."""

    def __init__(
        self,
        repository: Repository,
        state: ServerState,
        application: Application,
        connections: Connections,
    ) -> None:
        """Tell of a server."""
        self._repository = repository
        self._state = state
        self._application = application
        self._connections = connections

    def add_to(self, routes: Routes) -> None:
        """Add the call to a table."""
        routes.add("GET", "/metrics", self._metrics)

    async def _metrics(self, request: Request) -> Response:
        text = render(self._repository, self._server())
        return Response(200, (text.encode(),), CONTENT_TYPE)

    def _server(self) -> Iterator[tuple[str, str, Mapping[str, str], float]]:
        for status, count in sorted(self._application.responses.items()):
            labels = {"status": str(status)}
            yield "trtinfer_http_responses_total", "Responses by status", labels, count
        yield "trtinfer_http_connections", "Open connections", {}, len(self._connections)
        yield "trtinfer_requests_under_way", "Requests without answer", {}, self._state.under_way
