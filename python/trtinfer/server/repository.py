"""The models of a server by name and version, loaded and unloaded without losing a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from trtinfer.errors import InputError, TrtInferError
from trtinfer.server.errors import NotAllowedError, NotFoundError, UnavailableError
from trtinfer.server.model import Model


class Source(Protocol):
    """Where a model comes from."""

    @property
    def name(self) -> str:
        """What clients call the model."""

    def open(self) -> list[Model]:
        """Open the versions to serve, the newest last; blocks until they are warm."""


@dataclass(slots=True)
class _Entry:
    """A model that may be loaded.

    Attributes:
        wanted: Whether the server is only ready when this is loaded: from the start, until a client
            unloads it.
    """

    source: Source
    wanted: bool = True
    models: dict[str, Model] = field(default_factory=dict)
    newest: Model | None = None
    reason: str = "not loaded"
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Repository:
    """All models that a server knows. Use it on one event loop."""

    def __init__(
        self,
        sources: Iterable[Source],
        controlled: bool = False,
        find: Callable[[str], Source | None] = lambda name: None,
    ) -> None:
        """Know where models come from; `load` opens them.

        Args:
            sources: One for each model.
            controlled: Whether clients may load and unload models.
            find: Looks for a model that clients want loaded and that is not known yet.
        """
        self._controlled = controlled
        self._find = find
        self._entries = {source.name: _Entry(source) for source in sources}
        self._loading: set[asyncio.Task[None]] = set()
        self._retiring: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Model]:
        """Go through the models that are loaded, all versions of them."""
        for entry in self._entries.values():
            yield from entry.models.values()

    def get(self, name: str, version: str = "") -> Model:
        """Return a loaded model; without a version, its newest.

        Raises:
            NotFoundError: There is no such model or version.
            UnavailableError: The model is known, but not loaded.
        """
        entry = self._entry(name)
        model = entry.models.get(version) if version else entry.newest
        if model is not None:
            return model
        if not entry.models:
            raise UnavailableError(f"the model {name!r} is not ready: {entry.reason}")
        raise NotFoundError(
            f"the model {name!r} has the versions {', '.join(entry.models)}, not {version!r}"
        )

    def get_all(self, name: str, version: str = "") -> list[Model]:
        """Return a loaded model; without a version, all its versions; errors as `get`."""
        model = self.get(name, version)
        return [model] if version else list(self._entry(name).models.values())

    def versions(self, name: str) -> list[str]:
        """Return the loaded versions of a model."""
        return list(self._entry(name).models)

    @property
    def ready(self) -> bool:
        """Whether every model is loaded that should be."""
        return all(entry.models for entry in self._entries.values() if entry.wanted)

    def index(self, only_ready: bool = False) -> list[dict[str, Any]]:
        """Describe every model that may be loaded, as the repository extension does."""
        found: list[dict[str, Any]] = []
        for name, entry in self._entries.items():
            found += [
                {"name": name, "version": version, "state": "READY", "reason": ""}
                for version in entry.models
            ]
            if not entry.models and not only_ready:
                found.append({"name": name, "state": "UNAVAILABLE", "reason": entry.reason})
        return found

    async def load(self, name: str) -> None:
        """Open a model, or open it again; requests go to the old one until the new one is warm.

        Goes on where the caller is cancelled.

        Raises:
            NotFoundError: There is no such model.
            TrtInferError: It cannot be opened; an old one stays.
        """
        loading = asyncio.ensure_future(self._load(self._entry(name)))
        self._loading.add(loading)
        loading.add_done_callback(self._loaded)
        await asyncio.wait((loading,))  # shield would log the failure of what nobody waits for
        loading.result()

    async def unload(self, name: str) -> None:
        """Refuse new requests for a model and close it once it has answered the others.

        Raises:
            NotFoundError: There is no such model.
        """
        entry = self._entry(name)
        async with entry.lock:
            entry.reason, entry.wanted = "unloaded", False
            self._replace(entry, {})

    async def load_for_client(self, name: str, parameters: Mapping[str, object]) -> None:
        """Load a model as a client asks; errors as `load`.

        Raises:
            NotAllowedError: Clients may not.
            InputError: The client sent a configuration or files of its own.
        """
        self._check_controlled()
        if parameters:
            raise InputError("models are loaded as the repository has them, without parameters")
        if name not in self._entries and (source := self._find(name)) is not None:
            self._entries[name] = _Entry(source, wanted=False)
        await self.load(name)

    async def unload_for_client(self, name: str) -> None:
        """Unload a model as a client asks; errors as `unload`.

        Raises:
            NotAllowedError: Clients may not.
        """
        self._check_controlled()
        await self.unload(name)

    async def close(self) -> None:
        """Wait for loads under way, then unload everything and wait for it."""
        while self._loading:
            await asyncio.wait(self._loading)
        for name in self._entries:
            await self.unload(name)
        await asyncio.gather(*self._retiring)

    def _check_controlled(self) -> None:
        if not self._controlled:
            raise NotAllowedError(
                "clients may not load and unload models: start with --allow-repository-control"
            )

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise NotFoundError(f"there is no model {name!r}")
        return entry

    async def _load(self, entry: _Entry) -> None:
        async with entry.lock:
            try:
                opened = await asyncio.to_thread(entry.source.open)
            except (TrtInferError, ValueError, OSError) as error:
                entry.reason = str(error)
                raise
            entry.wanted = True
            self._replace(entry, {model.version: model for model in opened})

    def _loaded(self, loading: asyncio.Task[None]) -> None:
        self._loading.discard(loading)
        if not loading.cancelled():
            loading.exception()  # or it is logged where nobody waits for it

    def _replace(self, entry: _Entry, models: dict[str, Model]) -> None:
        old, entry.models = entry.models, models
        entry.newest = next(reversed(models.values()), None)
        for model in old.values():
            task = asyncio.ensure_future(_retire(model))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)


async def _retire(model: Model) -> None:
    await model.idle()
    await asyncio.to_thread(model.close)
