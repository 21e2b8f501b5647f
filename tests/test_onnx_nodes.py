"""ONNX's own operator tests: what ONNX Runtime alone passes also passes through a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

import trtinfer

Feed = dict[str, Any]


def run_alone(model: bytes, feed: Feed) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def run_session(model: bytes, feed: Feed) -> list[Any]:
    with trtinfer.Session(model, backend="onnxruntime") as session:
        outputs = session.infer(feed)
        assert list(outputs) == [info.name for info in session.outputs]
        return list(outputs.values())


def plain(value: Any) -> Any:
    """The test's value as a user would pass it: types that NumPy lacks come as protobufs."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list | tuple):
        return [plain(element) for element in value]
    return None if value is None else np.asarray(value)


def assert_same(got: Any, expected: Any, rtol: float, atol: float) -> None:
    if isinstance(expected, list):
        assert isinstance(got, list)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other, rtol, atol)
    elif expected is None:
        assert got is None
    else:
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        if got.dtype.kind == "V":  # ml_dtypes' types, none of which is more precise than this
            got, expected = got.astype(np.float32), expected.astype(np.float32)
            rtol = max(rtol, 2**-6)
        if got.dtype.kind in "OUS":
            np.testing.assert_array_equal(got, expected)
        else:
            np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


def failure(run: Callable[[bytes, Feed], list[Any]], case: Any, model: bytes) -> str | None:
    """What goes wrong with a case, or None."""
    for inputs, outputs in case.data_sets:
        names = [info.name for info in case.model.graph.input]
        try:
            got = run(model, dict(zip(names, map(plain, inputs), strict=False)))
            assert_same(got, plain(list(outputs)), case.rtol, case.atol)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # many cases overflow or divide by zero on purpose
def test_every_node_test_that_onnxruntime_passes(capsys: pytest.CaptureFixture[str]) -> None:
    from onnx.backend.test.loader import load_model_tests

    cases = load_model_tests(kind="node")
    alone, through_session, failures = set(), set(), []
    for case in cases:
        model = case.model.SerializeToString()
        if failure(run_alone, case, model) is None:
            alone.add(case.name)
        reason = failure(run_session, case, model)
        if reason is None:
            through_session.add(case.name)
        elif case.name in alone:
            failures.append(f"{case.name}: {reason[:300]}")
    with capsys.disabled():
        print(
            f"\nONNX node tests: {len(cases)} cases; ONNX Runtime alone passes {len(alone)}, a "
            f"session passes {len(through_session)} ({len(alone & through_session)} of the former)"
        )
    assert len(alone) > 1400, "ONNX Runtime alone passes too few cases for this to prove anything"
    assert not failures, "\n".join(failures)
