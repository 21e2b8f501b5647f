"""Ways to run ResNet-50 in half precision on a GPU: the bare graph, and trtinfer."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
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
    """

    answer: Callable[[], Array] | None = None
    ask: Callable[[], object] | None = None
    flood: Flood | None = None
    alone: Callable[[float], list[int]] | None = None


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


def bare(work: Work, lanes: int, transfers: bool, in_turn: bool = True) -> Contender:
    engine, kernels = _open_engine(work.size)
    replay = _core.EngineReplay(
        engine, [work.inputs], lanes=lanes, transfers=transfers, in_turn=in_turn, cache=kernels
    )
    seconds_each = sorted(replay.time_alone(30))[15]

    def answer() -> Array:
        return np.frombuffer(replay.outputs()[0], np.float16)

    def alone(seconds: float) -> list[int]:
        return [int(t * 1e9) for t in replay.time_alone(1 + int(seconds / seconds_each))]

    def flood(seconds: float) -> float:
        count = 1 + int(seconds / seconds_each)
        return count * work.size / replay.time_saturated(count)

    return Contender(answer, alone=alone, flood=flood)


@contextmanager
def open_bare(work: Work) -> Iterator[Contender]:
    """As the library enqueues it: wrong beside other work, right alone."""
    yield bare(work, 1, transfers=False, in_turn=False)


@contextmanager
def open_bare_in_turn(work: Work) -> Iterator[Contender]:
    yield bare(work, 1, transfers=False)


@contextmanager
def open_bare_with_copies(work: Work) -> Iterator[Contender]:
    yield bare(work, IN_FLIGHT, transfers=True)


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


@contextmanager
def open_arrays(work: Work) -> Iterator[Contender]:
    x = work.inputs if work.size > 1 else work.inputs[0]
    with open_session(work.size) as session:
        yield Contender(
            lambda: session.infer(x)[resnet50.OUTPUT],
            lambda: session.infer(x),
            _keep_under_way(
                lambda: [session.submit(x)], work.size, lambda got: work.check(_stack(got))
            ),
        )


@contextmanager
def open_images(work: Work) -> Iterator[Contender]:
    with open_session(work.size, preprocess=RECIPE) as session:

        def ask() -> list[Any]:
            if work.size == 1:
                return [session.infer(work.images[0])]
            return session.infer_many(work.images)

        submit = functools.partial(session.submit_many, work.images)
        flood = _keep_under_way(submit, work.size, lambda got: work.check(_stack(got)))
        yield Contender(lambda: _stack(ask()), ask, flood)


def _load(work: Work, seconds: float) -> Load:
    """Callers for twice as many batches as can be under way, each with an image of its own."""
    spread = np.ptp(work.answers)

    def check(i: int, answer: dict[str, Array]) -> None:
        worst = np.abs(answer[resnet50.OUTPUT].astype(np.float32) - work.answers[i]).max()
        if not worst <= TOLERANCE * spread:
            raise AssertionError(f"a wrong answer, by {worst:.3g}")

    callers = [i % work.size for i in range(2 * IN_FLIGHT * work.size)]
    return Load(callers, check, seconds, warm_up=2)


@contextmanager
def open_threads(work: Work) -> Iterator[Contender]:
    with open_session(work.size, preprocess=RECIPE) as session:

        def infer(i: int) -> Any:
            return session.infer(work.images[i])

        yield Contender(flood=lambda s: measure_threads(nullcontext(infer), _load(work, s)).rate)


@contextmanager
def open_tasks(work: Work) -> Iterator[Contender]:
    with open_session(work.size, preprocess=RECIPE) as session:

        async def ainfer(i: int) -> Any:
            return await session.ainfer(work.images[i])

        def flood(seconds: float) -> float:
            return asyncio.run(measure_tasks(nullcontext(ainfer), _load(work, seconds))).rate

        yield Contender(flood=flood)
