"""Triton's metrics of GPUs, with a driver's library of the test's own; on a GPU, with NVIDIA's."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from models import matmul_model
from serving import serving

from trtinfer.server import gpu_metrics


class NVMLError(Exception):
    pass


def library(**changes: Any) -> types.SimpleNamespace:
    """Two GPUs as NVML describes them."""

    def refuse(gpu: int) -> int:
        raise NVMLError("Not Supported")

    functions = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda gpu: f"GPU-{gpu}",
        "nvmlDeviceGetUtilizationRates": lambda gpu: types.SimpleNamespace(gpu=40 + gpu),
        "nvmlDeviceGetMemoryInfo": lambda gpu: types.SimpleNamespace(total=8 << 30, used=gpu << 30),
        "nvmlDeviceGetPowerUsage": lambda gpu: 71_500,
        "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: 700_000,
        "nvmlDeviceGetTotalEnergyConsumption": refuse,
    }
    return types.SimpleNamespace(**{**functions, **changes})


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    gpu_metrics._open.cache_clear()
    yield
    gpu_metrics._open.cache_clear()


def test_gpus_are_told_of_under_tritons_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library())  # type: ignore[arg-type]
    with serving({"m": matmul_model()}, tmp_path) as served:
        lines = served.ask("GET", "/metrics")[1].decode().splitlines()
    assert 'nv_gpu_utilization{gpu_uuid="GPU-0"} 0.4' in lines
    assert 'nv_gpu_utilization{gpu_uuid="GPU-1"} 0.41' in lines
    assert f'nv_gpu_memory_total_bytes{{gpu_uuid="GPU-1"}} {8 << 30}' in lines
    assert f'nv_gpu_memory_used_bytes{{gpu_uuid="GPU-1"}} {1 << 30}' in lines
    assert 'nv_gpu_power_usage{gpu_uuid="GPU-0"} 71.5' in lines
    assert 'nv_gpu_power_limit{gpu_uuid="GPU-0"} 700.0' in lines
    assert "# TYPE nv_gpu_utilization gauge" in lines
    assert not any(line.startswith("nv_energy_consumption") for line in lines)  # not supported


def test_energy_is_a_counter_in_joules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = library(nvmlDeviceGetTotalEnergyConsumption=lambda gpu: 5_250)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    with serving({"m": matmul_model()}, tmp_path) as served:
        lines = served.ask("GET", "/metrics")[1].decode().splitlines()
    assert "# TYPE nv_energy_consumption counter" in lines
    assert 'nv_energy_consumption{gpu_uuid="GPU-0"} 5.25' in lines


@pytest.mark.parametrize("missing", ["library", "driver"])
def test_without_a_driver_there_is_nothing_to_tell(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise NVMLError("Driver Not Loaded")

    nvml = None if missing == "library" else library(nvmlInit=refuse)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    assert list(gpu_metrics.read()) == []


@pytest.mark.gpu
def test_the_driver_of_this_machine_is_asked() -> None:
    values = {(read.name, read.labels["gpu_uuid"]): read.value for read in gpu_metrics.read()}
    names = {name for name, _ in values}
    assert {"nv_gpu_utilization", "nv_gpu_memory_total_bytes", "nv_gpu_power_usage"} <= names
    for (name, uuid), value in values.items():
        assert uuid.startswith("GPU-")
        if name == "nv_gpu_memory_used_bytes":
            assert 0 < value <= values["nv_gpu_memory_total_bytes", uuid]
        if name == "nv_gpu_utilization":
            assert 0 <= value <= 1
