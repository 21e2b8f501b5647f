"""BentoML: what it batches is read from JSON, so elements are in base64 there, both ways."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

import bentoml
from network import MAX_BATCH_SIZE, Arguments, Network

_MODEL = "BENCH_MODEL"  # the service is imported by workers, which see no arguments


@bentoml.service(workers=1, metrics={"enabled": False}, traffic={"timeout": 60})
class Service:
    def __init__(self) -> None:
        self._network = Network(os.environ[_MODEL])

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=60_000)
    def infer(self, bodies: list[str]) -> list[str]:
        rows = [self._network.read(base64.b64decode(body)) for body in bodies]
        return [base64.b64encode(row.tobytes()).decode() for row in self._network.run(rows)]


if __name__ == "__main__":
    arguments = Arguments.read()
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_server:Service"]
    command += ["--host", "127.0.0.1", "--port", str(arguments.http_port)]
    environment = {
        **os.environ,
        _MODEL: arguments.model,
        "BENTOML_DO_NOT_TRACK": "True",
    }
    folder = os.path.dirname(__file__)
    sys.exit(subprocess.run(command, cwd=folder, env=environment, check=False).returncode)
