"""The include order of csrc/ and the import order of python/trtinfer/ (docs/design.md)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# For every folder of csrc/, the folders whose headers it may include.
MAY_INCLUDE = {
    "cuda": {"cuda"},
    "ring": {"ring"},
    "preprocess": {"cuda", "preprocess"},
    "onnxruntime": {"cuda", "preprocess", "onnxruntime"},
    "tensorrt": {"cuda", "preprocess", "tensorrt"},
    "pipeline": {"cuda", "ring", "preprocess", "onnxruntime", "tensorrt", "pipeline"},
    "bindings": {"cuda", "ring", "preprocess", "onnxruntime", "tensorrt", "pipeline", "bindings"},
}

# A module imports only modules above it.
MODULE_ORDER = [
    "_core",
    "errors",
    "cache",
    "types",
    "exif",
    "device_tensor",
    "inputs",
    "images",
    "preprocess",
    "completion",
    "ring",
    "trace",
    "batching",
    "backend",
    "metrics",
    "metric_families",
    "batch_policy",
    "buckets",
    "model_source",
    "onnxruntime_backend",
    "tensorrt_library",
    "tf32_override",
    "precision",
    "plan_file",
    "file_lock",
    "plan_cache",
    "progress",
    "build_options",
    "build_target",
    "model_description",
    "plans",
    "tensorrt_options",
    "engines",
    "kernel_cache",
    "model_metadata",
    "tensorrt_backend",
    "opening",
    "intake",
    "closing",
    "session",
    "opentelemetry",
    "prometheus",
    "latency_histogram",
    "load_generator",
    "bench",
    "bench_plots",
    "labels",
    "checkpoint",
    "efficientnet_lite0",
    "default_model",
    "classifier",
    "verify",
    "info",
    "server",
    "command_options",
    "bench_command",
    "cli",
    "__init__",
    "__main__",
]

# Likewise within python/trtinfer/server/, which may import whatever is above it.
SERVER_ORDER = [
    "__init__",
    "arguments",
    "errors",
    "options",
    "datatypes",
    "tensors",
    "trace",
    "trace_file",
    "tracing",
    "slot_body",
    "inference",
    "cuda_memory",
    "shared_memory",
    "classification",
    "model",
    "metadata",
    "statistics",
    "metrics",
    "gpu_metrics",
    "source",
    "grpc.__init__",
    "grpc.messages",
    "model_config",
    "model_folder",
    "repository",
    "state",
    "settings",
    "grpc.tensors",
    "grpc.calls",
    "grpc.core_events",
    "grpc.core_call",
    "grpc.core_server",
    "grpc.inference",
    "grpc.control",
    "grpc.listener",
    "http.__init__",
    "http.message",
    "http.repeated_head",
    "http.compression",
    "http.reader",
    "http.connections",
    "http.connection",
    "http.routes",
    "http.page",
    "http.tensors",
    "http.application",
    "http.inference",
    "http.control",
    "http.classify",
    "http.openapi",
    "http.monitoring",
    "server",
    "command",
]

SOURCES = sorted(
    p for p in (ROOT / "csrc").rglob("*.*") if p.suffix in {".cpp", ".hpp", ".cu", ".cuh"}
)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
MODULES = sorted((ROOT / "python" / "trtinfer").glob("*.py"))
SERVER = ROOT / "python" / "trtinfer" / "server"
SERVER_MODULES = sorted(SERVER.rglob("*.py"))


def own_imports(path: Path, package: str = "trtinfer") -> set[str]:
    """Names of the trtinfer modules that a module imports, inside functions too."""
    return {name.split(".")[0] for name in _imported(path, package)}


def _imported(path: Path, package: str) -> set[str]:
    """Whole names below the package; of `from package import name`, the name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            module = node.module or ""
            if module == package:
                names |= {alias.name for alias in node.names}
            elif module.startswith(f"{package}."):
                below = module.removeprefix(f"{package}.")
                whole = [f"{below}.{alias.name}" for alias in node.names]
                names |= {name if name in SERVER_ORDER else below for name in whole}
        elif isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names if alias.name.startswith(f"{package}.")]
            names |= {name.removeprefix(f"{package}.") for name in dotted}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_includes_go_one_way(path: Path) -> None:
    folder = path.relative_to(ROOT / "csrc").parts[0]
    assert folder in MAY_INCLUDE, f"{folder}/ has no place in the layers"
    for included in re.findall(
        r'^\s*#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"), re.M
    ):
        assert "/" in included, f'#include "{included}" is not relative to csrc/'
        assert (ROOT / "csrc" / included).is_file(), f'#include "{included}" names no file'
        assert included.split("/")[0] in MAY_INCLUDE[folder], (
            f"{folder}/ may not include {included}"
        )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_bindings_know_python(path: Path) -> None:
    if path.relative_to(ROOT / "csrc").parts[0] != "bindings":
        assert not re.search(r"pybind11|Python\.h|\bPyObject\b", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_go_one_way(path: Path) -> None:
    assert path.stem in MODULE_ORDER, f"{path.name} has no place in the layers"
    above = set(MODULE_ORDER[: MODULE_ORDER.index(path.stem)])
    assert own_imports(path) <= above


@pytest.mark.parametrize("path", SERVER_MODULES, ids=lambda p: str(p.relative_to(SERVER)))
def test_imports_within_the_server_go_one_way(path: Path) -> None:
    name = ".".join(path.relative_to(SERVER).with_suffix("").parts)
    assert name in SERVER_ORDER, f"{name} has no place in the layers"
    above = set(SERVER_ORDER[: SERVER_ORDER.index(name)])
    assert _imported(path, "trtinfer.server") <= above
    outside = set(MODULE_ORDER[: MODULE_ORDER.index("server") + 1])
    assert own_imports(path) <= outside


def test_every_form_of_import_is_seen(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import trtinfer.cli\nfrom trtinfer import _core\n"
        "def f():\n    from trtinfer.session import Session\n"
    )
    assert own_imports(module) == {"cli", "_core", "session"}
