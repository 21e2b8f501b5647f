"""Tensors of other libraries where there is no GPU: arrays, or refused with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import models
import numpy as np
import pytest

import trtinfer
from trtinfer import InputError

X = np.random.default_rng(0).random((3, 256), np.float32)


class HostTensor:
    """Speaks DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> object:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Elsewhere:
    """A tensor on a device of a maker whose tensors nobody here can export."""

    def __init__(self, device_type: int) -> None:
        self.device_type = device_type

    def __dlpack__(self, **options: Any) -> object:
        raise BufferError("this tensor is not for export")

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device_type, 0


class ArrayInterface:
    """Says that an array in host memory is on a GPU."""

    def __init__(self, array: np.ndarray, **entries: object) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__array_interface__, "version": 3, **entries}


@pytest.fixture(scope="module")
def session() -> Iterator[trtinfer.Session]:
    with trtinfer.Session(models.matmul_model(), backend="onnxruntime") as session:
        yield session


@pytest.fixture(scope="module")
def image_session() -> Iterator[trtinfer.Session]:
    model, recipe = models.image_model(), trtinfer.Recipe(crop=(8, 8))
    with trtinfer.Session(model, backend="onnxruntime", preprocess=recipe) as session:
        yield session


def test_tensors_in_host_memory_are_taken_as_arrays_are(session):
    expected = session.infer(X)["y"]
    np.testing.assert_array_equal(session.infer(HostTensor(X))["y"], expected)
    np.testing.assert_array_equal(session.submit({"x": HostTensor(X)}).result(10)["y"], expected)
    answer = asyncio.run(session.ainfer(HostTensor(np.asfortranarray(X))))
    np.testing.assert_array_equal(answer["y"], expected)
    many = session.infer_many([HostTensor(row) for row in X])
    np.testing.assert_allclose([one["y"] for one in many], expected, rtol=1e-5)


def test_a_tensor_of_another_dtype_is_refused_as_an_array_is(session):
    with pytest.raises(InputError, match="float64 was received"):
        session.infer(HostTensor(X.astype(np.float64)))


def test_pictures_may_be_tensors_in_host_memory(image_session):
    image = np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8)
    expected = image_session.infer(image)["means"]
    np.testing.assert_array_equal(image_session.infer(HostTensor(image))["means"], expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Elsewhere(10), "device of DLPack's type 10; bring it to host memory"),
        (Elsewhere(2), "Elsewhere cannot be read where it lies"),
        (ArrayInterface(X), "ArrayInterface cannot be read where it lies"),
        (ArrayInterface(X, mask=X), "masks are not supported"),
        (ArrayInterface(X, shape=None), "ArrayInterface cannot be read where it lies"),
    ],
)
def test_what_cannot_be_read_on_a_gpu_is_refused_and_counted(session, value, message):
    before = session.stats()["invalid"]
    for refused in (value, {"x": value}):
        with pytest.raises(InputError, match=message):
            session.infer(refused)
        with pytest.raises(InputError, match=message):
            session.submit(refused)
        with pytest.raises(InputError, match=message):
            asyncio.run(session.ainfer(refused))
    assert session.stats()["invalid"] == before + 6


def test_a_picture_that_cannot_be_read_on_a_gpu_is_refused(image_session):
    for image in (value := ArrayInterface(np.zeros((8, 8, 3), np.uint8)), {"images": value}):
        with pytest.raises(InputError, match="cannot be read where it lies"):
            image_session.infer(image)


def test_wrapping_says_what_is_wrong():
    with pytest.raises(InputError, match="it is not on a GPU"):
        trtinfer.DeviceTensor(X)
    with pytest.raises(InputError, match="it is not on a GPU"):
        trtinfer.DeviceTensor("cat.jpg")
    with pytest.raises(InputError, match="'main' is no CUDA stream: pass an object with"):
        trtinfer.DeviceTensor(ArrayInterface(X), stream="main")


def test_a_session_on_the_cpu_has_no_streams(session):
    assert session.streams == ()
