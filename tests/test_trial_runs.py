"""Opening a session tries the model on invented inputs: that must be safe, small and silent."""

from __future__ import annotations

import tracemalloc

import models
import numpy as np
import pytest
from onnx import TensorProto, helper

import trtinfer

INT64 = TensorProto.INT64


def division_model() -> bytes:
    return models.build(
        [helper.make_node("Div", ["a", "b"], ["y"])],
        [models.tensor("a", ["n", 4], INT64), models.tensor("b", ["n", 4], INT64)],
        [models.tensor("y", ["n", 4], INT64)],
    )


def lookup_model(rows: int) -> bytes:
    """A table from which integers choose rows, as BERT's token types do (rows=2)."""
    return models.build(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        [models.tensor("ids", ["n", 3], INT64)],
        [models.tensor("y", ["n", 3, 4])],
        table=np.arange(4 * rows, dtype=np.float32).reshape(rows, 4),
    )


def test_no_integer_is_divided_by_zero() -> None:
    with trtinfer.Session(division_model(), backend="onnxruntime") as session:
        got = session.infer({"a": np.full(4, 7), "b": np.arange(1, 5)})
    np.testing.assert_array_equal(got["y"], [7, 3, 2, 1])


@pytest.mark.parametrize("rows", [2, 3, 100])
def test_indices_into_small_tables_are_found(
    rows: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with trtinfer.Session(lookup_model(rows), backend="onnxruntime") as session:
        assert session.infer(np.ones((2, 3), np.int64))["y"].shape == (2, 3, 4)
        assert session.infer(np.ones(3, np.int64))["y"].shape == (3, 4)
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_a_model_that_cannot_be_tried_runs_one_request_at_a_time(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with trtinfer.Session(lookup_model(1), backend="onnxruntime") as session:
        assert session.infer(np.zeros((2, 3), np.int64))["y"].shape == (2, 3, 4)
        with pytest.raises(trtinfer.InputError):
            session.infer(np.zeros(3, np.int64))
    assert "no batch axis" in caplog.text
    assert capfd.readouterr().err == ""


def test_many_dimensions_that_vary_stay_small() -> None:
    shape: models.Shape = ["n", "a", "b", "c", "d"]
    identity = models.build(
        [helper.make_node("Relu", ["x"], ["y"])],
        [models.tensor("x", shape)],
        [models.tensor("y", shape)],
    )
    tracemalloc.start()
    try:
        trtinfer.Session(identity, backend="onnxruntime", max_batch_size=2).close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


def test_a_declared_output_shape_may_lie() -> None:
    """ONNX Runtime alone only warns of a shape that is not the declared one."""
    nonzero = models.build(
        [helper.make_node("NonZero", ["x"], ["y"])],
        [models.tensor("x", [1, 4])],
        [models.tensor("y", [2, 9], INT64)],
    )
    with trtinfer.Session(nonzero, backend="onnxruntime") as session:
        got = session.infer(np.array([[1, 0, 1, 0]], np.float32))
    np.testing.assert_array_equal(got["y"], [[0, 0], [0, 2]])


def test_an_output_shape_that_cannot_be_tried_may_lie() -> None:
    reshape = models.build(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [models.tensor("x", ["k", 5]), models.tensor("shape", [2], INT64)],
        [models.tensor("y", [2, 3])],
    )
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    with trtinfer.Session(reshape, backend="onnxruntime") as session:
        got = session.infer({"x": x, "shape": np.array([10, 1])})
    np.testing.assert_array_equal(got["y"], x.reshape(10, 1))
