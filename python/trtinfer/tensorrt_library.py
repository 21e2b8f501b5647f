"""Finding TensorRT: which libraries this machine has, and the first of them that can be used.

No package of NVIDIA's is imported; only its files are looked at. The order: an explicit path (the
argument, else the environment variable TRTINFER_TENSORRT), the PyPI packages `tensorrt_libs` and
`tensorrt_rtx_libs`, the copy in `onnxruntime_ep_nv_tensorrt_rtx`, the folders of LD_LIBRARY_PATH,
and what the system's loader knows.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trtinfer import _core
from trtinfer.errors import BackendError

VARIABLE = "TRTINFER_TENSORRT"

_TENSORRT = ("libnvinfer.so", "libnvonnxparser.so")
_RTX = ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so")
_LEAN = ("libnvinfer_lean.so", "libnvonnxparser.so")
# Module that a distribution installs, and the library and the parser in it.
_PACKAGES = (
    ("tensorrt_libs", _TENSORRT),
    ("tensorrt_rtx_libs", _RTX),
    ("onnxruntime_ep_nv_tensorrt_rtx", _RTX),
)
_INSTALL = (
    'run: pip install "trtinfer[tensorrt]" or "trtinfer[tensorrt-rtx]", '
    f"or set {VARIABLE} to the library or its folder"
)


@dataclass(frozen=True)
class Candidate:
    """A TensorRT library that was found.

    Attributes:
        source: Where it was looked for: "TRTINFER_TENSORRT", "package tensorrt_libs", ...
        library: Path of libnvinfer or libtensorrt_rtx, or its name for the system's loader.
        parser: The same of the ONNX parser; empty when there is none, so that nothing can be built.
    """

    source: str
    library: str
    parser: str

    @property
    def flavor(self) -> str:
        """`"TensorRT"` or `"TensorRT for RTX"`, by the file's name."""
        return "TensorRT for RTX" if "tensorrt_rtx" in Path(self.library).name else "TensorRT"

    def load(self) -> _core.TensorRtLibrary:
        """Loads the library and proves that its binary interface is a known one.

        Raises:
            BackendError: It cannot be loaded, is of an unknown release, or needs a GPU.
        """
        return _core.TensorRtLibrary.load(self.library, self.parser)


def candidates(path: str | os.PathLike[str] | None = None) -> list[Candidate]:
    """The libraries on this machine, best first; none of them is loaded.

    Args:
        path: A library or the folder of one, instead of what TRTINFER_TENSORRT says. With either,
            nothing else is looked at.

    Raises:
        BackendError: The explicit path holds no TensorRT library.
    """
    return list(_search(path))


def find(
    path: str | os.PathLike[str] | None = None, flavor: str | None = None
) -> _core.TensorRtLibrary:
    """The first library that can be used, loaded.

    Args:
        path: As for `candidates`.
        flavor: Of a `Candidate`; None: either will do.

    Raises:
        BackendError: None can; says what was found and why each was refused.
    """
    refusals = []
    for candidate in _search(path):
        try:
            if flavor not in (None, candidate.flavor):
                raise BackendError(f"it is {candidate.flavor}, but {flavor} is needed")
            return candidate.load()
        except BackendError as error:
            refusals.append(f"{candidate.library} ({candidate.source}): {error}")
    if refusals:
        raise BackendError(f"no usable {flavor or 'TensorRT'}: {'; '.join(refusals)}")
    raise BackendError(f"no {flavor or 'TensorRT'} was found; {_INSTALL}")


def _search(path: str | os.PathLike[str] | None) -> Iterator[Candidate]:
    explicit = os.fspath(path) if path is not None else os.environ.get(VARIABLE)
    if explicit:
        yield _explicit(Path(explicit), "argument" if path is not None else VARIABLE)
        return
    found = set()
    # To ask the system's loader runs a compiler, which most sessions need not wait for.
    for candidate in itertools.chain(_in_packages(), _in_library_path(), _in_system()):
        file = os.path.realpath(candidate.library)
        if file not in found:
            found.add(file)
            yield candidate


def _explicit(path: Path, source: str) -> Candidate:
    if path.is_dir():
        for names in (_TENSORRT, _RTX, _LEAN):
            for candidate in _in_folder(path, names, source):
                return candidate
        raise BackendError(f"{source} is {path}, but no libnvinfer or libtensorrt_rtx is in it")
    if not path.is_file():
        raise BackendError(f"{source} is {path}, but no such file exists")
    parser = (_RTX if "tensorrt_rtx" in path.name else _TENSORRT)[1]
    return Candidate(source, str(path), _newest(path.parent, parser))


def _in_packages() -> Iterator[Candidate]:
    for package, names in _PACKAGES:
        spec = importlib.util.find_spec(package)  # found, never run
        for folder in (spec.submodule_search_locations if spec else None) or ():
            yield from _in_folder(Path(folder), names, f"package {package}")


def _in_library_path() -> Iterator[Candidate]:
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        for names in (_TENSORRT, _RTX):
            if folder:
                yield from _in_folder(Path(folder), names, "LD_LIBRARY_PATH")


def _in_system() -> Iterator[Candidate]:
    for library, parser in (_TENSORRT, _RTX):
        found, found_parser = (
            ctypes.util.find_library(name.removeprefix("lib").removesuffix(".so"))
            for name in (library, parser)
        )
        if found is not None:
            yield Candidate("system loader", found, found_parser or "")


def _in_folder(folder: Path, names: tuple[str, str], source: str) -> Iterator[Candidate]:
    library, parser = (_newest(folder, name) for name in names)
    if library:
        yield Candidate(source, library, parser)


def _newest(folder: Path, name: str) -> str:
    """The file of that name with the highest version behind it; "" for none."""

    def version(file: Path) -> list[int]:
        return [int(part) for part in file.name[len(name) :].split(".") if part.isdigit()]

    files = [file for file in folder.glob(name + "*") if file.name[len(name) :][:1] in ("", ".")]
    return str(max(files, key=version)) if files else ""
