"""Triton's perf_analyzer profiles the server as it does Triton.

TRTINFER_PERF_ANALYZER is the path of the program: `bin/perf_analyzer` of the wheel of tritonclient
2.49.0, which needs libb64 (Debian: libb64-0d) and libcudart (nvidia-cuda-runtime-cu12) on
LD_LIBRARY_PATH.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from models import matmul_model
from serving import serving

PROGRAM = os.environ.get("TRTINFER_PERF_ANALYZER")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="TRTINFER_PERF_ANALYZER is not set"),
]

CLOSED = ["--concurrency-range", "8"]
POISSON = ["--request-rate-range", "300", "--request-distribution", "poisson"]
SHARED = ["--shared-memory", "system", "--output-shared-memory-size", "64", *CLOSED]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    "load",
    [CLOSED, POISSON, SHARED, [*CLOSED, "--streaming"]],
    ids=lambda load: load[0][2:] + load[-1],
)
def test_a_profile_completes(tmp_path: Path, protocol: str, load: list[str]) -> None:
    if protocol == "http" and "--streaming" in load:
        pytest.skip("HTTP has no streams")
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
