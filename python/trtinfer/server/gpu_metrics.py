"""What NVIDIA's driver says of the GPUs of this machine, under Triton's names."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

logger = logging.getLogger("trtinfer")

#: Name, help, and how to read the value of a device from the driver's library (NVML).
_READINGS: tuple[tuple[str, str, Callable[[Any, Any], float]], ...] = (
    (
        "nv_gpu_utilization",
        "Part of the last sample period in which kernels ran, 0 to 1",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    (
        "nv_gpu_memory_total_bytes",
        "Memory of the GPU",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    (
        "nv_gpu_memory_used_bytes",
        "Memory that is in use, by all processes",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    (
        "nv_gpu_power_usage",
        "Power in watts",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    ),
    (
        "nv_gpu_power_limit",
        "Power limit in watts",
        lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3,
    ),
    (
        "nv_energy_consumption",
        "Energy in joules since the driver was loaded",
        lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,
    ),
)


def read() -> Iterator[tuple[str, str, Mapping[str, str], float]]:
    """Yield name, help, labels and value of each reading; none without a driver. Blocks."""
    nvml, gpus = _open()
    for uuid, gpu in gpus.items():
        for name, text, value in _READINGS:
            try:
                yield name, text, {"gpu_uuid": uuid}, value(nvml, gpu)
            except nvml.NVMLError as error:  # not every GPU tells everything
                logger.debug("%s of %s cannot be read: %s", name, uuid, error)


@functools.cache
def _open() -> tuple[Any, dict[str, Any]]:
    """Return the driver's library, and the handles of all GPUs by their UUID."""
    try:
        import pynvml
    except ImportError:
        return None, {}
    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return pynvml, {pynvml.nvmlDeviceGetUUID(handle): handle for handle in handles}
    except pynvml.NVMLError as error:
        logger.debug("there is no driver to ask about GPUs: %s", error)
        return None, {}
