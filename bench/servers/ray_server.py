"""Ray Serve: one replica behind its proxy, greedy batches."""

from __future__ import annotations

import signal

import ray
from network import MAX_BATCH_SIZE, Arguments, Network
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=1024)
class Replica:
    def __init__(self, model: str) -> None:
        self._network = Network(model)

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0.0)
    async def run(self, bodies: list[bytes]) -> list[bytes]:
        rows = [self._network.read(body) for body in bodies]
        return [row.tobytes() for row in self._network.run(rows)]

    async def __call__(self, request: Request) -> Response:
        return Response(await self.run(await request.body()))


if __name__ == "__main__":
    arguments = Arguments.read()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": arguments.http_port})
        serve.run(Replica.bind(arguments.model))
        signal.pause()
    finally:
        ray.shutdown()
