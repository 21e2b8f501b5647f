"""`trtinfer serve`: from its arguments to a running server."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from trtinfer.errors import ModelError
from trtinfer.server.model_folder import Folder
from trtinfer.server.options import ServerOptions
from trtinfer.server.repository import Source
from trtinfer.server.server import Server
from trtinfer.server.source import FileSource

_DEFAULT_NAME = "efficientnet-lite0"
_SESSION_OPTIONS = ("backend", "max_batch_size", "max_delay", "capacity")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes.

    Args:
        arguments: Those of `arguments.add_to`.

    Returns:
        The exit status: 0.

    Raises:
        TrtInferError: A model cannot be opened.
        ValueError: An option is out of range.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sources, folders = _named_sources(arguments), _folders(arguments)

    def find(name: str) -> Source | None:
        found = (folder.find(name) for folder in folders)
        return next((source for source in found if source is not None), None)

    options = _options(arguments)
    uvloop.run(_serve(Server(list(sources.values()), options, find), options.host))
    return 0


async def _serve(server: Server, host: str) -> None:
    try:
        await server.start()
    except OSError as error:
        raise ValueError(f"cannot listen on {host}: {error}") from error
    host = f"[{host}]" if ":" in host else host
    for name, port in (("HTTP", server.http_port), ("gRPC", server.grpc_port)):
        if port is not None:
            print(f"trtinfer serves {name} on {host}:{port}", flush=True)
    # All that was made until now stays. The collector would go through it again and again, and keep
    # every request waiting for tens of milliseconds each time.
    gc.collect()
    gc.freeze()
    await server.serve_until_signalled()


def _options(arguments: argparse.Namespace) -> ServerOptions:
    names = {field.name for field in dataclasses.fields(ServerOptions)}
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name in names and value is not None
    }
    for protocol in ("http", "grpc"):
        port = getattr(arguments, protocol)
        given[f"{protocol}_port"] = None if port < 0 else port
    if arguments.token_file is not None:
        given["token"] = Path(arguments.token_file).read_text(encoding="utf-8").strip()
    return ServerOptions(**given)


def _named_sources(arguments: argparse.Namespace) -> dict[str, Source]:
    named: dict[str, Source] = {}
    folders = _folders(arguments)
    files = [model for model in arguments.models if not Path(model).is_dir()]
    found: list[Source] = [source for folder in folders for source in folder.sources()]
    found += _files(files if arguments.models else [""], arguments)
    for source in found:
        if source.name in named:
            raise ModelError(f"two models are called {source.name!r}: name one of them, NAME=FILE")
        named[source.name] = source
    return named


def _folders(arguments: argparse.Namespace) -> list[Folder]:
    paths = [Path(model) for model in arguments.models]
    return [Folder(path, _session_options(arguments)) for path in paths if path.is_dir()]


def _files(models: list[str], arguments: argparse.Namespace) -> Iterator[FileSource]:
    for model in models:
        name, _, path = model.rpartition("=")
        yield FileSource(
            name=name or Path(path).stem or _DEFAULT_NAME,
            path=path or None,
            recipe=arguments.recipe,
            labels=arguments.labels,
            timeout=arguments.timeout,
            session_options=_session_options(arguments),
        )


def _session_options(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = {name: getattr(arguments, name) for name in _SESSION_OPTIONS}
    return {name: value for name, value in chosen.items() if value is not None}
