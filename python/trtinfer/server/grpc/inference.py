"""The Open Inference Protocol's calls over gRPC that ask models, and Triton's extensions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from trtinfer.errors import TrtInferError
from trtinfer.server import metadata
from trtinfer.server.grpc.calls import Calls
from trtinfer.server.grpc.messages import message
from trtinfer.server.grpc.tensors import read_request, write_answer
from trtinfer.server.model import Model
from trtinfer.server.repository import Repository
from trtinfer.server.shared_memory import SharedMemory
from trtinfer.server.state import ServerState
from trtinfer.server.statistics import model_statistics
from trtinfer.server.trace import Trace
from trtinfer.server.tracing import Tracer

_MOST_IN_STREAM = 64  # requests of a stream under way; more wait to be read

_StreamResponse = message("ModelStreamInferResponse")
_ModelMetadata = message("ModelMetadataResponse")
_ModelConfig = message("ModelConfigResponse")
_Statistics = message("ModelStatisticsResponse")


class InferenceCalls:
    """Handlers that ask models; `add_to` says which."""

    def __init__(
        self, repository: Repository, memory: SharedMemory, state: ServerState, tracer: Tracer
    ) -> None:
        """Answer for the models of a repository."""
        self._repository = repository
        self._memory = memory
        self._state = state
        self._tracer = tracer

    def add_to(self, calls: Calls) -> None:
        """Add the calls to a table."""
        calls.add("ServerLive", self._live)
        calls.add("ServerReady", self._ready)
        calls.add("ModelReady", self._model_ready)
        calls.add("ServerMetadata", self._describe_server)
        calls.add("ModelMetadata", self._describe_model)
        calls.add("ModelConfig", self._configuration)
        calls.add("ModelStatistics", self._statistics)
        calls.add("ModelInfer", self._infer)
        calls.add_stream("ModelStreamInfer", self._stream)

    async def _live(self, request: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _ready(self, request: Any) -> Any:
        return message("ServerReadyResponse")(ready=self._state.ready)

    async def _model_ready(self, request: Any) -> Any:
        try:
            self._repository.get(request.name, request.version)
        except TrtInferError:
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=True)

    async def _describe_server(self, request: Any) -> Any:
        return message("ServerMetadataResponse")(**metadata.server_metadata())

    async def _describe_model(self, request: Any) -> Any:
        model = self._repository.get(request.name, request.version)
        versions = self._repository.versions(request.name)
        return _ModelMetadata(**metadata.model_metadata(model, versions))

    async def _configuration(self, request: Any) -> Any:
        model = self._repository.get(request.name, request.version)
        return _ModelConfig(config=metadata.model_config(model))

    async def _statistics(self, request: Any) -> Any:
        named = request.name and self._repository.get_all(request.name, request.version)
        models = named or self._repository
        return _Statistics(model_stats=[model_statistics(model) for model in models])

    async def _infer(self, request: Any) -> Any:
        self._state.begin()
        try:
            model = self._repository.get(request.model_name, request.model_version)
            trace = self._tracer.sample(model.name, model.version) if self._tracer.active else None
            if trace is not None:
                return await self._infer_traced(request, model, trace)
            asked = read_request(request, self._memory)
            return write_answer(await model.infer(asked), self._memory)
        finally:
            self._state.end()

    async def _infer_traced(self, request: Any, model: Model, trace: Trace) -> Any:
        """Answer; grpc does not say when it reads and writes, so that both have no duration."""
        trace.request_id = request.id
        trace.note("GRPC_WAITREAD_START")
        trace.note("GRPC_WAITREAD_END")
        try:
            asked = read_request(request, self._memory)
            asked.trace = trace
            trace.note("REQUEST_START")
            written = write_answer(await model.infer(asked), self._memory)
            trace.note("REQUEST_END")
            trace.note("GRPC_SEND_START")
            trace.note("GRPC_SEND_END")
        finally:
            trace.end()
        return written

    async def _stream(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Answer in the order of the requests; only one that cannot be read ends the stream."""
        under_way: asyncio.Queue[asyncio.Task[Any] | Exception | None]
        under_way = asyncio.Queue(_MOST_IN_STREAM)
        owed: set[asyncio.Task[Any]] = set()  # not those refused, of which there may be no end

        async def read() -> None:
            try:
                async for request in requests:
                    task = asyncio.create_task(self._infer_in_stream(request))
                    if not self._state.refusing:
                        owed.add(task)
                        self._state.owed += 1
                    await under_way.put(task)
            except Exception as error:  # a cancellation is none, and must not wait for room
                await under_way.put(error)
            else:
                await under_way.put(None)

        reading = asyncio.create_task(read())
        try:
            while isinstance(task := await under_way.get(), asyncio.Task):
                yield await task
                if task in owed:
                    owed.remove(task)
                    self._state.owed -= 1
            if task is not None:
                raise task
        finally:
            self._state.owed -= len(owed)
            reading.cancel()
            for task in owed:
                task.cancel()

    async def _infer_in_stream(self, request: Any) -> Any:
        try:
            answer = await self._infer(request)
        except TrtInferError as error:
            failed = message("ModelInferResponse")(id=request.id)
            return _StreamResponse(error_message=str(error), infer_response=failed)
        if request.parameters["triton_enable_empty_final_response"].bool_param:
            answer.parameters["triton_final_response"].bool_param = True
        return _StreamResponse(infer_response=answer)
