"""Ray Serve as a contender of bench_overhead.py, with all its processes in a child of their own.

Ray's processes would take time from the others, so they live for one turn only: 10 s to start.
    python bench/ray_serve.py MODEL THREADS|TASKS CALLERS SECONDS
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from batchers import MAX_BATCH_SIZE, Array, Ask, AsyncAsk, open_directly
from measuring import Load, Sample, measure_tasks, measure_threads
from overhead_model import check, make_inputs

installed = importlib.util.find_spec("ray") is not None


def measure(model: bytes, is_async: bool, callers: int, seconds: float) -> Sample:
    """One turn in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model)
        file.flush()
        kind = "tasks" if is_async else "threads"
        command = [sys.executable, __file__, file.name, kind, str(callers), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"Ray Serve failed: {done.stderr[-2000:]}")
    return Sample(**json.loads(done.stdout.splitlines()[-1]))


class _Replica:
    def __init__(self, model: bytes) -> None:
        self._run = open_directly(model).run

    async def __call__(self, rows: list[Array]) -> list[Array]:
        return list(self._run(None, {"x": np.stack(rows)})[0])


@contextmanager
def _serving(model: bytes) -> Iterator[Any]:
    import ray
    from ray import serve

    class Replica(_Replica):
        __call__ = serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0.0)(
            _Replica.__call__
        )

    ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    deployment = serve.deployment(Replica, max_ongoing_requests=1024)
    try:
        yield serve.run(deployment.bind(model))
    finally:
        serve.shutdown()
        ray.shutdown()


@contextmanager
def _threads(handle: Any) -> Iterator[Ask]:
    yield lambda x: handle.remote(x).result()


@contextmanager
def _tasks(handle: Any) -> Iterator[AsyncAsk]:
    async def ask(x: Array) -> Array:
        return await handle.remote(x)  # type: ignore[no-any-return]

    yield ask


def main() -> None:
    path, kind, callers, seconds = sys.argv[1:]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    load = Load(make_inputs(int(callers)), check, float(seconds))
    with _serving(Path(path).read_bytes()) as handle:
        if kind == "tasks":
            sample = asyncio.run(measure_tasks(_tasks(handle), load))
        else:
            sample = measure_threads(_threads(handle), load)
    print(json.dumps(asdict(sample)))


if __name__ == "__main__":
    main()
