"""`trtinfer serve`: from its arguments to a running server."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import uvloop

from trtinfer.errors import ModelError
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
    uvloop.run(_serve(list(_sources(arguments)), _options(arguments)))
    return 0


async def _serve(sources: list[Source], options: ServerOptions) -> None:
    server = Server(sources, options)
    try:
        await server.start()
    except OSError as error:
        raise ValueError(f"cannot listen on {options.host}: {error}") from error
    host = f"[{options.host}]" if ":" in options.host else options.host
    for name, port in (("HTTP", server.http_port), ("gRPC", server.grpc_port)):
        if port is not None:
            print(f"trtinfer serves {name} on {host}:{port}", flush=True)
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


def _sources(arguments: argparse.Namespace) -> Iterator[Source]:
    chosen = {name: getattr(arguments, name) for name in _SESSION_OPTIONS}
    options = {name: value for name, value in chosen.items() if value is not None}
    names = set()
    for name, path in _named_paths(arguments.models):
        if name in names:
            raise ModelError(f"two models are called {name!r}: name one of them, NAME=FILE")
        names.add(name)
        yield FileSource(
            name=name,
            path=path,
            recipe=arguments.recipe,
            labels=arguments.labels,
            timeout=arguments.timeout,
            session_options=options,
        )


def _named_paths(models: list[str]) -> Iterator[tuple[str, str | None]]:
    if not models:
        yield _DEFAULT_NAME, None
    for model in models:
        name, _, path = model.rpartition("=")
        yield name or Path(path).stem, path
