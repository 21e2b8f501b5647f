"""Kernels that TensorRT for RTX compiles for a model when its engines are opened.

A plan of it holds no kernels. They are kept in the plan cache, and shared by all sessions of a
process: TensorRT for RTX 1.6.1 loses 153 kB of memory each time that they are read or written.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from trtinfer import _core
from trtinfer.engines import Engines
from trtinfer.plan_cache import PlanCache, key_text

_MOST_MODELS = 64  # whose kernels a process remembers

_remembered: OrderedDict[object, _Kernels] = OrderedDict()
_lock = threading.Lock()


class _Kernels:
    """Of one model on one GPU."""

    def __init__(self, engines: Engines, cache: PlanCache) -> None:
        self.native = _core.TensorRtRuntimeCache(engines.buckets[0][1])
        self.lock = threading.Lock()
        self.plans: set[bytes] = set()  # all their kernels are here, and in the plan cache
        self._stored = cache.get(engines.kernels_key)
        if self._stored is not None and not self.native.deserialize(self._stored):
            self._stored = None

    def save(self, engines: Engines, cache: PlanCache) -> None:
        if engines.plans <= self.plans and cache.has(engines.kernels_key):
            return
        compiled = self.native.serialize()
        if compiled != self._stored or not cache.has(engines.kernels_key):
            cache.put(engines.kernels_key, compiled)
        self._stored = compiled
        self.plans |= engines.plans


@contextmanager
def kernels_for(engines: Engines, cache: PlanCache) -> Iterator[_core.TensorRtRuntimeCache | None]:
    """Gives what execution contexts of these engines are made with, and keeps what they compile.

    Of several threads that open one model at the same time, one compiles and the others wait.

    Args:
        engines: Of one model, on one GPU.
        cache: Where the kernels are kept.

    Yields:
        Kernels that are there already; None: the library is not TensorRT for RTX, whose plans hold
        their kernels.
    """
    if not engines.library.is_rtx:
        yield None
        return
    name = cache.folder, engines.device, key_text(engines.kernels_key)
    with _lock:
        kernels = _remembered.get(name) or _Kernels(engines, cache)
        _remembered[name] = kernels
        _remembered.move_to_end(name)
        while len(_remembered) > _MOST_MODELS:
            _remembered.popitem(last=False)
    with kernels.lock:
        yield kernels.native
        kernels.save(engines, cache)
