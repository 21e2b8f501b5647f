"""Tensors that PyTorch and others keep on a GPU: read there, in time, and for as long as needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import models
import numpy as np
import pytest
import reference_resize as reference
from gpu import Gpu
from onnx import helper

import trtinfer
from trtinfer import DeviceTensor, InputError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.gpu

WIDTH = 256
BUSY = 400_000_000  # cycles: 0.2 s or more
RECIPE = trtinfer.Recipe.named("torchvision")


class Interface:
    """A tensor that has `__cuda_array_interface__`, and not DLPack."""

    def __init__(self, tensor: torch.Tensor, **entries: object) -> None:
        self.tensor = tensor
        entries = {"stream": None, **entries}
        self.__cuda_array_interface__ = {
            **tensor.__cuda_array_interface__,
            "version": 3,
            **entries,
        }


class StreamObject:
    """A stream as cuda.core has them."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.stream.cuda_stream


def doubling_model() -> bytes:
    """The sum of two equal numbers is exact, whatever adds them."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    x, y = (models.tensor(name, ["n", WIDTH]) for name in "xy")
    return models.build([node], [x], [y])


def open_session(model: bytes, **more: object) -> trtinfer.Session:
    return trtinfer.Session(model, backend="tensorrt", max_batch_size=8, **more)


@pytest.fixture(scope="module")
def session() -> Iterator[trtinfer.Session]:
    with open_session(doubling_model()) as session:
        yield session


@pytest.fixture(scope="module")
def image_session() -> Iterator[trtinfer.Session]:
    with open_session(models.image_identity_model(), preprocess=RECIPE) as session:
        yield session


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, device="cuda")


def check(outputs: dict[str, np.ndarray], x: torch.Tensor) -> None:
    np.testing.assert_array_equal(outputs["y"], 2 * x.cpu().numpy())


# --- What is taken


@pytest.mark.parametrize("shape", [(WIDTH,), (1, WIDTH), (5, WIDTH), (37, WIDTH)])
def test_every_way_in_takes_tensors(session, shape):
    x = random(*shape)
    check(session.infer(x), x)
    check(session.infer({"x": x}, timeout=30), x)
    check(session.infer(Interface(x)), x)
    check(session.infer(DeviceTensor(x)), x)
    check(session.submit(x).result(30), x)
    check(asyncio.run(session.ainfer(x)), x)
    for outputs in session.infer_many([x, Interface(x)]):
        check(outputs, x)


def test_the_rows_may_have_gaps(session):
    wide = random(9, 2 * WIDTH)
    check(session.infer(wide[:, 100 : 100 + WIDTH]), wide[:, 100 : 100 + WIDTH])
    check(session.infer(wide[::2, :WIDTH]), wide[::2, :WIDTH])
    check(session.infer(wide[3, WIDTH:]), wide[3, WIDTH:])


def test_several_inputs_may_lie_in_different_places():
    a, b = np.random.default_rng(3).random((20, 4), np.float32), np.arange(40).reshape(20, 2)
    with open_session(models.several_model()) as session:
        expected = session.infer({"a": a, "b": b})
        places: list[Callable[[np.ndarray], object]] = [
            lambda array: array,
            lambda array: array.tolist(),
            lambda array: torch.from_numpy(array),
            lambda array: torch.from_numpy(array).cuda(),
        ]
        for place_a in places:
            for place_b in places:
                outputs = session.infer({"a": place_a(a), "b": place_b(b)})
                for name, right in expected.items():
                    np.testing.assert_array_equal(outputs[name], right)


def test_half_precision_and_other_types_are_taken():
    for name, torch_type in [("FLOAT16", torch.float16), ("INT32", torch.int32)]:
        element_type = getattr(models.TensorProto, name)
        node = helper.make_node("Add", ["x", "x"], ["y"])
        x, y = (models.tensor(name, ["n", 8], element_type) for name in "xy")
        with open_session(models.build([node], [x], [y])) as session:
            value = torch.arange(24, device="cuda").reshape(3, 8).to(torch_type)
            np.testing.assert_array_equal(session.infer(value)["y"], 2 * value.cpu().numpy())


def test_plain_bytes_are_samples(session):
    x = random(3, WIDTH)
    check(session.infer(x.view(torch.uint8).flatten()), x)
    check(session.infer(x[0].view(torch.int8)), x[0])
    with pytest.raises(InputError, match="dtype uint8"):
        session.infer(x[0].view(torch.uint8)[:-4])


def test_rows_of_hosts_and_gpus_share_batches(session):
    batches = session.stats()["batches"]
    rows = random(400, WIDTH)
    host = rows.cpu().numpy()
    mixed = [rows[i] if i % 3 else host[i] for i in range(len(rows))]
    futures = session.submit_many(mixed)
    for row, future in zip(rows, futures, strict=True):
        check(future.result(30), row)
    assert session.stats()["batches"] - batches < len(rows)


def test_threads_with_streams_of_their_own(session):
    def work(number: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for turn in range(50):
                torch.cuda._sleep(100_000)
                x = torch.full((1 + turn % 9, WIDTH), float(1000 * number + turn), device="cuda")
                outputs = session.infer(x)["y"]
                np.testing.assert_array_equal(outputs, 2.0 * (1000 * number + turn))
                assert outputs.shape == tuple(x.shape)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


# --- Pictures


def test_pictures_are_preprocessed_where_they_lie(image_session):
    rng = np.random.default_rng(7)
    sizes = [reference.random_size(rng, 700) for _ in range(24)] + [(1080, 1920), (1, 1)]
    images = [reference.random_image(rng, *size, "noise") for size in sizes]
    on_gpu = [torch.from_numpy(image).cuda() for image in images]
    futures = [image_session.submit(image) for image in [*on_gpu, *images, *on_gpu]]
    for image, future in zip(images * 3, futures, strict=True):
        np.testing.assert_array_equal(future.result(30)["y"], RECIPE(image))
    outputs = asyncio.run(image_session.ainfer({"x": on_gpu[0]}))
    np.testing.assert_array_equal(outputs["y"], RECIPE(images[0]))


def test_a_part_of_a_picture_is_read_in_place(image_session):
    image = reference.random_image(np.random.default_rng(8), 900, 1300, "noise")
    part = torch.from_numpy(image).cuda()[100:800, 37:1000]
    expected = RECIPE(np.ascontiguousarray(image[100:800, 37:1000]))
    np.testing.assert_array_equal(image_session.infer(part)["y"], expected)
    [many] = image_session.infer_many([part])
    np.testing.assert_array_equal(many["y"], expected)


# --- When they are read


def late_write(x: torch.Tensor, value: float) -> None:
    """Has the current stream write long after this returns."""
    torch.cuda._sleep(BUSY)
    x.fill_(value)


def write_too_late(session: trtinfer.Session, x: torch.Tensor, value: float) -> torch.cuda.Stream:
    """Has a stream write so late that whoever does not wait for it reads zeros.

    That is tried out, and again on another stream, since streams may share a queue of the GPU: then
    they wait for each other unasked.
    """
    for _ in range(8):
        x.zero_()
        torch.cuda.synchronize()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            late_write(x, value)
            early = session.infer(Interface(x))["y"]
        if not early.any():
            return stream
    pytest.fail("no stream is independent of those of the session")


@pytest.mark.parametrize(
    "ordered",
    [
        lambda x, stream: x,
        lambda x, stream: Interface(x, stream=stream.cuda_stream),
        lambda x, stream: DeviceTensor(Interface(x), stream=stream.cuda_stream),
        lambda x, stream: DeviceTensor(Interface(x), stream=StreamObject(stream)),
    ],
    ids=["dlpack", "interface", "stream number", "stream object"],
)
def test_what_the_producer_has_enqueued_is_waited_for(session, ordered):
    x = torch.zeros(WIDTH, device="cuda")
    stream = write_too_late(session, x, 3)
    with torch.cuda.stream(stream):
        started = time.monotonic()
        future = session.submit(ordered(x, stream))
        assert time.monotonic() - started < 0.1
        assert not stream.query()
    np.testing.assert_array_equal(future.result(30)["y"], 6)


def test_the_legacy_default_stream_is_waited_for(session):
    x = torch.zeros(WIDTH, device="cuda")
    late_write(x, 3)
    np.testing.assert_array_equal(session.infer(x)["y"], 6)
    late_write(x, 4)
    np.testing.assert_array_equal(session.infer(Interface(x, stream=1))["y"], 8)


def test_an_event_loop_reads_in_the_order_of_its_own_stream(session):
    x = torch.zeros(WIDTH, device="cuda")
    with torch.cuda.stream(write_too_late(session, x, 3)):
        outputs = asyncio.run(session.ainfer(x))
    np.testing.assert_array_equal(outputs["y"], 6)


def test_tensors_live_until_they_are_read_and_no_longer(session):
    session.submit(random(WIDTH)).result(30)
    before = torch.cuda.memory_allocated()
    torch.cuda._sleep(BUSY)
    # PyTorch gives the memory of a dropped tensor to the next of its stream at once.
    futures = [session.submit(torch.full((WIDTH,), float(i), device="cuda")) for i in range(200)]
    for i, future in enumerate(futures):
        np.testing.assert_array_equal(future.result(30)["y"], 2 * i)
    assert torch.cuda.memory_allocated() <= before


# --- What is refused


def test_what_does_not_fit_is_refused_with_a_reason(session, image_session):
    x = random(WIDTH)
    for refused, reason in [
        (x.double(), "dtype float64 on GPU 0 was received: convert it to float32"),
        (x[:-1], r"array of shape \(255,\) was received"),
        (x[:0].reshape(0, WIDTH), "without samples"),
        (random(WIDTH, 3).t(), r"pass \.contiguous\(\)"),
        (x[:1].expand(WIDTH), r"pass \.contiguous\(\)"),
        (x.clone().requires_grad_(), "requires? grad"),
        (x.to_sparse(), "cannot be read where it lies"),
        (Interface(x, data=(id(x), False)), "its address is not of memory that a GPU reads"),
    ]:
        with pytest.raises(InputError, match=reason):
            session.infer(refused)
        with pytest.raises(InputError, match=reason):
            asyncio.run(session.ainfer(refused))
    image = torch.zeros((3, 20, 20), dtype=torch.uint8, device="cuda")
    with pytest.raises(InputError, match=r"array of shape \(3, 20, 20\) was received"):
        image_session.infer(image)
    with pytest.raises(InputError, match=r"pass \.contiguous\(\)"):
        image_session.infer(image.permute(1, 2, 0))
    check(session.infer(x), x)


# --- Without a GPU to run on


def test_a_session_on_the_cpu_fetches_them():
    x = torch.zeros((12, WIDTH), device="cuda")
    with trtinfer.Session(doubling_model(), backend="onnxruntime", max_batch_size=8) as session:
        for value, infer in enumerate(
            (
                session.infer,
                lambda x: session.submit(x).result(30),
                lambda x: asyncio.run(session.ainfer(x)),
                lambda x: session.infer_many([x])[0],
            )
        ):
            late_write(x, value)
            np.testing.assert_array_equal(infer(x)["y"], 2 * value)
            check(session.infer(x[::2]), x[::2])


def test_they_are_fetched_when_the_gpu_has_failed():
    # Afterwards PyTorch's allocator and ours find the memory free again.
    rng, gpu = np.random.default_rng(9), Gpu()
    images = [rng.integers(0, 256, (side, side, 3), np.uint8) for side in (300, 4000)]
    small, large = (torch.from_numpy(image).cuda() for image in images)
    with open_session(models.image_identity_model(), preprocess=RECIPE, max_inflight=1) as session:
        np.testing.assert_array_equal(session.infer(small)["y"], RECIPE(images[0]))
        taken = gpu.fill()
        try:
            outputs = session.infer(large)["y"]
        finally:
            gpu.free(*taken)
        assert session.backend == "onnxruntime"
        np.testing.assert_array_equal(outputs, RECIPE(images[1]))
        np.testing.assert_array_equal(session.infer(small)["y"], RECIPE(images[0]))


@pytest.mark.gpu(2)
def test_tensors_of_another_gpu_are_taken(session):
    wide = torch.rand((9, 2 * WIDTH), device="cuda:1")
    check(session.infer(wide[0, :WIDTH]), wide[0, :WIDTH])
    check(session.infer(wide[:, :WIDTH]), wide[:, :WIDTH])
    x, stream = torch.zeros(WIDTH, device="cuda:1"), torch.cuda.Stream("cuda:1")
    torch.cuda.synchronize("cuda:1")
    with torch.cuda.stream(stream):
        late_write(x, 3)
        np.testing.assert_array_equal(session.infer(x)["y"], 6)


# --- Streams


def test_the_streams_of_the_lanes_can_be_waited_for(session):
    assert len(session.streams) == 2
    for stream in session.streams:
        assert stream.__cuda_stream__() == (0, stream.handle)
        assert stream.device == 0
        external = torch.cuda.ExternalStream(stream.handle)
        external.synchronize()
        assert external.query()
