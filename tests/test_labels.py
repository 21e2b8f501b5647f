"""Labels from every source, in the order of the outputs, or a clear refusal."""

from __future__ import annotations

import json
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trtinfer import labels, model_metadata
from trtinfer.errors import InputError

CATS = ("tabby", "lynx", "tiger")


def model_with(**metadata):
    """An ONNX model with a large weight before its metadata."""
    weight = onnx.numpy_helper.from_array(np.zeros((300, 300), np.float32), "weight")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [300, 300])
    total = helper.make_tensor_value_info("y", TensorProto.FLOAT, [300, 300])
    node = helper.make_node("Add", ["x", "weight"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [value], [total], [weight]))
    helper.set_model_props(model, metadata)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "tabby\nlynx\ntiger"),
        ("a.txt", "\ufefftabby \r\nlynx\r\ntiger\r\n\r\n"),
        ("a.names", "tabby\nlynx\ntiger\n"),
        ("a.json", json.dumps(CATS)),
        ("a.json", json.dumps({"2": "tiger", "0": "tabby", "1": "lynx"})),
        ("a.JSON", json.dumps({"0": ["n1", "tabby"], "1": ["n2", "lynx"], "2": ["n3", "tiger"]})),
    ],
)
def test_reads_files(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert labels.read(path) == CATS
    assert labels.read(str(path)) == CATS


@pytest.mark.parametrize("source", [CATS, list(CATS), {1: "lynx", 0: "tabby", 2: "tiger"}])
def test_takes_labels_themselves(source):
    assert labels.read(source) == CATS


def test_blank_line_inside_keeps_the_numbering(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("tabby\n\ntiger\n")
    assert labels.read(path) == ("tabby", "", "tiger")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({0: "a", 2: "b"}, r"2 keys are not the class numbers 0 to 1"),
        ({"x": "a"}, r"1 keys are not the class numbers"),
        ([1, 2], r"1 is a int; a label is a string"),
        (5, r"got int; pass a list of strings"),
        (b"tabby", r"got bytes"),
        ("no/such.txt", r"cannot read labels from 'no/such.txt'"),
    ],
)
def test_says_what_it_refused(source, said):
    with pytest.raises(InputError, match=said):
        labels.read(source)


def test_refuses_damaged_files(tmp_path):
    for name, data, said in [
        ("a.json", b"[", "no JSON"),
        ("a.json", b'{"0": 3}', "3 is a int"),
        ("a.txt", b"\xff\xfe\x00", "cannot read labels"),
    ]:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=said):
            labels.read(path)


def test_counts_must_agree():
    labels.check_count(CATS, 3)
    with pytest.raises(InputError, match="got 3 labels, but the model has 1000 classes"):
        labels.check_count(CATS, 1000)


def test_reads_ultralytics_metadata(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model_with(names="{0: 'tabby', 1: \"lynx\", 2: 'tiger'}", task="classify"))
    for model in (path, str(path), path.read_bytes()):
        metadata = model_metadata.read(model)
        assert metadata["task"] == "classify"
        assert labels.from_metadata(metadata) == CATS


def test_models_without_metadata_have_no_labels():
    assert model_metadata.read(model_with()) == {}
    assert labels.from_metadata({}) is None
    assert labels.numbered(2) == ("class 0", "class 1")


@pytest.mark.parametrize(
    "names", ["", "[", "__import__('os').getcwd()", "(" * 5000, "3", "{1: 'a'}"]
)
def test_refuses_metadata_that_are_no_dict_of_labels(names):
    with pytest.raises(InputError, match="metadata"):
        labels.from_metadata({"names": names})


def test_files_that_are_no_models_have_no_metadata(tmp_path):
    good = model_with(names="{0: 'tabby'}")
    rng = np.random.default_rng(0)
    for data in (b"", b"\x07", b"\xff" * 20, good[:-3], rng.bytes(5000)):
        assert model_metadata.read(data) == {}
    assert model_metadata.read(tmp_path / "absent.onnx") == {}
    assert model_metadata.read(os.fspath(tmp_path)) == {}
