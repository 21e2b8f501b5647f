"""mosec: one worker behind its front end; 1 ms is the shortest wait that it takes."""

from __future__ import annotations

import sys
from typing import Any

import mosec
from network import MAX_BATCH_SIZE, Arguments, Network


class Worker(mosec.Worker):
    path = ""

    def __init__(self) -> None:
        self._network = Network(self.path)

    def deserialize(self, data: bytes) -> Any:
        return self._network.read(data)

    def forward(self, data: Any) -> Any:
        return list(self._network.run(data))

    def serialize(self, data: Any) -> bytes:
        return bytes(data.tobytes())


if __name__ == "__main__":
    arguments = Arguments.read()
    Worker.path = arguments.model
    sys.argv = ["mosec", "--port", str(arguments.http_port), "--log-level", "error"]
    server = mosec.Server()
    batch = {"max_batch_size": MAX_BATCH_SIZE, "max_wait_time": 1}
    server.append_worker(Worker, start_method="fork", **batch)
    server.run()
