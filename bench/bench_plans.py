"""What does a plan for each batch size cost in memory, and one for all of them in latency?

ResNet-50 in half precision (random weights), batches up to 64, opened with a plan for each bucket
and with one dynamic plan: bytes of the plans, memory that an open session takes on the GPU, seconds
of the first opening (which builds plans and compiles kernels) and of the next one, and the median
time of `Session.infer` on one request and on batches of 8 and 64. Needs a GPU.
    python bench/bench_plans.py [--repeats 200] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import resnet50
from measuring import clock, describe_machine, quantiles, write_json

import trtinfer
from trtinfer import BuildOptions, TensorRtOptions, _core
from trtinfer.plan_cache import PlanCache

BATCHES = (1, 8, 64)
KINDS = {"a plan for each": False, "one dynamic plan": True}


def open_session(model: bytes, dynamic: bool) -> trtinfer.Session:
    options = TensorRtOptions(build=BuildOptions(dynamic_batch=dynamic))
    return trtinfer.Session(
        model, backend="tensorrt", max_batch_size=max(BATCHES), batched=True, tensorrt=options
    )


def latency(session: trtinfer.Session, batch: int, repeats: int) -> float:
    """The median microseconds of a request of so many samples."""
    x = np.random.default_rng(batch).random((batch, 3, resnet50.SIDE, resnet50.SIDE))
    x = x.astype(np.float16)
    times = []
    for _ in range(repeats):
        begin = clock()
        session.infer(x)
        times.append(clock() - begin)
    return quantiles(times[repeats // 10 :])[0]


def measure(model: bytes, dynamic: bool, repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRTINFER_CACHE"] = folder
        begin = time.perf_counter()
        open_session(model, dynamic).close()
        first = time.perf_counter() - begin
        plans = [e.bytes for e in PlanCache().entries() if e.key["kind"] == "plan"]
        free = _core.gpu_memory()[0]
        begin = time.perf_counter()
        with open_session(model, dynamic) as session:
            again = time.perf_counter() - begin
            times = {f"batch {size}, us": latency(session, size, repeats) for size in BATCHES}
            taken = free - _core.gpu_memory()[0]
    return {
        "plans": len(plans),
        "plans, MB": sum(plans) / 1e6,
        "on the GPU, MB": taken / 1e6,
        "opens first, s": first,
        "opens again, s": again,
        **times,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = describe_machine("trtinfer", "tensorrt-rtx-cu13-libs", "numpy")
    model = resnet50.build()
    rows = {kind: measure(model, dynamic, options.repeats) for kind, dynamic in KINDS.items()}
    print(machine, "", f"|  | {' | '.join(rows)} |", "|---|---:|---:|", sep="\n")
    for what in next(iter(rows.values())):
        print(f"| {what} | {' | '.join(f'{row[what]:,.1f}' for row in rows.values())} |")
    if options.json:
        write_json(options.json, machine=machine, plans=rows)


if __name__ == "__main__":
    main()
