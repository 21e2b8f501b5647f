"""The Open Inference Protocol's calls over HTTP, and Triton's extensions of them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import orjson

from trtinfer.server import metadata
from trtinfer.server.datatypes import datatype_of
from trtinfer.server.http.message import BINARY, Head, Request, Response
from trtinfer.server.http.routes import Routes
from trtinfer.server.http.tensors import (
    LENGTH_HEADER,
    is_raw,
    read_preface,
    read_request,
    write_answer,
)
from trtinfer.server.model import Model
from trtinfer.server.repository import Repository
from trtinfer.server.shared_memory import SharedMemory
from trtinfer.server.slot_body import SlotBody
from trtinfer.server.state import ServerState
from trtinfer.server.statistics import model_statistics
from trtinfer.server.tensors import Tensor, raw_elements
from trtinfer.server.trace import Trace
from trtinfer.server.tracing import Tracer
from trtinfer.types import Outputs


class InferenceCalls:
    """Handlers of /v2 that ask models; `add_to` says which."""

    def __init__(
        self, repository: Repository, memory: SharedMemory, state: ServerState, tracer: Tracer
    ) -> None:
        """Answer for the models of a repository."""
        self._repository = repository
        self._memory = memory
        self._state = state
        self._tracer = tracer

    def add_to(self, routes: Routes) -> None:
        """Add the calls to a table."""
        routes.add("GET", "/v2", self._describe_server)
        routes.add("GET", "/v2/health/live", self._live)
        routes.add("GET", "/v2/health/ready", self._ready)
        routes.add("GET", "/v2/models/stats", self._all_statistics)
        for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes.add("GET", path, self._describe_model)
            routes.add("GET", f"{path}/ready", self._model_ready)
            routes.add("GET", f"{path}/config", self._configuration)
            routes.add("GET", f"{path}/stats", self._statistics)
            routes.add("POST", f"{path}/infer", self._infer, self._claim)

    def _claim(self, head: Head, part: memoryview, name: str, version: str = "") -> SlotBody | None:
        """Have the elements of a model's only input read into slots."""
        model = self._repository.get(name, version)
        if is_raw(head.headers):
            return model.claim_body(head.length)
        preface = read_preface(head, part)
        if preface is None:
            return None
        slots = model.claim_body(head.length - preface.size, preface.input)
        if slots is not None:
            slots.document = preface.document
        return slots

    async def _infer(self, request: Request, name: str, version: str = "") -> Response:
        model = self._repository.get(name, version)
        trace = self._tracer.sample(model.name, model.version) if self._tracer.active else None
        if trace is not None:
            return await self._infer_traced(request, model, trace)
        if is_raw(request.headers):
            return _raw_response(model, await model.infer_raw(_elements(request)))
        asked = read_request(request, self._memory)
        return write_answer(await model.infer(asked), self._memory)

    async def _infer_traced(self, request: Request, model: Model, trace: Trace) -> Response:
        trace.note("HTTP_RECV_START", request.began)
        trace.note("HTTP_RECV_END")
        try:
            if is_raw(request.headers):
                trace.note("REQUEST_START")
                outputs = await model.infer_raw(_elements(request), trace)
                response = _raw_response(model, outputs)
            else:
                asked = read_request(request, self._memory)
                asked.trace, trace.request_id = trace, asked.id
                trace.note("REQUEST_START")
                response = write_answer(await model.infer(asked), self._memory)
        except BaseException:
            trace.end()
            raise
        trace.note("REQUEST_END")
        trace.note("HTTP_SEND_START")
        response.trace = trace
        return response

    async def _live(self, request: Request) -> Response:
        return as_json({"live": True})

    async def _ready(self, request: Request) -> Response:
        """Answer under both names: the protocol's text says "live" here, KServe "ready"."""
        ready = self._state.ready
        return as_json({"live": ready, "ready": ready}, 200 if ready else 503)

    async def _model_ready(self, request: Request, name: str, version: str = "") -> Response:
        self._repository.get(name, version)
        return as_json({"name": name, "ready": True})

    async def _describe_server(self, request: Request) -> Response:
        return as_json(metadata.server_metadata())

    async def _describe_model(self, request: Request, name: str, version: str = "") -> Response:
        model = self._repository.get(name, version)
        return as_json(metadata.model_metadata(model, self._repository.versions(name)))

    async def _configuration(self, request: Request, name: str, version: str = "") -> Response:
        return as_json(metadata.model_config(self._repository.get(name, version)))

    async def _statistics(self, request: Request, name: str, version: str = "") -> Response:
        models = self._repository.get_all(name, version)
        return as_json({"model_stats": [model_statistics(model) for model in models]})

    async def _all_statistics(self, request: Request) -> Response:
        return as_json({"model_stats": [model_statistics(model) for model in self._repository]})


def _elements(request: Request) -> bytes | bytearray | SlotBody:
    return request.body if request.slots is None else request.slots


def as_json(document: Any, status: int = 200) -> Response:
    """Return a document as the body of a response."""
    return Response(status, (orjson.dumps(document),))


def _raw_response(model: Model, outputs: Outputs) -> Response:
    """All outputs as binary data; the JSON before them is the same for outputs of one shape."""
    raw, layout = [], []
    axis = (1,) if model.session.batched else ()
    for name, array in outputs.items():
        dtype = array.dtype
        data = Tensor.of(name, array).raw() if dtype.hasobject else raw_elements(array)
        raw.append(data)
        layout.append((name, dtype, axis + array.shape, len(data)))
    head, length = _raw_head(model.name, model.version, tuple(layout))
    return Response(200, (head, *raw), BINARY, length)


@functools.lru_cache(maxsize=1024)
def _raw_head(
    name: str,
    version: str,
    layout: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...],
) -> tuple[bytes, tuple[tuple[str, str]]]:
    outputs = [
        {
            "name": output,
            "datatype": datatype_of(dtype),
            "shape": shape,
            "parameters": {"binary_data_size": size},
        }
        for output, dtype, shape, size in layout
    ]
    document = {"model_name": name, "model_version": version, "outputs": outputs}
    head = orjson.dumps(document)
    return head, ((LENGTH_HEADER, str(len(head))),)
