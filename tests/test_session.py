"""What sessions take and give back."""

from __future__ import annotations

import logging
from pathlib import Path

import ml_dtypes
import models
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.helper import np_dtype_to_tensor_dtype

import trtinfer

RNG = np.random.default_rng(0)

#: ONNX Runtime has kernels for these on the CPU.
WHOLE_BYTES = [
    *map(np.dtype, "?bBhHiIlLefd"),
    *map(np.dtype, (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz)),
    *map(np.dtype, (ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz)),
]


def rows(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.fixture(scope="module")
def matmul():
    with trtinfer.Session(models.matmul_model(), max_batch_size=8) as session:
        yield session


@pytest.fixture(scope="module")
def several():
    with trtinfer.Session(models.several_model(), max_batch_size=8) as session:
        yield session


def refused(session: trtinfer.Session, x: object) -> str:
    """The message of the InputError that every way in gives for x."""
    before = session.stats()
    with pytest.raises(trtinfer.InputError) as by_infer:
        session.infer(x)
    with pytest.raises(trtinfer.InputError) as by_submit:
        session.submit(x)
    after = session.stats()
    assert str(by_infer.value) == str(by_submit.value)
    assert after["invalid"] == before["invalid"] + 2
    assert after["accepted"] == before["accepted"]
    assert after["free_slots"] == before["free_slots"]
    return str(by_infer.value)


# --- Opening ------------------------------------------------------------------------------------


def test_describes_inputs_and_outputs(several):
    assert [str(info) for info in several.inputs] == ["a: float32[?, 4]", "b: int64[?, 2]"]
    assert [str(info) for info in several.outputs] == ["joined: float32[?, 6]", "total: int64[?]"]
    assert several.inputs[0] == trtinfer.TensorInfo("a", np.dtype(np.float32), (-1, 4))
    assert several.backend == "onnxruntime"


def test_opens_a_path_and_bytes_alike(tmp_path: Path, matmul):
    path = tmp_path / "model.onnx"
    path.write_bytes(models.matmul_model())
    x = rows(256)
    for model in (path, str(path)):
        with trtinfer.Session(model) as session:
            np.testing.assert_array_equal(session.infer(x)["y"], matmul.infer(x)["y"])


@pytest.mark.parametrize("model", [b"", b"no model at all", "nowhere.onnx", Path("/")])
def test_refuses_what_is_no_model(model):
    with pytest.raises(trtinfer.ModelError):
        trtinfer.Session(model)


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "tflite"},
        {"device": -1},
        {"device": []},
        {"device": [0, -1]},
        {"device": [1, 0, 1]},
        {"max_batch_size": 0},
        {"max_batch_size": 8, "capacity": 4},
        {"max_inflight": 0},
        {"max_inflight": 33},
        {"max_inflight": 17, "device": [0, 1]},
        {"max_delay": -1.0},
        {"arena_bytes": 0},
    ],
)
def test_refuses_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        trtinfer.Session(models.matmul_model(), **options)


def test_a_failed_opening_leaves_nothing_behind():
    before = trtinfer._core.live_objects()
    with pytest.raises(trtinfer.ModelError):
        trtinfer.Session(models.varying_model(), preprocess="yolov8-cls")
    assert trtinfer._core.live_objects() == before


# --- Requests that fit ---------------------------------------------------------------------------


def test_answers_one_sample_without_batch_axis(matmul):
    x = rows(256)
    outputs = matmul.infer(x)
    assert list(outputs) == ["y"]
    assert outputs["y"].shape == (16,)
    np.testing.assert_allclose(outputs["y"], x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_a_batch_axis_comes_back(matmul, count):
    x = rows(count, 256)
    y = matmul.infer(x)["y"]
    np.testing.assert_allclose(y, x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [9, 16, 100])
@pytest.mark.parametrize("way", ["infer", "submit"])
def test_more_samples_than_a_batch_are_split_and_joined(matmul, count, way):
    x = rows(count, 256)
    y = matmul.infer(x)["y"] if way == "infer" else matmul.submit(x).result()["y"]
    np.testing.assert_allclose(y, x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)
    assert max(matmul.stats()["batch_sizes"]) <= 8


def test_a_request_larger_than_the_ring_goes_through_it():
    with trtinfer.Session(models.matmul_model(), max_batch_size=4, capacity=8) as session:
        x = rows(50, 256)
        y = session.infer(x)["y"]
        np.testing.assert_allclose(y, x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)
        stats = session.stats()
        assert (stats["accepted"], stats["completed"], stats["samples"]) == (1, 1, 50)


def test_split_requests_of_varying_shape_are_joined():
    with trtinfer.Session(models.varying_model(), max_batch_size=4, max_inflight=2) as session:
        for length in (3, 5, 1000):
            x = rows(41, length)
            np.testing.assert_array_equal(session.infer(x)["y"], x + x)


def test_several_inputs_and_outputs_go_by_name(several):
    a, b = rows(4), np.array([5, 6])
    outputs = several.infer({"b": b, "a": a})
    assert list(outputs) == ["joined", "total"]
    np.testing.assert_array_equal(outputs["joined"], np.concatenate([a, b]).astype(np.float32))
    assert outputs["total"].dtype == np.int64
    assert outputs["total"].shape == ()
    assert outputs["total"] == 11


def test_a_dict_serves_a_single_input_too(matmul):
    x = rows(256)
    np.testing.assert_array_equal(matmul.infer({"x": x})["y"], matmul.infer(x)["y"])


@pytest.mark.parametrize("dtype", WHOLE_BYTES, ids=str)
def test_every_dtype_passes_unchanged(dtype):
    x = np.frombuffer(RNG.bytes(5 * 3 * dtype.itemsize), dtype).reshape(5, 3)
    if dtype == np.bool_:
        x = RNG.integers(0, 2, (5, 3)).astype(bool)
    with trtinfer.Session(models.identity_model(np_dtype_to_tensor_dtype(dtype))) as session:
        assert session.inputs[0].dtype == dtype
        for request in (x, x[0]):
            y = session.infer(request)["y"]
            assert y.dtype == dtype
            assert y.shape == request.shape
            assert y.tobytes() == request.tobytes()


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
def test_elements_of_half_a_byte_go_in_and_out(dtype):
    half_byte = np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = np.array([[1, 7, 3], [0, 5, 2], [6, 4, 1]])
    with trtinfer.Session(models.cast_model(half_byte, TensorProto.FLOAT)) as session:
        np.testing.assert_array_equal(session.infer(x.astype(dtype))["y"], x)
    with trtinfer.Session(models.cast_model(TensorProto.FLOAT, half_byte)) as session:
        y = session.infer(x.astype(np.float32))["y"]
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.astype(int), x)


def test_outputs_are_new_arrays_that_the_caller_owns(matmul):
    x = rows(256)
    first = matmul.infer(x)["y"]
    copy = first.copy()
    matmul.infer(rows(256))
    np.testing.assert_array_equal(first, copy)
    first[:] = 0  # writable


def test_large_outputs_outlive_the_session():
    with trtinfer.Session(models.varying_model()) as session:
        x = rows(1 << 16)
        y = session.infer(x)["y"]
    del session
    np.testing.assert_array_equal(y, x + x)


def test_the_input_may_change_once_submit_returns():
    with trtinfer.Session(models.matmul_model(), max_delay=0.01) as session:
        x = rows(256)
        expected = x @ models.WEIGHTS
        future = session.submit(x)
        x[:] = 0
        np.testing.assert_allclose(future.result()["y"], expected, rtol=1e-4, atol=1e-4)


# --- Shapes and batch axes -----------------------------------------------------------------------


def test_other_dimensions_vary_from_request_to_request():
    with trtinfer.Session(models.varying_model(), max_batch_size=8) as session:
        xs = [rows(int(length)) for length in RNG.integers(1, 50, 40)]
        futures = [session.submit(x) for x in xs]
        for x, future in zip(xs, futures, strict=True):
            np.testing.assert_array_equal(future.result()["y"], x + x)


def test_requests_without_elements_are_answered():
    with trtinfer.Session(models.varying_model()) as session:
        assert session.infer(rows(0))["y"].shape == (0,)
        assert session.infer(rows(3, 0))["y"].shape == (3, 0)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_a_fixed_batch_is_filled_up(count):
    with trtinfer.Session(models.matmul_model(4)) as session:
        x = rows(count, 256)
        y = session.infer(x)["y"]
        np.testing.assert_allclose(y, x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(session.infer(x[0])["y"], y[0], rtol=1e-4, atol=1e-4)
        assert max(session.stats()["batch_sizes"]) <= 4


def test_a_fixed_batch_of_one_takes_samples_and_batches():
    with trtinfer.Session(models.matmul_model(1)) as session:
        x = rows(3, 256)
        assert session.infer(x[0])["y"].shape == (16,)
        assert session.infer(x[:1])["y"].shape == (1, 16)
        y = session.infer(x)["y"]
        np.testing.assert_allclose(y, x @ models.WEIGHTS, rtol=1e-4, atol=1e-4)
        assert session.stats()["batch_sizes"] == {1: 5}


def test_models_without_batch_axis_take_whole_tensors():
    with trtinfer.Session(models.whole_model()) as session:
        x = rows(2, 3)
        y = session.infer({"x": x, "factor": np.float32(3)})["y"]
        np.testing.assert_array_equal(y, x * np.float32(3))


def test_the_size_of_an_output_may_depend_on_the_values():
    with trtinfer.Session(models.nonzero_model(), batched=False) as session:
        places = session.infer(np.array([0, 3, 0, 4], np.float32))["places"]
        np.testing.assert_array_equal(places, [[1, 3]])
        assert session.infer(np.zeros(4, np.float32))["places"].shape == (1, 0)


def test_finds_out_that_rows_depend_on_each_other(caplog):
    with (
        caplog.at_level(logging.WARNING, "trtinfer"),
        trtinfer.Session(models.dependent_model()) as session,
    ):
        assert "batched=" in caplog.text
        x = rows(5, 3)
        e = np.exp(x)
        np.testing.assert_allclose(session.infer(x)["y"], e / e.sum(0), rtol=1e-5)
        assert session.stats()["batch_sizes"] == {1: 1}


def test_batched_false_keeps_requests_apart():
    with trtinfer.Session(models.matmul_model(), batched=False) as session:
        assert session.infer(rows(2, 256))["y"].shape == (2, 16)
        assert "(256,)" in refused(session, rows(256))


def test_batched_true_needs_a_batch_axis():
    with pytest.raises(trtinfer.ModelError, match=r"batched=True.*\[2, 3\]"):
        trtinfer.Session(models.whole_model(), batched=True)


# --- Values that are no numeric tensors ----------------------------------------------------------


def test_strings_go_through():
    with trtinfer.Session(models.string_model()) as session:
        assert session.inputs[0].dtype == np.dtype(object)
        x = np.array(["dog", "cat"], dtype=object)
        assert list(session.infer(x)["y"]) == ["DOG", "CAT"]
        assert list(session.submit(x).result()["y"]) == ["DOG", "CAT"]
        with pytest.raises(trtinfer.InputError, match="infer"):
            session.claim()


def test_sequences_go_through():
    with trtinfer.Session(models.sequence_model()) as session:
        xs = [rows(2), rows(3)]
        np.testing.assert_array_equal(session.infer({"xs": xs})["y"], xs[1])
        with pytest.raises(trtinfer.BackendError):
            session.infer({"xs": xs[:1]})


def test_objects_of_the_wrong_kind_fail_alone():
    with trtinfer.Session(models.string_model()) as session:
        with pytest.raises(trtinfer.BackendError):
            session.infer(np.zeros(2, np.float32))
        assert list(session.infer(np.array(["a"], dtype=object))["y"]) == ["A"]
        assert "wrong" in refused(session, {"wrong": 1})


# --- Conversions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.astype(">f4"),
        lambda x: list(x),
    ],
    ids=["lists", "fortran", "strided", "big endian", "list of arrays"],
)
def test_what_means_the_same_is_converted(matmul, convert):
    x = rows(3, 256)
    np.testing.assert_array_equal(matmul.infer(convert(x))["y"], matmul.infer(x)["y"])


def test_python_numbers_become_the_models_dtype(several):
    outputs = several.infer({"a": [1, 2, 3, 4], "b": [5, 6]})
    np.testing.assert_array_equal(outputs["joined"], [1, 2, 3, 4, 5, 6])


def test_read_only_arrays_are_welcome(matmul):
    x = rows(256)
    x.flags.writeable = False
    assert matmul.infer(x)["y"].shape == (16,)


# --- Refusals say what was received --------------------------------------------------------------


def test_refuses_another_dtype(matmul):
    message = refused(matmul, rows(256).astype(np.float64))
    assert "float64" in message
    assert "x: float32[?, 256]" in message
    assert ".astype('float32')" in message


def test_refuses_a_half_where_a_bfloat16_is_needed():
    with trtinfer.Session(models.identity_model(TensorProto.BFLOAT16)) as session:
        assert "float16" in refused(session, np.zeros(3, np.float16))
        assert session.infer(np.zeros(3, ml_dtypes.bfloat16))["y"].shape == (3,)


@pytest.mark.parametrize("shape", [(255,), (3, 255), (2, 3, 256), ()])
def test_refuses_another_shape(matmul, shape):
    message = refused(matmul, np.zeros(shape, np.float32))
    assert str(shape) in message
    assert "(256,)" in message


def test_refuses_a_batch_of_nothing(matmul):
    assert "(0, 256)" in refused(matmul, rows(0, 256))


def test_refuses_none(matmul):
    assert "None" in refused(matmul, None)
    assert "None" in refused(matmul, {"x": None})


@pytest.mark.parametrize("value", ["text", object(), [[1, 2], [3]]])
def test_refuses_what_is_no_array(matmul, value):
    message = refused(matmul, value)
    assert type(value).__name__ in message
    assert "x: float32[?, 256]" in message


def test_refuses_numbers_that_do_not_fit_the_dtype():
    with trtinfer.Session(models.identity_model(TensorProto.UINT8)) as session:
        assert "uint8" in refused(session, [1, 2, 300])


def test_refuses_missing_and_unknown_inputs(several):
    a, b = rows(4), np.array([5, 6])
    assert "['a', 'b'] are needed, ['a'] were received" in refused(several, {"a": a})
    assert "['a', 'b', 'c']" in refused(several, {"a": a, "b": b, "c": a})
    assert "['a', 'd']" in refused(several, {"a": a, "d": b})


def test_refuses_a_bare_array_for_several_inputs(several):
    message = refused(several, rows(4))
    assert "a, b" in message
    assert "float32" in message
    assert "(4,)" in message


def test_refuses_inputs_that_differ_in_their_number_of_samples(several):
    message = refused(several, {"a": rows(3, 4), "b": np.zeros((2, 2), np.int64)})
    assert "(3, 4)" in message
    assert "(2, 2)" in message
    refused(several, {"a": rows(1, 4), "b": np.zeros(2, np.int64)})


def test_refuses_what_can_never_fit_the_arena():
    with trtinfer.Session(models.varying_model(), arena_bytes=1 << 16) as session:
        assert "arena_bytes" in refused(session, rows(1 << 15))
        assert session.infer(rows(1 << 10))["y"].shape == (1 << 10,)


@pytest.mark.parametrize("priority", [-9, 8, 1000])
def test_refuses_priorities_out_of_range(matmul, priority):
    before = matmul.stats()
    x = rows(256)
    with pytest.raises(ValueError, match=f"{priority}"):
        matmul.infer(x, priority=priority)
    with pytest.raises(ValueError, match=f"{priority}"):
        matmul.submit(x, priority=priority)
    with pytest.raises(ValueError, match=f"{priority}"), matmul.claim() as slot:
        slot.publish(priority=priority)
    after = matmul.stats()
    assert after["accepted"] == before["accepted"]
    assert after["free_slots"] == before["free_slots"]


def test_input_errors_are_value_errors():
    assert issubclass(trtinfer.InputError, ValueError)
    assert issubclass(trtinfer.DeadlineExceededError, TimeoutError)


def test_a_model_without_inputs_is_run_as_well():
    node = helper.make_node("Identity", ["seven"], ["y"])
    model = models.build([node], [], [models.tensor("y", [])], seven=np.float32(7))
    with trtinfer.Session(model) as session:
        assert session.infer({})["y"] == 7
