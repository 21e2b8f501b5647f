"""The process of a server of bench_server.py, with all its children on one core."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SERVERS = Path(__file__).with_name("servers")
NAMES = sorted(path.stem.removesuffix("_server") for path in _SERVERS.glob("*_server.py"))


@dataclass(frozen=True)
class Server:
    """A server under way: whose it is, and where it listens."""

    name: str
    http_port: int
    grpc_port: int


def cores() -> tuple[int, int]:
    """The core of servers and that of their clients."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise RuntimeError("a core for the server and one for its client are needed")
    return available[0], available[-1]


def pinned(core: int, *command: str) -> list[str]:
    """A command that runs on one core, as whatever it starts."""
    return ["taskset", "--cpu-list", str(core), *command]


@contextmanager
def running(name: str, python: str, model: Path) -> Iterator[Server]:
    """A server that was started; it may not answer yet."""
    server = Server(name, *_free_ports())
    script = str(_SERVERS / f"{name}_server.py")
    arguments = [str(model), str(server.http_port), str(server.grpc_port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            pinned(cores()[0], python, script, *arguments),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield server
        except Exception:
            log.seek(0)
            print(f"{name} said: {log.read()[-4000:].decode(errors='replace')}")
            raise
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, then end what is left of its session."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        pass
    for pid in _session(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def _session(session: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == session:
                yield int(path.name)
        except ProcessLookupError:
            continue


def _free_ports() -> tuple[int, int]:
    with socket.socket() as http, socket.socket() as grpc:
        http.bind(("127.0.0.1", 0))
        grpc.bind(("127.0.0.1", 0))
        return http.getsockname()[1], grpc.getsockname()[1]
