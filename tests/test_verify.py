"""`trtinfer verify`: differences of a known size are found, whatever made them."""

from __future__ import annotations

import json
import math

import classification
import models
import numpy as np
import pytest
from onnx import helper

import trtinfer
from trtinfer import BackendError, InputError, _core
from trtinfer.cli import main
from trtinfer.types import TensorInfo
from trtinfer.verify import TOLERANCES, Report, compare, random_requests

WEIGHTS = np.random.default_rng(0).standard_normal((4, 10), dtype=np.float32)


def on_cpu(model: bytes, **options: object) -> trtinfer.Session:
    return trtinfer.Session(model, backend="onnxruntime", **options)


def linear(weights: np.ndarray = WEIGHTS, added: object = 0.0) -> bytes:
    """Scores of 10 classes: x @ weights + added."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "added"], ["y"]),
    ]
    inputs, outputs = [models.tensor("x", ["n", 4])], [models.tensor("y", ["n", 10])]
    return models.build(nodes, inputs, outputs, w=weights, added=np.float32(added))


def report(reference: bytes, candidate: bytes, tolerance: float = 1e-3) -> Report:
    with on_cpu(reference) as right, on_cpu(candidate) as other:
        return compare(right, other, random_requests(right.inputs, {}, 100), tolerance)


def answers(model: bytes) -> np.ndarray:
    with on_cpu(model) as session:
        return np.stack(
            [session.infer(x)["y"][0] for x in random_requests(session.inputs, {}, 100)]
        )


def test_equal_models_do_not_differ():
    found = report(linear(), linear())
    assert found.passed
    assert found.requests == 100
    (output,) = found.outputs
    assert (output.name, output.relative, output.top1, output.top5) == ("y", 0, 1, 1)
    assert output.scale == np.ptp(answers(linear()))


def test_differences_are_in_parts_of_the_range():
    added = np.zeros(10, np.float32)
    added[3] = 0.25
    (output,) = report(linear(), linear(added=added)).outputs
    assert output.max_difference == pytest.approx(0.25, rel=1e-5)
    assert output.mean_difference == pytest.approx(0.025, rel=1e-5)
    assert output.relative == pytest.approx(0.25 / np.ptp(answers(linear())), rel=1e-5)


def test_tolerance_decides():
    (output,) = report(linear(), linear(added=0.25)).outputs
    for factor, passed in ((0.99, False), (1.01, True)):
        assert report(linear(), linear(added=0.25), factor * output.relative).passed is passed


def test_best_classes_are_compared_sample_by_sample():
    right = answers(linear())
    added = np.zeros(10, np.float32)
    added[0] = 1.0
    other = right + added
    (output,) = report(linear(), linear(added=added)).outputs
    best = [set(np.argsort(-rows)[:, :5][i]) for rows in (right, other) for i in range(100)]
    shared = [len(a & b) / 5 for a, b in zip(best[:100], best[100:], strict=True)]
    assert output.top1 == pytest.approx((right.argmax(1) == other.argmax(1)).mean())
    assert output.top5 == pytest.approx(np.mean(shared))
    assert 0 < output.top1 < 1


def test_outputs_that_are_no_scores_have_no_best_class():
    model = models.several_model()
    joined, total = report(model, model).outputs
    assert joined.top1 == 1
    assert (total.top1, total.relative) == (None, 0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_number_is_infinitely_far(wrong):
    added = np.zeros(10, np.float32)
    added[3] = wrong
    found = report(linear(), linear(added=added), tolerance=1e30)
    assert not found.passed
    assert found.outputs[0].max_difference == math.inf
    assert report(linear(added=added), linear(added=added)).passed
    assert json.loads(json.dumps(found.facts(), allow_nan=False))["outputs"][0]["relative"] is None


def test_outputs_without_range_are_measured_by_their_size():
    weights = np.zeros_like(WEIGHTS)
    (output,) = report(linear(weights, 8.0), linear(weights, 9.0)).outputs
    assert (output.scale, output.relative) == (8, 0.125)
    (zero,) = report(linear(weights, 0.0), linear(weights, 1e-9)).outputs
    assert zero.relative == math.inf


def test_answers_of_another_shape_are_an_error():
    with pytest.raises(BackendError, match=r"shape \(1, 6\)"):
        report(models.several_model(), six_again())


def six_again() -> bytes:
    """As several_model, but for the first output's shape."""
    nodes = [
        helper.make_node("Concat", ["a", "a"], ["joined"], axis=1),
        helper.make_node("ReduceSum", ["b", "axis"], ["total"], keepdims=0),
    ]
    inputs = [models.tensor("a", ["n", 4]), models.tensor("b", ["n", 2], models.INT64)]
    outputs = [models.tensor("joined", ["n", 8]), models.tensor("total", ["n"], models.INT64)]
    return models.build(nodes, inputs, outputs, axis=np.array([1]))


def test_images_go_through_the_recipe():
    pictures = [classification.picture(color) for color in classification.COLORS]
    recipe = trtinfer.Recipe.named("yolov8-cls").replace(resize=8, crop=8)
    first = classification.model(weights=np.eye(3) * 10)
    second = classification.model(weights=np.eye(3)[::-1] * 10)
    with on_cpu(first, preprocess=recipe) as a, on_cpu(second, preprocess=recipe) as b:
        assert compare(a, a, pictures, 1e-3).passed
        (output,) = compare(a, b, pictures, 1e-3).outputs
        assert output.top1 == pytest.approx(1 / 3)  # green stays
        with pytest.raises(InputError):
            compare(a, b, [b"no image"], 1e-3)


def test_random_requests_fit_the_inputs_and_come_again():
    infos = [
        TensorInfo("image", np.dtype(np.uint8), (-1, 4, 4, 3)),
        TensorInfo("text", np.dtype(np.int64), (-1, -1)),
        TensorInfo("half", np.dtype(np.float16), (2, 3)),
        TensorInfo("mask", np.dtype(np.bool_), (-1,)),
    ]
    sizes = {"text": {1: (1, 7, 9)}}
    first, second = random_requests(infos, sizes, 2, seed=5)
    assert [first[info.name].dtype for info in infos] == [info.dtype for info in infos]
    assert [x.shape for x in first.values()] == [(1, 4, 4, 3), (1, 7), (2, 3), (1,)]
    assert first["image"].max() > 200
    assert set(np.unique(first["text"])) <= {0, 1}
    assert not np.array_equal(first["image"], second["image"])
    again = next(random_requests(infos, sizes, 2, seed=5))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])


def test_report_is_one_line_for_each_output_and_a_verdict():
    text = str(report(linear(), linear(added=0.25)))
    lines = text.splitlines()
    assert lines[0].startswith("y: at most ")
    assert "(0.001 allowed)" in lines[0]
    assert ", top 1 100.0%, top 5 100.0%" in lines[0]
    assert lines[1] == "100 requests: too far apart"
    assert str(report(linear(), linear())).endswith("close enough")


# --- The command ------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.onnx"
    path.write_bytes(classification.ultralytics())
    return str(path)


@pytest.mark.skipif(bool(_core.probe_cuda().devices), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(model, capsys):
    assert main(["verify", model]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no TensorRT to compare with" in said.err
    assert _core.probe_cuda().reason in said.err


@pytest.mark.parametrize("arguments", [["--samples", "0"], ["--tolerance", "-1"]])
def test_options_out_of_range_are_refused(model, arguments, capsys):
    assert main(["verify", model, *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_command_finds_tensorrt_close_to_the_cpu(model, precision, capsys):
    assert main(["verify", model, "--precision", precision, "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["precision"], facts["requests"], facts["passed"]) == (precision, 64, True)
    (output,) = facts["outputs"]
    assert output["name"] == "answer"
    assert 0 <= output["relative"] <= output["tolerance"] == TOLERANCES[precision]


@pytest.mark.gpu
def test_exit_status_says_when_answers_are_too_far_apart(model, capsys):
    rounded = ["verify", model, "--precision", "bf16", "--samples", "3"]
    assert main([*rounded, "--tolerance", "1e-9"]) == 1
    assert capsys.readouterr().out.endswith("3 requests: too far apart\n")


@pytest.mark.gpu
def test_command_compares_images(model, tmp_path, capsys):
    image = tmp_path / "red.png"
    image.write_bytes(classification.png(classification.picture("red")))
    assert main(["verify", model, "--images", str(image), str(image)]) == 0
    assert "top 1 100.0%" in capsys.readouterr().out
    assert main(["verify", model, "--images", str(image), "absent.png"]) == 2
