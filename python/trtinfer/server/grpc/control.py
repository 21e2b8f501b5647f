"""The calls over gRPC that control a server: its models, shared memory, settings."""

from __future__ import annotations

from typing import Any

from trtinfer.errors import InputError
from trtinfer.server.cuda_memory import CudaRegion
from trtinfer.server.grpc.calls import Calls
from trtinfer.server.grpc.messages import message
from trtinfer.server.repository import Repository
from trtinfer.server.settings import LogSettings
from trtinfer.server.shared_memory import SharedMemory, SystemRegion
from trtinfer.server.tracing import Tracer


class ControlCalls:
    """Handlers that control a server; `add_to` says which."""

    def __init__(
        self, repository: Repository, memory: SharedMemory, log: LogSettings, tracer: Tracer
    ) -> None:
        """Control a repository, shared memory and what is written of requests."""
        self._repository = repository
        self._memory = memory
        self._log = log
        self._tracer = tracer

    def add_to(self, calls: Calls) -> None:
        """Add the calls to a table."""
        calls.add("RepositoryIndex", self._index)
        calls.add("RepositoryModelLoad", self._load)
        calls.add("RepositoryModelUnload", self._unload)
        calls.add("SystemSharedMemoryStatus", self._memory_status)
        calls.add("SystemSharedMemoryRegister", self._register_memory)
        calls.add("SystemSharedMemoryUnregister", self._unregister_memory)
        calls.add("CudaSharedMemoryStatus", self._cuda_status)
        calls.add("CudaSharedMemoryRegister", self._register_cuda)
        calls.add("CudaSharedMemoryUnregister", self._unregister_cuda)
        calls.add("TraceSetting", self._trace_setting)
        calls.add("LogSettings", self._log_settings)

    async def _index(self, request: Any) -> Any:
        index = self._repository.index(request.ready)
        return message("RepositoryIndexResponse")(models=index)

    async def _load(self, request: Any) -> Any:
        await self._repository.load_for_client(request.model_name, dict(request.parameters))
        return message("RepositoryModelLoadResponse")()

    async def _unload(self, request: Any) -> Any:
        await self._repository.unload_for_client(request.model_name)
        return message("RepositoryModelUnloadResponse")()

    async def _memory_status(self, request: Any) -> Any:
        regions = self._memory.status(SystemRegion, request.name)
        by_name = {region["name"]: region for region in regions}
        return message("SystemSharedMemoryStatusResponse")(regions=by_name)

    async def _register_memory(self, request: Any) -> Any:
        self._memory.register(request.name, request.key, request.offset, request.byte_size)
        return message("SystemSharedMemoryRegisterResponse")()

    async def _unregister_memory(self, request: Any) -> Any:
        self._memory.unregister(SystemRegion, request.name)
        return message("SystemSharedMemoryUnregisterResponse")()

    async def _cuda_status(self, request: Any) -> Any:
        regions = self._memory.status(CudaRegion, request.name)
        by_name = {region["name"]: region for region in regions}
        return message("CudaSharedMemoryStatusResponse")(regions=by_name)

    async def _register_cuda(self, request: Any) -> Any:
        if request.device_id < 0:
            raise InputError(f"GPUs are numbered from 0: {request.device_id} was received")
        self._memory.register_cuda(
            request.name, request.raw_handle, request.device_id, request.byte_size
        )
        return message("CudaSharedMemoryRegisterResponse")()

    async def _unregister_cuda(self, request: Any) -> Any:
        self._memory.unregister(CudaRegion, request.name)
        return message("CudaSharedMemoryUnregisterResponse")()

    async def _trace_setting(self, request: Any) -> Any:
        if request.model_name:
            self._repository.get(request.model_name)
        changes = {name: list(setting.value) for name, setting in request.settings.items()}
        settings = self._tracer.update(changes, request.model_name)
        return message("TraceSettingResponse")(
            settings={name: {"value": values} for name, values in settings.items()}
        )

    async def _log_settings(self, request: Any) -> Any:
        changes = {
            name: getattr(setting, setting.WhichOneof("parameter_choice") or "string_param")
            for name, setting in request.settings.items()
        }
        settings = self._log.update(changes)
        return message("LogSettingsResponse")(
            settings={name: {_field(value): value} for name, value in settings.items()}
        )


def _field(value: bool | int | str) -> str:
    if isinstance(value, bool):
        return "bool_param"
    return "uint32_param" if isinstance(value, int) else "string_param"
