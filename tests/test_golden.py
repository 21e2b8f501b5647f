"""Real photos through the embedded model: the same input tensors and the same top 5, always.

`golden_top5.json` holds, for photos that PyPI packages ship, the sha256 of the file and of the
float32 input tensor (Pillow 13), and the top 5 that ONNX Runtime gave as (class, label,
probability).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

import trtinfer
from trtinfer import default_model

GOLDEN = json.loads((Path(__file__).parent / "golden_top5.json").read_text(encoding="utf-8"))


def photo(name):
    """The path of a photo in an installed package."""
    package, _, rest = name.partition("/")
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.submodule_search_locations[0]) / rest


@pytest.fixture(scope="module")
def classifier():
    with trtinfer.Classifier(backend="onnxruntime") as classifier:
        yield classifier


@pytest.mark.parametrize("name", GOLDEN)
def test_input_tensor_is_bit_exact(name):
    path = photo(name)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GOLDEN[name]["sha256"]
    recipe = trtinfer.Recipe.named(default_model.RECIPE).replace(pass_order="pillow-13")
    assert hashlib.sha256(recipe(path)).hexdigest() == GOLDEN[name]["input_sha256"]


@pytest.mark.parametrize("name", GOLDEN)
def test_top5_are_the_same_in_the_same_order(classifier, name):
    answer = classifier(photo(name))
    expected = GOLDEN[name]["top5"]
    assert [label for _, label in answer] == [label for _, label, _ in expected]
    assert [prob for prob, _ in answer] == pytest.approx([p for *_, p in expected], abs=1e-5)


def test_labels_of_the_golden_classes_are_the_models():
    labels = default_model.labels()
    for golden in GOLDEN.values():
        assert [labels[index] for index, *_ in golden["top5"]] == [n for _, n, _ in golden["top5"]]


def test_all_photos_at_once_give_the_same(classifier):
    answers = classifier.classify_many([photo(name) for name in GOLDEN] * 3)
    for answer, golden in zip(answers, list(GOLDEN.values()) * 3, strict=True):
        assert [label for _, label in answer] == [label for _, label, _ in golden["top5"]]
