"""The calls over HTTP that control a server: its models, shared memory, settings."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from trtinfer.errors import InputError
from trtinfer.server.cuda_memory import CudaRegion
from trtinfer.server.http.inference import as_json
from trtinfer.server.http.message import Request, Response
from trtinfer.server.http.routes import Routes
from trtinfer.server.http.tensors import parameters_of, read_json
from trtinfer.server.inference import integer
from trtinfer.server.repository import Repository
from trtinfer.server.settings import LogSettings
from trtinfer.server.shared_memory import SharedMemory, SystemRegion
from trtinfer.server.tracing import Tracer


class ControlCalls:
    """Handlers of /v2 that control a server; `add_to` says which."""

    def __init__(
        self, repository: Repository, memory: SharedMemory, log: LogSettings, tracer: Tracer
    ) -> None:
        """Control a repository, shared memory and what is written of requests."""
        self._repository = repository
        self._memory = memory
        self._log = log
        self._tracer = tracer

    def add_to(self, routes: Routes) -> None:
        """Add the calls to a table."""
        routes.add("POST", "/v2/repository/index", self._index)
        routes.add("POST", "/v2/repository/models/{name}/load", self._load)
        routes.add("POST", "/v2/repository/models/{name}/unload", self._unload)
        for path in ("/v2/systemsharedmemory", "/v2/systemsharedmemory/region/{name}"):
            routes.add("GET", f"{path}/status", self._memory_status)
            routes.add("POST", f"{path}/unregister", self._unregister_memory)
        routes.add("POST", "/v2/systemsharedmemory/region/{name}/register", self._register_memory)
        for path in ("/v2/cudasharedmemory", "/v2/cudasharedmemory/region/{name}"):
            routes.add("GET", f"{path}/status", self._cuda_status)
            routes.add("POST", f"{path}/unregister", self._unregister_cuda)
        routes.add("POST", "/v2/cudasharedmemory/region/{name}/register", self._register_cuda)
        for path in ("/v2/trace/setting", "/v2/models/{name}/trace/setting"):
            routes.add("GET", path, self._trace_settings)
            routes.add("POST", path, self._change_trace_settings)
        routes.add("GET", "/v2/logging", self._log_settings)
        routes.add("POST", "/v2/logging", self._change_log_settings)

    async def _index(self, request: Request) -> Response:
        ready = read_json(request.body).get("ready", False)
        if not isinstance(ready, bool):
            raise InputError(f"'ready' is true or false, {ready!r} was received")
        return as_json(self._repository.index(ready))

    async def _load(self, request: Request, name: str) -> Response:
        parameters = parameters_of(read_json(request.body))
        await self._repository.load_for_client(name, parameters)
        return Response()

    async def _unload(self, request: Request, name: str) -> Response:
        parameters_of(read_json(request.body))  # "unload_dependents" is for ensembles
        await self._repository.unload_for_client(name)
        return Response()

    async def _memory_status(self, request: Request, name: str = "") -> Response:
        return as_json(self._memory.status(SystemRegion, name))

    async def _register_memory(self, request: Request, name: str) -> Response:
        document = read_json(request.body)
        key = document.get("key")
        if not isinstance(key, str):
            raise InputError(f"'key' is text, {key!r} was received")
        offset = integer(document, "offset", 0)
        self._memory.register(name, key, offset, integer(document, "byte_size", 0))
        return Response()

    async def _unregister_memory(self, request: Request, name: str = "") -> Response:
        self._memory.unregister(SystemRegion, name)
        return Response()

    async def _cuda_status(self, request: Request, name: str = "") -> Response:
        return as_json(self._memory.status(CudaRegion, name))

    async def _register_cuda(self, request: Request, name: str) -> Response:
        document = read_json(request.body)
        handle = _base64(document.get("raw_handle"))
        device, size = integer(document, "device_id", 0), integer(document, "byte_size", 0)
        self._memory.register_cuda(name, handle, device, size)
        return Response()

    async def _unregister_cuda(self, request: Request, name: str = "") -> Response:
        self._memory.unregister(CudaRegion, name)
        return Response()

    async def _trace_settings(self, request: Request, name: str = "") -> Response:
        return self._updated_trace_settings({}, name)

    async def _change_trace_settings(self, request: Request, name: str = "") -> Response:
        return self._updated_trace_settings(read_json(request.body), name)

    def _updated_trace_settings(self, changes: Mapping[str, object], name: str) -> Response:
        if name:
            self._repository.get(name)
        settings = self._tracer.update(changes, name)
        return as_json(
            {key: values if key == "trace_level" else values[0] for key, values in settings.items()}
        )

    async def _log_settings(self, request: Request) -> Response:
        return as_json(self._log.read())

    async def _change_log_settings(self, request: Request) -> Response:
        return as_json(self._log.update(read_json(request.body)))


def _base64(handle: object) -> bytes:
    text = handle.get("b64") if isinstance(handle, dict) else None
    try:
        return base64.b64decode(text, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError("'raw_handle' is an object with base64 text at \"b64\"") from None
