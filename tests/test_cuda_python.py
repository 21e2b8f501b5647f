"""cuda-python beside trtinfer: its buffers and streams are taken, ours are taken by it."""

from __future__ import annotations

from collections.abc import Iterator

import models
import numpy as np
import pytest

import trtinfer
from trtinfer import DeviceTensor, InputError

core = pytest.importorskip("cuda.core")
utils = pytest.importorskip("cuda.core.utils")
pytestmark = pytest.mark.gpu

WIDTH, ROWS = 256, 5
BYTES = ROWS * WIDTH * 4
X = np.random.default_rng(0).random((ROWS, WIDTH), np.float32)

# One thread waits for 0.3 s.
_WAIT = b"""
.version 6.4
.target sm_75
.address_size 64
.visible .entry wait_long()
{
  .reg .pred %on;
  .reg .u64 %now, %end;
  mov.u64 %now, %globaltimer;
  add.u64 %end, %now, 300000000;
WAIT:
  nanosleep.u32 1000;
  mov.u64 %now, %globaltimer;
  setp.lt.u64 %on, %now, %end;
  @%on bra WAIT;
  ret;
}
"""


def doubling_model() -> bytes:
    node = models.helper.make_node("Add", ["x", "x"], ["y"])
    x, y = (models.tensor(name, ["n", WIDTH]) for name in "xy")
    return models.build([node], [x], [y])


@pytest.fixture(scope="module")
def device() -> core.Device:
    device = core.Device(0)
    device.set_current()
    return device


@pytest.fixture(scope="module")
def session() -> Iterator[trtinfer.Session]:
    with trtinfer.Session(doubling_model(), backend="tensorrt", max_batch_size=4) as session:
        yield session


@pytest.fixture
def stream(device) -> core.Stream:
    return device.create_stream()


@pytest.fixture
def host(device) -> core.Buffer:
    """Pinned memory with the rows of X."""
    buffer = core.LegacyPinnedMemoryResource().allocate(BYTES)
    np.from_dlpack(buffer).view(np.float32)[:] = X.ravel()
    return buffer


@pytest.fixture
def buffer(device, stream, host) -> core.Buffer:
    """Device memory with the rows of X, once what is enqueued on the stream is done."""
    buffer = device.allocate(BYTES, stream=stream)
    buffer.copy_from(host, stream=stream)
    return buffer


def wait_long(stream: core.Stream) -> None:
    """Has the stream be busy for long after this returns."""
    kernel = core.ObjectCode.from_ptx(_WAIT).get_kernel("wait_long")
    core.launch(stream, core.LaunchConfig(grid=1, block=1), kernel)


def test_a_buffer_with_its_stream_is_taken(session, stream, buffer):
    np.testing.assert_array_equal(session.infer(DeviceTensor(buffer, stream=stream))["y"], 2 * X)
    future = session.submit({"x": DeviceTensor(buffer, stream=int(stream.handle))})
    np.testing.assert_array_equal(future.result(30)["y"], 2 * X)


def test_a_view_gives_a_buffer_its_shape_and_type(session, stream, buffer):
    view = utils.StridedMemoryView.from_buffer(buffer, (ROWS, WIDTH), dtype=np.dtype(np.float32))
    np.testing.assert_array_equal(session.infer(DeviceTensor(view, stream=stream))["y"], 2 * X)
    half = utils.StridedMemoryView.from_buffer(buffer, (2 * WIDTH,), dtype=np.dtype(np.float16))
    with pytest.raises(InputError, match="dtype float16 on GPU 0"):
        session.infer(DeviceTensor(half, stream=stream))


def test_the_stream_of_a_buffer_is_waited_for(session, device, stream, host, buffer):
    stream.sync()
    for _ in range(
        8
    ):  # streams may share a queue of the GPU: then they wait for each other unasked
        stream = device.create_stream()
        buffer.fill(0, stream=stream)
        stream.sync()
        wait_long(stream)
        buffer.copy_from(host, stream=stream)
        # A buffer does not know who writes to it, so this may read what was there before.
        early = session.infer(buffer)["y"]
        if not early.any():
            break
    assert not early.any()
    np.testing.assert_array_equal(session.infer(DeviceTensor(buffer, stream=stream))["y"], 2 * X)


def test_a_buffer_may_be_dropped_at_once(session, device, stream, host):
    wait_long(stream)
    futures = []
    for _ in range(20):
        buffer = device.allocate(BYTES, stream=stream)
        buffer.copy_from(host, stream=stream)
        futures.append(session.submit(DeviceTensor(buffer, stream=stream)))
        del buffer
        device.allocate(BYTES, stream=stream).fill(0, stream=stream)
    for future in futures:
        np.testing.assert_array_equal(future.result(30)["y"], 2 * X)


def test_pinned_buffers_are_taken(session, host):
    np.testing.assert_array_equal(session.infer(host)["y"], 2 * X)


def test_the_streams_of_lanes_are_streams_of_cuda_core(session, device, host):
    for lane in session.streams:
        for stream in (device.create_stream(lane), core.Stream.from_handle(lane.handle)):
            assert int(stream.handle) == lane.handle
            buffer = device.allocate(BYTES, stream=stream)
            buffer.copy_from(host, stream=stream)
            np.testing.assert_array_equal(
                session.infer(DeviceTensor(buffer, stream=stream))["y"], 2 * X
            )
            buffer.close(stream)
            stream.sync()
