"""What NVIDIA's driver says of the GPUs of this machine, under Triton's names."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

from trtinfer.server.metrics import Reading

logger = logging.getLogger("trtinfer")

#: Name, kind, help, and how to read the value of a device from the driver's library (NVML).
_READINGS: tuple[tuple[str, str, str, Callable[[Any, Any], float]], ...] = (
    (
        "nv_gpu_utilization",
        "gauge",
        "Part of the last sample period in which kernels ran, 0 to 1",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    (
        "nv_gpu_memory_total_bytes",
        "gauge",
        "Memory of the GPU",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    (
        "nv_gpu_memory_used_bytes",
        "gauge",
        "Memory that is in use, by all processes",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    (
        "nv_gpu_power_usage",
        "gauge",
        "Power in watts",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    ),
    (
        "nv_gpu_power_limit",
        "gauge",
        "Power limit in watts",
        lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3,
    ),
    (
        "nv_energy_consumption",
        "counter",
        "Energy in joules since the driver was loaded",
        lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,
    ),
)


def read() -> Iterator[Reading]:
    """Yield what is known of each GPU, nothing without a driver; blocks."""
    nvml, gpus = _open()
    for uuid, gpu in gpus.items():
        for name, kind, text, value in _READINGS:
            try:
                yield Reading(name, kind, text, {"gpu_uuid": uuid}, value(nvml, gpu))
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
