"""A model as the user gave it, and a number that changes with every byte of it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from pathlib import Path

from trtinfer.errors import ModelError

# A `StringStringEntryProto` (key 1, value 2) that says where a tensor's external data are; the
# length of the value is a varint, which a path needs two bytes of at most.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x1f])", re.DOTALL)
_CHUNK = 1 << 22
# What serialized engines begin with, and ONNX files cannot.
_PLAN_FLAVORS = {b"ptrt": "TensorRT", b"ftrt": "TensorRT", b"vtrt": "TensorRT for RTX"}


class ModelSource:
    """A model, read when it is first needed.

    Attributes:
        path: Of its file; None when it was given as bytes.
    """

    def __init__(self, model: str | os.PathLike[str] | bytes) -> None:
        """Takes a model.

        Args:
            model: The path or the bytes of an ONNX file, or of a TensorRT plan.

        Raises:
            ModelError: There is no such file, or there are no bytes.
        """
        self.path: Path | None = None
        if isinstance(model, bytes):
            self.data = model
            if not model:
                raise ModelError("an empty model: 0 bytes received, an ONNX file expected")
            return
        self.path = Path(model)
        if not self.path.is_file():
            raise ModelError(
                f"no model file at {str(model)!r}: give the path or the bytes of an ONNX file"
            )

    @property
    def given(self) -> str | bytes:
        """The path or the bytes, as ONNX Runtime takes them."""
        return self.data if self.path is None else str(self.path)

    @functools.cached_property
    def plan_flavor(self) -> str | None:
        """`"TensorRT"` or `"TensorRT for RTX"`, whose plan this is; None: it is an ONNX model."""
        if self.path is None:
            return _PLAN_FLAVORS.get(self.data[:4])
        with contextlib.suppress(OSError), open(self.path, "rb") as file:  # reading it will tell
            return _PLAN_FLAVORS.get(file.read(4))
        return None

    @functools.cached_property
    def data(self) -> bytes:
        """The contents of the file.

        Raises:
            ModelError: It cannot be read.
        """
        assert self.path is not None
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error.strerror}") from error

    @property
    def name(self) -> str:
        """The file's name without its ending, or `"model"`."""
        return self.path.stem if self.path is not None else "model"

    @functools.cached_property
    def digest(self) -> str:
        """Hexadecimal sha256 of the file and of the files of weights that it names beside it.

        Raises:
            ModelError: One of them cannot be read.
        """
        digest = hashlib.sha256(self.data)
        for file in self.external_files:
            digest.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
            try:
                with open(file, "rb") as weights:
                    while chunk := weights.read(_CHUNK):
                        digest.update(chunk)
            except OSError as error:
                raise ModelError(f"cannot read {file}: {error.strerror}") from error
        return digest.hexdigest()

    @functools.cached_property
    def external_files(self) -> list[Path]:
        """The files of weights that the model names and that are there, sorted."""
        if self.path is None or self.plan_flavor:
            return []
        names = {self._value_at(match) for match in _LOCATION.finditer(self.data)}
        files = (self.path.parent / os.fsdecode(name) for name in names if b"\0" not in name)
        return sorted(file for file in files if file.is_file())

    def _value_at(self, match: re.Match[bytes]) -> bytes:
        length = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(match.group(1)))
        return self.data[match.end() : match.end() + length]
