"""The servers of bench_server.py, each in a process of its own: python servers.py NAME MODEL PORT.

All answer a body of float32 elements, one sample, with the elements of the output. Each peer is
imported only where it runs, so that each may live in an environment of its own.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np

MAX_BATCH_SIZE = 64


class Network:
    """The model, run directly, with one thread."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        info = self._session.get_inputs()[0]
        self._name, self._shape = info.name, tuple(info.shape[1:])

    def read(self, body: bytes) -> Any:
        return np.frombuffer(body, np.float32).reshape(self._shape)

    def run(self, rows: Any) -> Any:
        return self._session.run(None, {self._name: np.stack(rows)})[0]


def uvicorn(model: str, port: int) -> None:
    """A bare ASGI application that calls session.run itself."""
    import uvicorn

    network = Network(model)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = network.run([network.read(body)])[0].tobytes()
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(
        application,
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="error",
        access_log=False,
    )


def mosec(model: str, port: int) -> None:
    import mosec

    class Worker(mosec.Worker):
        def __init__(self) -> None:
            self._network = Network(model)

        def deserialize(self, data: bytes) -> Any:
            return self._network.read(data)

        def forward(self, data: Any) -> Any:
            return list(self._network.run(data))

        def serialize(self, data: Any) -> bytes:
            return bytes(data.tobytes())

    sys.argv = ["mosec", "--port", str(port), "--log-level", "error"]
    server = mosec.Server()
    batch = {"max_batch_size": MAX_BATCH_SIZE, "max_wait_time": 1}  # milliseconds
    server.append_worker(Worker, start_method="fork", **batch)
    server.run()


def litserve(model: str, port: int) -> None:
    import litserve
    from litserve_api import Api

    api = Api(model, max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.0)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=port, generate_client_file=False, log_level="error")


def trtinfer(model: str, port: int) -> None:
    command = [sys.executable, "-m", "trtinfer", "serve", f"model={model}"]
    command += ["--http", str(port), "--grpc", str(port + 1)]
    sys.exit(subprocess.run(command, check=False).returncode)


SERVERS = {run.__name__: run for run in (trtinfer, uvicorn, mosec, litserve)}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
