"""Ways to run ResNet-50 in half precision on a GPU: bare, trtinfer, ONNX Runtime, PyTorch.

Each `open_...` is given the same work and yields what it can do by name. Peers take batches that
are formed already, have as many of them under way as trtinfer has, and reuse their buffers.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resnet50
from measuring import Load, clock, measure_tasks, measure_threads
from numpy.typing import NDArray

import trtinfer
from trtinfer import BuildOptions, Recipe, TensorRtOptions, _core, tensorrt_library
from trtinfer.model_description import describe
from trtinfer.model_source import ModelSource
from trtinfer.plan_cache import PlanCache
from trtinfer.plans import PlanBuilder

Array = NDArray[Any]
#: Seconds to images per second.
Flood = Callable[[float], float]

RECIPE = Recipe.named("torchvision").replace(dtype="float16")
BUCKETS = (1, 8, 64)
BUILD = BuildOptions(tf32=True)  # the model says what is computed in which precision
IN_FLIGHT = 2  # batches under way: trtinfer's default
TOLERANCE = 0.02  # of the range of the answers
_NVIDIA = 0x10DE


@dataclass(frozen=True)
class Work:
    """A batch, as images and as the network's input, and what is right."""

    images: list[NDArray[np.uint8]]
    inputs: NDArray[np.float16]
    answers: Array

    @property
    def size(self) -> int:
        return len(self.images)

    def check(self, got: Array) -> None:
        worst = np.abs(np.asarray(got, np.float32).reshape(self.answers.shape) - self.answers).max()
        if not worst <= TOLERANCE * np.ptp(self.answers):
            raise AssertionError(f"wrong answers, by {worst:.3g}")


@dataclass(frozen=True)
class Contender:
    """A way to answer a batch.

    Attributes:
        answer: Answers it, for a check.
        ask: What is timed when one batch is under way; None: `answer`.
        flood: Has as many under way as it takes; None: not asked.
        alone: Nanoseconds of each batch in so many seconds; None: `ask` in a loop.
        from_host: Whether images come from the host's memory and answers go there.
    """

    answer: Callable[[], Array] | None = None
    ask: Callable[[], object] | None = None
    flood: Flood | None = None
    alone: Callable[[float], list[int]] | None = None
    from_host: bool = True


# --- Bare


def _open_engine(size: int) -> tuple[_core.TensorRtEngine, _core.TensorRtRuntimeCache | None]:
    """The plan and the kernels that a session has put in the cache."""
    library, source, cache = tensorrt_library.find(), ModelSource(resnet50.build()), PlanCache()
    builder = PlanBuilder(library, source, describe(source, cache).axis, BUILD, cache)
    engine = _core.TensorRtEngine(library, builder.plan(size).data)
    if not library.is_rtx:
        return engine, None
    kernels = _core.TensorRtRuntimeCache(engine)
    kernels.deserialize(cache.get(builder.runtime_cache_key()) or b"")
    return engine, kernels


def _bare(work: Work, lanes: int, transfers: bool) -> Contender:
    engine, kernels = _open_engine(work.size)
    replay = _core.EngineReplay(
        engine, [work.inputs], lanes=lanes, transfers=transfers, cache=kernels
    )
    seconds_each = sorted(replay.time_alone(30))[15]

    def answer() -> Array:
        return np.frombuffer(replay.outputs()[0], np.float16)

    def alone(seconds: float) -> list[int]:
        return [int(t * 1e9) for t in replay.time_alone(1 + int(seconds / seconds_each))]

    def flood(seconds: float) -> float:
        count = 1 + int(seconds / seconds_each)
        return count * work.size / replay.time_saturated(count)

    return Contender(answer, alone=alone, flood=flood, from_host=transfers)


@contextmanager
def open_bare(work: Work) -> Iterator[dict[str, Contender]]:
    yield {
        "bare graph": _bare(work, 1, transfers=False),
        "bare graph, copies": _bare(work, IN_FLIGHT, transfers=True),
    }


# --- trtinfer


def open_session(max_batch_size: int, **more: Any) -> trtinfer.Session:
    buckets = [size for size in BUCKETS if size <= max_batch_size]
    return trtinfer.Session(
        resnet50.build(),
        backend="tensorrt",
        max_batch_size=max_batch_size,
        max_inflight=IN_FLIGHT,
        tensorrt=TensorRtOptions(build=BUILD, buckets=buckets),
        **more,
    )


def _keep_under_way(
    submit: Callable[[], list[Any]], size: int, check: Callable[[Any], None]
) -> Flood:
    """One thread, which asks for another batch whenever the oldest is answered."""

    def flood(seconds: float) -> float:
        under_way = deque(submit() for _ in range(2 * IN_FLIGHT))
        done, begin = 0, clock()
        while clock() - begin < seconds * 1e9:
            answers = [future.result() for future in under_way.popleft()]
            done += size
            under_way.append(submit())
        elapsed = (clock() - begin) / 1e9
        check(answers)
        for futures in under_way:
            check([future.result() for future in futures])
        return done / elapsed

    return flood


def _stack(answers: list[dict[str, Array]]) -> Array:
    return np.concatenate([np.atleast_2d(answer[resnet50.OUTPUT]) for answer in answers])


def _arrays(work: Work, session: trtinfer.Session) -> Contender:
    x = work.inputs if work.size > 1 else work.inputs[0]
    return Contender(
        lambda: session.infer(x)[resnet50.OUTPUT],
        lambda: session.infer(x),
        _keep_under_way(
            lambda: [session.submit(x)], work.size, lambda got: work.check(_stack(got))
        ),
    )


def _images(work: Work, session: trtinfer.Session) -> dict[str, Contender]:
    images, spread = work.images, np.ptp(work.answers)
    callers = [i % work.size for i in range(2 * IN_FLIGHT * work.size)]

    def check(i: int, answer: dict[str, Array]) -> None:
        worst = np.abs(answer[resnet50.OUTPUT].astype(np.float32) - work.answers[i]).max()
        if not worst <= TOLERANCE * spread:
            raise AssertionError(f"a wrong answer, by {worst:.3g}")

    async def ainfer(i: int) -> Any:
        return await session.ainfer(images[i])

    def by_threads(seconds: float) -> float:
        load = Load(callers, check, seconds, warm_up=2)
        return measure_threads(nullcontext(lambda i: session.infer(images[i])), load).rate

    def by_tasks(seconds: float) -> float:
        load = Load(callers, check, seconds, warm_up=2)
        return asyncio.run(measure_tasks(nullcontext(ainfer), load)).rate

    def ask() -> list[Any]:
        if work.size == 1:
            return [session.infer(images[0])]
        return session.infer_many(images)

    submit = functools.partial(session.submit_many, images)
    by_one = _keep_under_way(submit, work.size, lambda got: work.check(_stack(got)))
    return {
        "trtinfer, images": Contender(lambda: _stack(ask()), ask, by_one),
        "trtinfer, images, threads": Contender(flood=by_threads),
        "trtinfer, images, asyncio": Contender(flood=by_tasks),
    }


@contextmanager
def open_trtinfer(work: Work) -> Iterator[dict[str, Contender]]:
    with open_session(work.size) as arrays, open_session(work.size, preprocess=RECIPE) as images:
        yield {"trtinfer": _arrays(work, arrays), **_images(work, images)}


# --- Peers


def _by_threads(asks: Sequence[Callable[[], object]], size: int) -> Flood:
    """A thread for each way to ask."""

    def flood(seconds: float) -> float:
        begin = clock()

        def count(ask: Callable[[], object]) -> int:
            asked = 0
            while clock() - begin < seconds * 1e9:
                ask()
                asked += 1
            return asked

        with ThreadPoolExecutor(len(asks)) as pool:
            batches = sum(pool.map(count, asks))
        return batches * size / ((clock() - begin) / 1e9)

    return flood


@functools.cache
def _provider_devices() -> list[Any]:
    """GPU 0 through the provider, which stays registered until the process ends."""
    import onnxruntime
    import onnxruntime_ep_nv_tensorrt_rtx as provider

    name = provider.get_ep_name()
    onnxruntime.register_execution_provider_library(name, provider.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise RuntimeError(f"{name} finds no GPU")
    return devices[:1]


def _open_provider(size: int, graph: bool) -> Any:
    import onnxruntime

    kernels = Path(tempfile.gettempdir(), "trtinfer-bench-onnxruntime")
    kernels.mkdir(exist_ok=True)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices(
        _provider_devices(),
        {"enable_cuda_graph": str(int(graph)), "nv_runtime_cache_path": str(kernels)},
    )
    return onnxruntime.InferenceSession(resnet50.build(size), sess_options=options)


class _Bound:
    """A session with a CUDA graph, and its tensors on the GPU."""

    def __init__(self, work: Work) -> None:
        from onnxruntime import OrtValue

        self._inputs = work.inputs
        self._session = _open_provider(work.size, graph=True)
        self._x = OrtValue.ortvalue_from_numpy(work.inputs, "gpu", 0, _NVIDIA)
        shape = list(work.answers.shape)
        self._y = OrtValue.ortvalue_from_shape_and_type(shape, np.float16, "gpu", 0, _NVIDIA)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(resnet50.INPUT, self._x)
        self._binding.bind_ortvalue_output(resnet50.OUTPUT, self._y)
        for _ in range(5):
            self.run()  # captures the graph, which nothing else should disturb

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def answer(self) -> Array:
        self._x.update_inplace(self._inputs)
        self.run()
        return np.asarray(self._y.numpy())


@contextmanager
def open_onnxruntime(work: Work) -> Iterator[dict[str, Contender]]:
    bound = [_Bound(work) for _ in range(IN_FLIGHT)]
    plain = _open_provider(work.size, graph=False)

    def run() -> Array:
        return np.asarray(plain.run(None, {resnet50.INPUT: work.inputs})[0])

    on_gpu, to_host = [b.run for b in bound], [b.answer for b in bound]
    yield {
        "ONNX Runtime, graph, on the GPU": Contender(
            to_host[0], on_gpu[0], _by_threads(on_gpu, work.size), from_host=False
        ),
        "ONNX Runtime, graph": Contender(to_host[0], flood=_by_threads(to_host, work.size)),
        "ONNX Runtime, run": Contender(run, flood=_by_threads([run] * IN_FLIGHT, work.size)),
    }


class _Graph:
    """PyTorch's operators in a CUDA graph, with pinned memory before and behind it."""

    def __init__(self, work: Work) -> None:
        import torch
        from torch_network import Network

        self._torch, self._inputs = torch, work.inputs
        self._network = Network(resnet50.build())  # the graph reads its weights
        self._stream = torch.cuda.Stream()
        self._sent = torch.from_numpy(work.inputs).pin_memory()
        self._x = self._sent.cuda()
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for _ in range(3):  # cuDNN chooses its algorithms
                self._network(self._x)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._y = self._network(self._x)
        self._got = torch.empty(self._y.shape, dtype=self._y.dtype, pin_memory=True)

    def run(self) -> None:
        with self._torch.cuda.stream(self._stream):
            self._graph.replay()
        self._stream.synchronize()

    def answer(self) -> Array:
        self._sent.numpy()[...] = self._inputs
        with self._torch.cuda.stream(self._stream):
            self._x.copy_(self._sent, non_blocking=True)
            self._graph.replay()
            self._got.copy_(self._y, non_blocking=True)
        self._stream.synchronize()
        return np.array(self._got.numpy())


@contextmanager
def open_torch(work: Work) -> Iterator[dict[str, Contender]]:
    graphs = [_Graph(work) for _ in range(IN_FLIGHT)]
    on_gpu, to_host = [g.run for g in graphs], [g.answer for g in graphs]
    yield {
        "PyTorch, graph, on the GPU": Contender(
            to_host[0], on_gpu[0], _by_threads(on_gpu, work.size), from_host=False
        ),
        "PyTorch, graph": Contender(to_host[0], flood=_by_threads(to_host, work.size)),
    }
