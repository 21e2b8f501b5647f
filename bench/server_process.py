"""The process of a server of bench_server.py, with all its children on one core."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SERVERS = Path(__file__).with_name("servers")
_MARK = "TRTINFER_BENCH_SERVER"  # in the environment of a server
NAMES = sorted(path.stem.removesuffix("_server") for path in _SERVERS.glob("*_server.py"))


@dataclass(frozen=True)
class Server:
    """A server under way: whose it is, and where it listens."""

    name: str
    http_port: int
    grpc_port: int

    @property
    def cpu_seconds(self) -> float:
        """Of all its processes so far."""
        ticks = 0
        for pid in _processes(self.http_port):
            with suppress(OSError):  # it may have ended
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


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
            env={**os.environ, _MARK: str(server.http_port)},
        )
        try:
            yield server
        except Exception:
            log.seek(0)
            print(f"{name} said: {log.read()[-4000:].decode(errors='replace')}")
            raise
        finally:
            _end(process, server)


def _end(process: subprocess.Popen[bytes], server: Server) -> None:
    """Ask the server to end, then end what it has left behind."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for pid in _processes(server.http_port):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _processes(port: int) -> Iterator[int]:
    """The server's processes; some start sessions of their own, but all inherit the mark."""
    mark = f"{_MARK}={port}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it may have ended
            if mark in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as http, socket.socket() as grpc:
        http.bind(("127.0.0.1", 0))
        grpc.bind(("127.0.0.1", 0))
        return http.getsockname()[1], grpc.getsockname()[1]
