"""Two sessions of one model side by side: how far apart are their answers?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trtinfer.build_options import Dimensions
from trtinfer.errors import BackendError
from trtinfer.session import Session
from trtinfer.types import Array, TensorInfo

#: How far an output may be from the reference, in parts of the reference's range. A 16-bit type
#: rounds every layer's numbers to 11 (fp16) or 8 (bf16) bits; int8 is compared with the same
#: quantized model, where a rounding that falls to the other side is worth 1/256.
TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 2e-1, "int8-qdq": 1e-1}

_AHEAD = 64  # requests that are submitted at a time
_TOP = 5


@dataclass(frozen=True)
class OutputReport:
    """How one output compares.

    Attributes:
        name: As in the model.
        scale: The reference's range: largest less smallest finite value, or their magnitude where
            all are equal.
        max_difference: The largest, absolute; infinite where only one of the two is a number.
        mean_difference: Over all elements.
        tolerance: What `relative` may be.
        top1: For outputs that look like class scores (one axis beside the batch), the share of
            samples with the same best class; else None.
        top5: Likewise, the share of the reference's five best classes that are among the other's.
    """

    name: str
    scale: float
    max_difference: float
    mean_difference: float
    tolerance: float
    top1: float | None = None
    top5: float | None = None

    @property
    def relative(self) -> float:
        """The largest difference in parts of the scale."""
        if self.max_difference == 0:
            return 0.0
        return self.max_difference / self.scale if self.scale else math.inf

    @property
    def passed(self) -> bool:
        """Whether the output is within its tolerance."""
        return self.relative <= self.tolerance

    def __str__(self) -> str:
        """For people, one line."""
        classes = "" if self.top1 is None else f", top 1 {self.top1:.1%}, top 5 {self.top5:.1%}"
        return (
            f"{self.name}: at most {self.relative:.1e} of the range {self.scale:.3g} "
            f"({self.tolerance:g} allowed), {self.mean_difference / (self.scale or 1):.1e} on "
            f"average{classes}"
        )

    def facts(self) -> dict[str, Any]:
        """For JSON, which has no infinity: null stands for it."""
        facts = {**asdict(self), "relative": self.relative, "passed": self.passed}
        return {name: None if fact == math.inf else fact for name, fact in facts.items()}


@dataclass(frozen=True)
class Report:
    """How two sessions compare.

    Attributes:
        requests: How many were answered by both.
        outputs: In the model's order.
    """

    requests: int
    outputs: tuple[OutputReport, ...]

    @property
    def passed(self) -> bool:
        """Whether every output is within its tolerance."""
        return all(output.passed for output in self.outputs)

    def __str__(self) -> str:
        """For people, a line for each output and the verdict."""
        verdict = "close enough" if self.passed else "too far apart"
        return "\n".join([*map(str, self.outputs), f"{self.requests} requests: {verdict}"])

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        outputs = [output.facts() for output in self.outputs]
        return {"requests": self.requests, "passed": self.passed, "outputs": outputs}


def compare(
    reference: Session, candidate: Session, requests: Iterable[object], tolerance: float
) -> Report:
    """Answers requests by both sessions and compares.

    Args:
        reference: What is right.
        candidate: What is judged.
        requests: As for `Session.submit`; some are submitted at a time, so that they share batches.
        tolerance: The largest difference allowed, in parts of an output's range.

    Raises:
        InputError: A request does not fit the model, or an image cannot be read.
        BackendError: A session cannot answer, or the sessions' outputs are not alike.
    """
    outputs = [_Differences(info) for info in reference.outputs]
    count = 0
    source = iter(requests)
    while some := list(itertools.islice(source, _AHEAD)):
        futures = [(reference.submit(x), candidate.submit(x)) for x in some]
        for right, other in futures:
            for output in outputs:
                output.add(right.result()[output.name], other.result()[output.name])
        count += len(some)
    return Report(count, tuple(output.report(tolerance) for output in outputs))


def random_requests(
    inputs: Sequence[TensorInfo], dimensions: Dimensions, count: int, seed: int = 0
) -> Iterator[dict[str, Array]]:
    """Invents requests of one sample: numbers from 0 to 1, bytes from 0 to 255.

    Args:
        inputs: Of a session without recipe.
        dimensions: Of a `BuildOptions`: the most frequent size is taken for what varies.
        count: How many.
        seed: The same requests for the same seed.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield {info.name: _random(rng, info, dimensions) for info in inputs}


def _random(rng: np.random.Generator, info: TensorInfo, dimensions: Dimensions) -> Array:
    sizes = dimensions.get(info.name, {})
    shape = [sizes.get(i, (1, 1, 1))[1] if n < 0 else n for i, n in enumerate(info.shape)]
    if info.dtype == np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    if info.dtype.kind in "iub":  # an index of anything may be 0 or 1
        return rng.integers(0, 2, shape).astype(info.dtype)
    return rng.random(shape, np.float32).astype(info.dtype)


class _Differences:
    """Of one output, over all requests so far."""

    def __init__(self, info: TensorInfo) -> None:
        self.name = info.name
        self._classes = _classes(info)
        self._smallest, self._largest = math.inf, -math.inf
        self._maximum = self._sum = 0.0
        self._elements = self._rows = 0
        self._top1 = self._top5 = 0.0

    def add(self, right: Array, other: Array) -> None:
        if right.shape != other.shape:
            raise BackendError(
                f"output {self.name} has shape {right.shape} by the reference, but {other.shape}"
            )
        right, other = right.astype(np.float64), other.astype(np.float64)
        finite = right[np.isfinite(right)]
        self._smallest = min(self._smallest, float(finite.min(initial=math.inf)))
        self._largest = max(self._largest, float(finite.max(initial=-math.inf)))
        difference = _difference(right, other)
        self._maximum = max(self._maximum, float(difference.max(initial=0)))
        self._sum += float(difference.sum())
        self._elements += difference.size
        if self._classes:
            rows = zip(
                right.reshape(-1, self._classes), other.reshape(-1, self._classes), strict=True
            )
            for pair in rows:
                self._add_row(*pair)

    def _add_row(self, right: Array, other: Array) -> None:
        best, found = (np.argsort(-row, kind="stable")[:_TOP] for row in (right, other))
        self._rows += 1
        self._top1 += float(best[0] == found[0])
        self._top5 += float(np.isin(best, found).mean())

    def report(self, tolerance: float) -> OutputReport:
        spread = self._largest - self._smallest
        scale = spread or abs(self._largest)
        return OutputReport(
            self.name,
            scale if math.isfinite(scale) else 0.0,
            self._maximum,
            self._sum / max(self._elements, 1),
            tolerance,
            self._top1 / self._rows if self._rows else None,
            self._top5 / self._rows if self._rows else None,
        )


def _difference(right: Array, other: Array) -> Array:
    """Absolute; 0 where both are the same infinity or no number, infinite where one is."""
    with np.errstate(invalid="ignore"):
        difference: Array = np.abs(right - other)
    same = (right == other) | (np.isnan(right) & np.isnan(other))
    difference[same] = 0
    difference[np.isnan(difference)] = math.inf
    return difference


def _classes(info: TensorInfo) -> int:
    """How many, if each sample's output is a row of scores; else 0."""
    sizes = info.shape[1:]
    if -1 in sizes or info.dtype.kind not in "fV":  # V: bfloat16
        return 0
    size = math.prod(sizes)
    return size if 1 < size == max(sizes) else 0
