"""Finding TensorRT, and refusing what only looks like it. Libraries are compiled here from C."""

from __future__ import annotations

import ctypes.util
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import models
import pytest

import trtinfer
from trtinfer import TensorRtOptions, _core, info, tensorrt_library
from trtinfer.cli import main
from trtinfer.errors import BackendError

COMPILER = shutil.which("cc") or shutil.which("gcc")
NO_DRIVER = bool(_core.tensorrt_driver_reason())

PACKAGES = tensorrt_library._PACKAGES

VERSION = "int getInferLibVersion(void) {{ return {}; }}\n"
RTX_EXPORT = "void setInternalLibraryPath(void) {}\n"
RUNTIME = "void* createInferRuntime_INTERNAL(void* logger, int version) {{ {} }}\n"


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    """Only what a test puts somewhere is found."""
    monkeypatch.delenv(tensorrt_library.VARIABLE, raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(tensorrt_library, "_PACKAGES", ())
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)


@pytest.fixture
def compile_library(tmp_path):
    """Makes a shared library out of C, under the name of TensorRT."""
    if COMPILER is None:
        pytest.skip("no C compiler")

    def compile_one(source: str, name: str = "libnvinfer.so.10") -> Path:
        file = tmp_path / name
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", "-xc", "-", "-o", file],
            input=source,
            text=True,
            check=True,
        )
        return file

    return compile_one


def refusal(path: Path) -> str:
    with pytest.raises(BackendError) as raised:
        tensorrt_library.find(path)
    return str(raised.value)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_says_how_to_install_when_nothing_is_found():
    assert tensorrt_library.candidates() == []
    with pytest.raises(BackendError, match="pip install"):
        tensorrt_library.find()


def test_explicit_path_excludes_all_others(tmp_path, monkeypatch):
    here = touch(tmp_path / "here", "libnvinfer.so.10", "libnvonnxparser.so.10")
    there = touch(tmp_path / "there", "libtensorrt_rtx.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(here))
    monkeypatch.setenv(tensorrt_library.VARIABLE, str(here))
    assert [c.library for c in tensorrt_library.candidates()] == [str(here / "libnvinfer.so.10")]
    assert tensorrt_library.candidates()[0].parser == str(here / "libnvonnxparser.so.10")
    (found,) = tensorrt_library.candidates(there)
    assert (found.source, found.library, found.parser) == (
        "argument",
        str(there / "libtensorrt_rtx.so.1"),
        "",
    )
    assert found.flavor == "TensorRT for RTX"


def test_explicit_path_may_be_the_file(tmp_path):
    folder = touch(tmp_path, "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
    (found,) = tensorrt_library.candidates(folder / "libtensorrt_rtx.so.1")
    assert found.parser == str(folder / "libtensorrt_onnxparser_rtx.so.1")


@pytest.mark.parametrize("name", ["absent.so", "."])
def test_explicit_path_without_a_library_is_an_error(tmp_path, name):
    assert str(tmp_path) in refusal(tmp_path / name)


def test_packages_come_first_and_are_not_run_then_folders_then_the_system(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt_library, "_PACKAGES", PACKAGES)
    monkeypatch.syspath_prepend(tmp_path)
    touch(tmp_path / "onnxruntime_ep_nv_tensorrt_rtx", "libtensorrt_rtx.so.1")
    touch(tmp_path / "tensorrt_rtx_libs", "libtensorrt_rtx.so.1")
    touch(tmp_path / "tensorrt_libs", "libnvinfer.so.10", "libnvinfer_plugin.so.10")
    for package, _ in PACKAGES:
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('must not run')")
    folder = touch(tmp_path / "folder", "libnvinfer.so.11")
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{folder}")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.12")
    assert [(c.source, Path(c.library).name) for c in tensorrt_library.candidates()] == [
        ("package tensorrt_libs", "libnvinfer.so.10"),
        ("package tensorrt_rtx_libs", "libtensorrt_rtx.so.1"),
        ("package onnxruntime_ep_nv_tensorrt_rtx", "libtensorrt_rtx.so.1"),
        ("LD_LIBRARY_PATH", "libnvinfer.so.11"),
        ("system loader", "libnvinfer.so.12"),
        ("system loader", "libtensorrt_rtx.so.12"),
    ]
    assert tensorrt_library.candidates()[-1].parser == "libtensorrt_onnxparser_rtx.so.12"


def test_newest_of_a_folder_is_taken(tmp_path):
    touch(tmp_path, "libnvinfer.so.9", "libnvinfer.so.11", "libnvinfer.so.10.16.1")
    touch(tmp_path, "libnvinfer_builder_resource.so.12")
    (found,) = tensorrt_library.candidates(tmp_path)
    assert Path(found.library).name == "libnvinfer.so.11"


def test_the_same_file_is_tried_once(tmp_path, monkeypatch):
    folder = touch(tmp_path / "a", "libnvinfer.so.10")
    (tmp_path / "b").symlink_to(folder)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{folder}:{tmp_path / 'b'}")
    assert len(tensorrt_library.candidates()) == 1


def test_refuses_what_is_no_library(tmp_path):
    touch(tmp_path, "libnvinfer.so.10")
    assert "cannot load" in refusal(tmp_path)


def test_refuses_another_library(compile_library):
    assert "no getInferLibVersion" in refusal(compile_library("int x;"))


@pytest.mark.parametrize(
    ("number", "text"),
    [(8601, "8.6.1"), (10400, "1.4.0"), (10800, "1.8.0"), (120000, "12.0.0"), (0, "0.0.0")],
)
def test_refuses_unknown_releases(compile_library, number, text):
    message = refusal(compile_library(VERSION.format(number)))
    assert f"TensorRT {text} " in message
    assert "unknown release" in message


@pytest.mark.skipif(not NO_DRIVER, reason="there is a driver")
@pytest.mark.parametrize("number", [101303, 110400])
def test_tensorrt_is_not_touched_without_a_driver(compile_library, number):
    crash = RUNTIME.format("__builtin_trap();")
    assert "needs a GPU" in refusal(compile_library(VERSION.format(number) + crash))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return 0;", "gives no runtime"),
        ("return (void*)0x228;", "invalid address"),
        ("return logger;", "holds no function"),
        ("static void* runtime[2]; return runtime;", "holds no function"),
        (
            "static void* vtable[40]; static void* object[2]; static void* runtime[2];"
            "for (int i = 0; i < 40; ++i) vtable[i] = (void*)&getInferLibVersion;"
            "object[0] = runtime[0] = vtable; runtime[1] = object; return runtime;",
            "does not hand itself back",
        ),
    ],
)
def test_garbage_for_a_runtime_is_an_error(compile_library, body, why):
    source = VERSION.format(10601) + RTX_EXPORT + RUNTIME.format(body)
    assert why in refusal(compile_library(source, "libtensorrt_rtx.so.1"))


def test_logger_of_another_interface_is_noticed(compile_library):
    """A library that passes every other check calls slot 9 of our logger."""
    source = (
        VERSION.format(10601)
        + RTX_EXPORT
        + "static void* the_logger; static void* runtime[2]; static int threads = 1;"
        "static void* self(void* x) { return runtime; }"
        "static void* get_logger(void* x) { return the_logger; }"
        + RUNTIME.format(
            "static void* vtable[40]; static void* object[2]; the_logger = logger;"
            "for (int i = 0; i < 40; ++i) vtable[i] = (void*)&self;"
            "vtable[10] = (void*)&get_logger;"
            "object[0] = runtime[0] = vtable; runtime[1] = object;"
            "(*(void (***)(void*, int, char*))logger)[9](logger, 1, 0); return runtime;"
        )
    )
    assert "slot 9 of our logger" in refusal(compile_library(source, "libtensorrt_rtx.so.1"))


def test_next_library_is_tried_after_a_refusal(compile_library, tmp_path, monkeypatch):
    compile_library(VERSION.format(8601), "libnvinfer.so.8")
    compile_library("int x;", "libtensorrt_rtx.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(BackendError) as raised:
        tensorrt_library.find()
    assert "libnvinfer.so.8" in str(raised.value)
    assert "libtensorrt_rtx.so.1" in str(raised.value)


def test_library_of_another_flavor_is_passed_over(tmp_path, monkeypatch):
    touch(tmp_path, "libnvinfer.so.10", "libtensorrt_rtx.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(BackendError) as raised:
        tensorrt_library.find(flavor="TensorRT for RTX")
    message = str(raised.value)
    assert "libnvinfer.so.10 (LD_LIBRARY_PATH): it is TensorRT, but TensorRT for RTX" in message
    assert "libtensorrt_rtx.so.1 (LD_LIBRARY_PATH): cannot load" in message


def test_info_says_why_a_library_is_refused(compile_library, tmp_path, monkeypatch, capsys):
    library = compile_library(VERSION.format(8601), "libnvinfer.so.8")
    monkeypatch.setenv(tensorrt_library.VARIABLE, str(tmp_path))
    (entry,) = info.collect()["tensorrt"]
    assert entry["path"] == str(library)
    assert entry["source"] == tensorrt_library.VARIABLE
    assert "unknown release" in entry["refused"]
    assert main(["info"]) == 0
    (line,) = (text for text in capsys.readouterr().out.splitlines() if str(library) in text)
    assert f"source {tensorrt_library.VARIABLE}" in line
    assert "refused TensorRT 8.6.1" in line


def test_info_survives_a_wrong_variable(tmp_path, monkeypatch):
    monkeypatch.setenv(tensorrt_library.VARIABLE, str(tmp_path / "absent"))
    (entry,) = info.collect()["tensorrt"]
    assert "no such file" in entry["refused"]


def cuda_runtime() -> Path | None:
    """A libcudart on this machine."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    for folder in (*folders, Path("/usr/local/cuda")):
        for file in folder.rglob("libcudart.so.1*"):
            return file
    return None


@pytest.fixture(params=["a text", "our own extension", "the CUDA runtime"])
def wrong_library(request, tmp_path) -> str:
    text = tmp_path / "libtensorrt_rtx.so.1"
    text.write_text("not a library at all")
    libraries = {"a text": text, "our own extension": _core.__file__}
    file = libraries.get(request.param) or cuda_runtime()
    return str(file) if file is not None else pytest.skip("there is no libcudart")


def test_a_wrong_library_is_an_error_that_names_it(wrong_library):
    options = TensorRtOptions(library=wrong_library)
    with pytest.raises(BackendError, match=Path(wrong_library).name):
        trtinfer.Session(models.matmul_model(), backend="tensorrt", tensorrt=options)


@pytest.mark.gpu
def test_a_wrong_library_leaves_the_choice_to_the_cpu(wrong_library, caplog):
    caplog.set_level(logging.INFO, "trtinfer")
    options = TensorRtOptions(library=wrong_library)
    with trtinfer.Session(models.matmul_model(), backend="auto", tensorrt=options) as session:
        assert session.backend == "onnxruntime"
    assert Path(wrong_library).name in caplog.text


def rtx_candidate() -> tensorrt_library.Candidate:
    package = importlib.util.find_spec("tensorrt_rtx_libs")
    if package is None or package.origin is None:
        pytest.skip('needs the extra "tensorrt-rtx"')
    return tensorrt_library.candidates(Path(package.origin).parent)[0]


def test_tensorrt_rtx_is_found_and_usable():
    library = tensorrt_library.find(rtx_candidate().library)
    assert library.is_rtx
    assert library.only_strongly_typed
    assert library.version.startswith("1.")
    assert library.can_build
    assert library.build_reason == ""
    assert tensorrt_library.find(library.path) is library


def test_system_is_not_asked_when_something_before_it_serves(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(Path(rtx_candidate().library).parent))
    monkeypatch.setattr(ctypes.util, "find_library", pytest.fail)
    assert tensorrt_library.find().is_rtx


def test_without_a_parser_nothing_can_be_built():
    library = _core.TensorRtLibrary.load(rtx_candidate().library, "")
    assert not library.can_build
    with pytest.raises(BackendError, match="no ONNX parser"):
        _core.TensorRtBuilder(library)


@pytest.mark.parametrize(
    ("family", "why"),
    [("TENSORRT_10", "does not hand our logger back"), ("TENSORRT_11", "is TensorRT-RTX")],
)
def test_wrong_table_is_an_error_and_no_crash(family, why):
    candidate = rtx_candidate()
    program = (
        "import sys\n"
        "from trtinfer import _core, errors\n"
        "family = getattr(_core.TensorRtFamily, sys.argv[3])\n"
        "try:\n"
        "    _core.TensorRtLibrary.load(sys.argv[1], sys.argv[2], family)\n"
        "except errors.BackendError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, candidate.library, candidate.parser, family],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr
    assert why in run.stdout
