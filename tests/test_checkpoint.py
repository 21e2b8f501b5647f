"""Old PyTorch checkpoints: tensors come out, and nothing else is obeyed."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import sys
import types

import numpy as np
import pytest

from trtinfer import checkpoint
from trtinfer.errors import ModelError

MAGIC = 0x1950A86A20F9469CFC6C


@pytest.fixture
def torch(monkeypatch):
    """Just the names that a checkpoint's pickles refer to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_): ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


class Storage:
    """A storage, which pickles refer to by an id of their own."""

    def __init__(self, kind, key, values):
        self.kind, self.key, self.values = kind, key, values


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.fields = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.fields


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", value.kind, value.key, "cpu", len(value.values), None)
        return None


def save(tensors, storages, *, magic=MAGIC, version=1001, machine=None):
    file = io.BytesIO()
    machine = machine or {"protocol_version": version, "little_endian": True}
    for part in (magic, version, machine, tensors, [storage.key for storage in storages]):
        Pickler(file, 2).dump(part)
    for storage in storages:
        file.write(struct.pack("<q", len(storage.values)) + storage.values.tobytes())
    return file.getvalue()


def test_reads_shapes_offsets_strides_and_shared_storages(torch):
    floats = Storage(torch.FloatStorage, "a", np.arange(12, dtype="<f4"))
    longs = Storage(torch.LongStorage, "b", np.array([7], "<i8"))
    tensors = collections.OrderedDict(
        whole=Tensor(floats, 0, (3, 4), (4, 1)),
        turned=Tensor(floats, 0, (4, 3), (1, 4)),
        tail=Tensor(floats, 10, (2,), (1,)),
        count=Tensor(longs, 0, (), ()),
    )
    read = checkpoint.read(save(tensors, [longs, floats]))
    assert list(read) == ["whole", "turned", "tail", "count"]
    np.testing.assert_array_equal(read["whole"], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(read["turned"], np.arange(12).reshape(3, 4).T)
    np.testing.assert_array_equal(read["tail"], [10, 11])
    assert read["count"] == 7
    assert (read["whole"].dtype, read["count"].dtype) == (np.float32, np.int64)


def test_never_calls_what_a_pickle_names(torch, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    with pytest.raises(ModelError, match=r"names (io|_io)\.open.*hostile"):
        checkpoint.read(save({"weight": Hostile()}, []))
    assert not (tmp_path / "written").exists()


def test_refuses_other_storages(torch):
    half = Storage(torch.HalfStorage, "a", np.zeros(2, "<f2"))
    with pytest.raises(ModelError, match=r"names torch\.HalfStorage"):
        checkpoint.read(save({"weight": Tensor(half, 0, (2,), (1,))}, [half]))


@pytest.mark.parametrize(
    "options", [{"magic": 5}, {"version": 1002}, {"machine": {"little_endian": False}}]
)
def test_refuses_other_versions(torch, options):
    with pytest.raises(ModelError, match="expected a little-endian PyTorch checkpoint"):
        checkpoint.read(save({}, [], **options))


@pytest.mark.parametrize("field", [(9, (4,), (1,)), (0, (4, 4), (4, 1)), (3, (2,), (-8,))])
def test_refuses_tensors_that_leave_their_storage(torch, field):
    floats = Storage(torch.FloatStorage, "a", np.zeros(12, "<f4"))
    with pytest.raises(ModelError, match="cannot be read"):
        checkpoint.read(save({"weight": Tensor(floats, *field)}, [floats]))


def test_refuses_damaged_files(torch):
    floats = Storage(torch.FloatStorage, "a", np.zeros(12, "<f4"))
    data = save({"weight": Tensor(floats, 0, (12,), (1,))}, [floats])
    for damaged in (b"", b"garbage", data[:40], data[:-1]):
        with pytest.raises(ModelError, match=f"of {len(damaged)} bytes cannot be read"):
            checkpoint.read(damaged)
