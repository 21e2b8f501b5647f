"""`trtinfer info`: says what is true on this machine, and loads nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np

import trtinfer
from trtinfer import _core, info


def test_facts_are_plain_values():
    facts = info.collect()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["trtinfer"] == trtinfer.__version__
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["onnxruntime"]["version"] == version("onnxruntime")
    assert os.path.isdir(facts["onnxruntime"]["path"])
    assert facts["cpu"]["usable_cores"] == len(os.sched_getaffinity(0))
    assert facts["cpu"]["model"]


def test_gpus_are_those_of_the_core():
    probe = _core.probe_cuda()
    gpu = info.collect()["gpu"]
    assert [device["name"] for device in gpu["devices"]] == [d.name for d in probe.devices]
    assert bool(gpu["reason"]) == (not probe.devices)
    assert gpu["cuda_compiled"] == probe.compiled


def test_finds_tensorrt_packages_without_loading_them(tmp_path, monkeypatch):
    before = info.collect()["tensorrt"]
    package = tmp_path / "tensorrt_rtx_libs"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the package must not run')")
    (package / "libtensorrt_rtx.so.1").write_bytes(b"no library")
    monkeypatch.syspath_prepend(tmp_path)
    found = [entry for entry in info.collect()["tensorrt"] if entry not in before]
    assert [entry["flavor"] for entry in found] == ["TensorRT for RTX"]
    assert found[0]["path"] == str(package / "libtensorrt_rtx.so.1")


def test_cache_size_is_of_the_folder_in_use(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path))
    (tmp_path / "plan").write_bytes(bytes(77))
    assert info.collect()["cache"] == {"path": str(tmp_path), "bytes": 77}


def test_auto_backend_is_what_a_session_takes():
    from classification import COLORS, SIZE, model

    recipe = trtinfer.Recipe(resize=SIZE, crop=SIZE)
    with trtinfer.Classifier(model(), COLORS, recipe, backend="auto") as classifier:
        assert info.collect()["auto_backend"]["name"] == classifier.session.backend


def test_unusable_cpu_list_is_respected():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from trtinfer import info; print(info.collect()['cpu']['usable_cores'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert run.stdout == "1\n"
