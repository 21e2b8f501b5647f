"""The digest of a model changes with every byte that it consists of, and with nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from models import matmul_model

from trtinfer.errors import ModelError
from trtinfer.model_source import ModelSource


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model with its weights in a file of its own, of a name that takes two bytes of length."""
    path = tmp_path / "model.onnx"
    onnx.save(
        onnx.load_from_string(matmul_model()),
        path,
        save_as_external_data=True,
        location="w" * 200 + ".bin",
        size_threshold=0,
    )
    return path


def test_same_bytes_have_the_same_digest(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(matmul_model())
    digests = {ModelSource(matmul_model()).digest}
    digests |= {ModelSource(tmp_path / name).digest for name in ("a.onnx", "b.onnx")}
    assert len(digests) == 1
    assert ModelSource(matmul_model() + b"\0").digest not in digests


def test_external_weights_are_part_of_the_model(external: Path) -> None:
    weights = external.with_name("w" * 200 + ".bin")
    before = ModelSource(external)
    assert before.external_files == [weights]
    digest = before.digest
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    after = ModelSource(external)
    assert after.data == before.data
    assert after.digest != digest


def test_files_that_are_not_named_do_not_count(external: Path) -> None:
    digest = ModelSource(external).digest
    external.with_name("other.bin").touch()
    assert ModelSource(external).digest == digest


def test_only_files_are_read(external: Path) -> None:
    weights = external.with_name("w" * 200 + ".bin")
    weights.unlink()
    os.mkfifo(weights)
    assert ModelSource(external).external_files == []


@pytest.mark.parametrize(
    ("start", "flavor"),
    [
        (b"vtrt", "TensorRT for RTX"),
        (b"ptrt", "TensorRT"),
        (b"ftrt", "TensorRT"),
        (b"\x08trt", None),
    ],
)
def test_plans_are_known_by_their_first_bytes(
    tmp_path: Path, start: bytes, flavor: str | None
) -> None:
    (tmp_path / "model").write_bytes(start + bytes(100))
    assert ModelSource(start + bytes(100)).plan_flavor == flavor
    assert ModelSource(tmp_path / "model").plan_flavor == flavor


def test_models_are_no_plans(external: Path) -> None:
    assert ModelSource(external).plan_flavor is None
    assert ModelSource(matmul_model()).plan_flavor is None


def test_name_is_the_files(external: Path) -> None:
    assert ModelSource(external).name == "model"
    assert ModelSource(b"bytes").name == "model"
    with pytest.raises(ModelError, match=r"no model file at '.*absent.onnx'"):
        ModelSource(external.with_name("absent.onnx"))
    with pytest.raises(ModelError, match="0 bytes"):
        ModelSource(b"")
