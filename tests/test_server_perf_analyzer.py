"""Triton's perf_analyzer profiles the server as it does Triton.

`make test-programs` gets the program; TRTINFER_PERF_ANALYZER is its path.
"""

from __future__ import annotations

import os
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest
from models import matmul_model
from serving import serving

PROGRAM = os.environ.get("TRTINFER_PERF_ANALYZER")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs TRTINFER_PERF_ANALYZER"),
]

CLOSED = ["--concurrency-range", "8"]
POISSON = ["--request-rate-range", "300", "--request-distribution", "poisson"]
SHARED = ["--shared-memory", "system", "--output-shared-memory-size", "64", *CLOSED]


@pytest.mark.parametrize(
    ("protocol", "load"),
    [
        *product(["http", "grpc"], [CLOSED, POISSON, SHARED]),
        ("grpc", [*CLOSED, "--streaming"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0][2:] + value[-1],
)
def test_a_profile_completes(tmp_path: Path, protocol: str, load: list[str]) -> None:
    with serving({"m": matmul_model()}, tmp_path, grpc_port=0, allow_shared_memory=True) as served:
        address = served.address if protocol == "http" else served.grpc_address
        window = ["--measurement-interval", "1000", "--stability-percentage", "999"]
        command = [str(PROGRAM), "-m", "m", "-i", protocol, "-u", address, *window, *load]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    throughput = re.search(r"Throughput: ([\d.]+) infer/sec", done.stdout)
    assert throughput is not None
    assert float(throughput[1]) > 100
    assert "Failed" not in done.stdout
