"""The built extension: importable anywhere, symbols hidden, nothing linked that may be absent."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trtinfer
from trtinfer import _core

ROOT = Path(__file__).resolve().parents[1]
EXTENSION = Path(_core.__file__)


def readelf(flag: str) -> str:
    program = shutil.which("readelf")
    if program is None:
        pytest.skip("readelf is not installed")
    return subprocess.run(
        [program, "--wide", flag, str(EXTENSION)], capture_output=True, text=True, check=True
    ).stdout


def run_python(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, check=True, timeout=60, env={**os.environ, **environment},
    ).stdout.strip()  # fmt: skip


def test_version_comes_from_one_place() -> None:
    declared = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert declared is not None
    assert trtinfer.__version__ == declared[1] == importlib.metadata.version("trtinfer")


def test_links_only_glibc() -> None:
    needed = set(re.findall(r"\(NEEDED\).*\[(.+?)\]", readelf("--dynamic")))
    assert needed <= {
        "libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0",
        "libgcc_s.so.1",  # glibc itself unwinds with it
        "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
    }  # fmt: skip


def test_exports_only_the_module_entry() -> None:
    exported = re.findall(
        r"(?:FUNC|OBJECT)\s+(?:GLOBAL|WEAK|UNIQUE)\s+DEFAULT\s+\d+\s+(\S+)", readelf("--dyn-syms")
    )
    assert exported == ["PyInit__core"]


def test_holds_machine_code_exactly_when_compiled_with_cuda() -> None:
    assert (".nv_fatbin" in readelf("--sections")) == _core.probe_cuda().compiled


def test_imports_where_no_gpu_is_visible() -> None:
    code = "from trtinfer import _core; p = _core.probe_cuda(); print(p.devices, '|', p.reason)"
    devices, reason = run_python(code, CUDA_VISIBLE_DEVICES="").split("|")
    assert devices.strip() == "[]"
    assert "no GPU" in reason


def test_probe_is_consistent() -> None:
    probe = _core.probe_cuda()
    assert bool(probe.devices) == (probe.reason == "")
    assert (probe.runtime_version >= 12080) == probe.compiled


def test_kernels_without_a_gpu_raise_and_do_not_crash() -> None:
    absent = len(_core.probe_cuda().devices)
    with pytest.raises(trtinfer.BackendError, match="CUDA error"):
        _core.code_architecture(absent)


@pytest.mark.gpu
def test_kernels_run_on_every_gpu() -> None:
    for device in _core.probe_cuda().devices:
        major, minor = device.compute_capability
        assert 750 <= _core.code_architecture(device.index) <= 100 * major + 10 * minor


@pytest.mark.gpu
def test_probe_lists_every_gpu() -> None:
    probe = _core.probe_cuda()
    address = r"[0-9A-Fa-f]{4,}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d"
    assert [device.index for device in probe.devices] == list(range(len(probe.devices)))
    for device in probe.devices:
        assert device.name
        assert device.compute_capability >= (7, 5)
        assert device.memory_bytes > 2**30
        assert re.fullmatch(address, device.pci_address)
    assert probe.driver_version >= probe.runtime_version // 1000 * 1000


def test_every_error_is_a_trtinfer_error() -> None:
    for name in trtinfer.__all__:
        value = getattr(trtinfer, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, trtinfer.TrtInferError)
    assert issubclass(trtinfer.InputError, ValueError)
    assert issubclass(trtinfer.DeadlineExceededError, TimeoutError)


def test_ships_its_types() -> None:
    package = Path(trtinfer.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()
