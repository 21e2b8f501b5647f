"""Other ways to run ResNet-50 in half precision: ONNX Runtime with NVIDIA's provider, and PyTorch.

They take batches that are formed already, have as many of them under way as trtinfer has (one
where two hang), and reuse their buffers. "On the GPU": without transfers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import resnet50
from contenders import IN_FLIGHT, Array, Contender, Flood, Work
from measuring import clock

_NVIDIA = 0x10DE


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


def _open_provider(size: int, graph: bool, devices: list[Any], kernels: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices(
        devices,
        {"enable_cuda_graph": str(int(graph)), "nv_runtime_cache_path": kernels},
    )
    return onnxruntime.InferenceSession(resnet50.build(size), sess_options=options)


class _Bound:
    """A session with a CUDA graph, and its tensors on the GPU."""

    def __init__(self, work: Work, devices: list[Any], kernels: str) -> None:
        from onnxruntime import OrtValue

        self._inputs = work.inputs
        self._session = _open_provider(work.size, True, devices, kernels)
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
def _open_bound(work: Work) -> Iterator[_Bound]:
    """One alone: two at a time, each on a thread of its own, wait for each other for ever."""
    devices = _provider_devices()
    with tempfile.TemporaryDirectory() as kernels:
        yield _Bound(work, devices, kernels)


@contextmanager
def open_onnxruntime_on_gpu(work: Work) -> Iterator[Contender]:
    with _open_bound(work) as bound:
        yield Contender(bound.answer, bound.run, _by_threads([bound.run], work.size))


@contextmanager
def open_onnxruntime_graph(work: Work) -> Iterator[Contender]:
    with _open_bound(work) as bound:
        yield Contender(bound.answer, flood=_by_threads([bound.answer], work.size))


@contextmanager
def open_onnxruntime(work: Work) -> Iterator[Contender]:
    with tempfile.TemporaryDirectory() as kernels:
        session = _open_provider(work.size, False, _provider_devices(), kernels)

        def run() -> Array:
            return np.asarray(session.run(None, {resnet50.INPUT: work.inputs})[0])

        yield Contender(run, flood=_by_threads([run] * IN_FLIGHT, work.size))


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
def open_torch_on_gpu(work: Work) -> Iterator[Contender]:
    graphs = [_Graph(work) for _ in range(IN_FLIGHT)]
    asks = [g.run for g in graphs]
    yield Contender(graphs[0].answer, asks[0], _by_threads(asks, work.size))


@contextmanager
def open_torch_graph(work: Work) -> Iterator[Contender]:
    asks = [_Graph(work).answer for _ in range(IN_FLIGHT)]
    yield Contender(asks[0], flood=_by_threads(asks, work.size))
