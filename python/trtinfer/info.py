"""What this machine has for inference, as `trtinfer info` shows it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from trtinfer import _core, cache, tensorrt_backend, tensorrt_library
from trtinfer.errors import BackendError, TrtInferError


def collect() -> dict[str, Any]:
    """Looks at the machine.

    Returns:
        A tree of plain values that `json.dumps` takes: `versions`, `gpu`, `tensorrt`,
        `onnxruntime`, `cpu`, `cache` and `auto_backend`.
    """
    return {
        "versions": _versions(),
        "gpu": _gpu(),
        "tensorrt": _tensorrt(),
        "onnxruntime": _onnxruntime(),
        "cpu": _cpu(),
        "cache": _cache(),
        "auto_backend": _auto_backend(),
    }


def summary(*packages: str) -> str:
    """The machine in one line, for the foot of a plot: processors, Python, versions of packages."""
    found = [f"{len(os.sched_getaffinity(0))} cores of {_cpu_model()}"]
    found += [device.name for device in _core.probe_cuda().devices]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return ", ".join([*found, f"Python {platform.python_version()}", *versions])


def _versions() -> dict[str, str]:
    return {
        "trtinfer": _core.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "executable": sys.executable,
    }


def _gpu() -> dict[str, Any]:
    probe = _core.probe_cuda()
    return {
        "cuda_compiled": probe.compiled,
        "driver_supports_cuda": _cuda_version(probe.driver_version),
        "runtime_cuda": _cuda_version(probe.runtime_version),
        "reason": probe.reason or None,
        "devices": [
            {
                "index": device.index,
                "name": device.name,
                "compute_capability": "{}.{}".format(*device.compute_capability),
                "memory_gib": round(device.memory_bytes / 2**30, 1),
                "pci_address": device.pci_address,
            }
            for device in probe.devices
        ],
    }


def _cuda_version(number: int) -> str | None:
    """CUDA writes 13.2 as 13020, and 0 for none."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def _tensorrt() -> list[dict[str, Any]]:
    """The TensorRT libraries that are installed, in the order in which they are tried."""
    try:
        return [_describe(candidate) for candidate in tensorrt_library.candidates()]
    except BackendError as error:
        return [{"refused": str(error)}]


def _describe(candidate: tensorrt_library.Candidate) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "flavor": candidate.flavor,
        "version": None,
        "path": candidate.library,
        "source": candidate.source,
        "refused": None,
        "cannot_build": None,
    }
    try:
        library = candidate.load()
    except BackendError as error:
        return facts | {"refused": str(error)}
    return facts | {"version": library.version, "cannot_build": library.build_reason or None}


def _onnxruntime() -> dict[str, Any]:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return {"version": None, "path": None}
    names = importlib.metadata.packages_distributions().get("onnxruntime", [])
    version = importlib.metadata.version(names[0]) if names else None
    return {"version": version, "path": str(Path(spec.origin).parent)}


def _cpu() -> dict[str, Any]:
    return {
        "model": _cpu_model(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _cache() -> dict[str, Any]:
    try:
        return {"path": str(cache.folder()), "bytes": cache.size()}
    except TrtInferError as error:
        return {"path": None, "bytes": 0, "reason": str(error)}


def _auto_backend() -> dict[str, str]:
    """What `Session(backend="auto")` chooses here."""
    reason = tensorrt_backend.unusable_reason()
    if reason:
        return {"name": "onnxruntime", "reason": reason}
    return {"name": "tensorrt", "reason": "a GPU and a TensorRT library for it are there"}
