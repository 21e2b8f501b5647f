"""Tests marked `gpu` are skipped without a GPU; TRTINFER_REQUIRE_GPU=1 makes that a failure.

`gpu(2)` needs two of them; with one only, it is skipped in any case.
"""

from __future__ import annotations

import os

import pytest

from trtinfer import _core

GPU_REQUIRED = os.environ.get("TRTINFER_REQUIRE_GPU") == "1"


def pytest_report_header() -> str:
    probe = _core.probe_cuda()
    found = ", ".join(device.name for device in probe.devices) or probe.reason
    return f"trtinfer {_core.__version__}, GPU: {found}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        return
    reason = _core.probe_cuda().reason
    if reason and GPU_REQUIRED:
        pytest.fail(f"TRTINFER_REQUIRE_GPU=1, but {reason}")
    if reason:
        pytest.skip(reason)
    if _lacks_gpus(item):
        pytest.skip("there are too few GPUs")


def _lacks_gpus(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("gpu")
    found = len(_core.probe_cuda().devices)
    return marker is not None and 0 < found < (marker.args or (1,))[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> object:
    """Turns any other skip of a gpu test (a library not found, say) into a failure as well."""
    report = yield
    marked = item.get_closest_marker("gpu") is not None and not _lacks_gpus(item)
    if GPU_REQUIRED and report.skipped and marked:
        report.outcome = "failed"
        report.longrepr = f"TRTINFER_REQUIRE_GPU=1, but the test was skipped: {report.longrepr}"
    return report
