"""A device and its queue on a simulated clock: how batching policies do under a trace."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from trtinfer import _core

#: Seconds that a batch of ResNet-50 in fp16 took on an H100 with a plan for each size: 1, 8 and 64
#: were measured, the others lie on the lines between them.
RESNET50 = {
    1: 0.364e-3,
    2: 0.403e-3,
    4: 0.481e-3,
    8: 0.638e-3,
    16: 0.980e-3,
    32: 1.663e-3,
    64: 3.030e-3,
}


def padded(costs: dict[int, float], samples: int) -> int:
    return min(size for size in costs if size >= samples)


class Policy(Protocol):
    """What the simulation asks; times in seconds."""

    def arrives(self, now: float, queued: int) -> float | None:
        """Predicted latency (0: none made) of a new request; None: it is refused."""

    def decide(self, now: float, queue: deque[float]) -> tuple[int, float]:
        """How many to launch now, and when to ask again at the latest."""

    def launched(self, lane: int, now: float, samples: int) -> None: ...
    def finished(self, lane: int, now: float) -> None: ...
    def answered(self, predicted: float, latency: float) -> None: ...


class FixedDelay:
    """Launches a full batch, or what there is once the oldest has waited for ``delay``.

    So do Triton (max_queue_delay_microseconds) and mosec (max_wait_time), with a free instance.
    ``limit``: more than this many waiting are refused (max_queue_size); 0: never.
    """

    def __init__(self, costs: dict[int, float], delay: float, size: int = 64, limit: int = 0):
        self._delay, self._size, self._limit = delay, min(size, max(costs)), limit

    def arrives(self, now: float, queued: int) -> float | None:
        return None if self._limit and queued >= self._limit else 0.0

    def decide(self, now: float, queue: deque[float]) -> tuple[int, float]:
        ripe = queue[0] + self._delay
        if now < ripe and len(queue) < self._size:
            return 0, ripe
        return min(len(queue), self._size), now

    def launched(self, lane: int, now: float, samples: int) -> None: ...
    def finished(self, lane: int, now: float) -> None: ...
    def answered(self, predicted: float, latency: float) -> None: ...


class LatencyTarget:
    """The policy of a session with ``latency_slo``."""

    def __init__(self, costs: dict[int, float], target: float | None, lanes: int = 2):
        self.native = _core.LatencyPolicy(target, lanes, list(costs), lanes_share=True, pads=True)
        for size, cost in costs.items():
            self.native.learn(size, cost)

    def arrives(self, now: float, queued: int) -> float | None:
        if not self.native.admits(now, queued, 1):
            return None
        return self.native.predict(now, queued, 1)

    def decide(self, now: float, queue: deque[float]) -> tuple[int, float]:
        return self.native.decide(now, len(queue))

    def launched(self, lane: int, now: float, samples: int) -> None:
        self.native.launched(lane, now, samples)

    def finished(self, lane: int, now: float) -> None:
        self.native.finished(lane, now)

    def answered(self, predicted: float, latency: float) -> None:
        self.native.answered(predicted, latency)


@dataclass
class Outcome:
    latencies: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    refused: int = 0
    idle_with_queue: float = 0.0  # seconds in which the device had nothing and requests waited

    def quantile(self, q: float) -> float:
        return float(np.quantile(self.latencies, q))


def simulate(
    policy: Policy,
    arrivals: np.ndarray,
    costs: dict[int, float] = RESNET50,
    *,
    lanes: int = 2,
    noise: float = 0.03,
    seed: int = 1,
) -> Outcome:
    """Run a trace: lanes launch batches, one device runs them in the order of their launch."""
    random = np.random.default_rng(seed)
    outcome = Outcome()
    queue: deque[float] = deque()
    promises: deque[float] = deque()
    running: list[tuple[float, int, list[tuple[float, float]]]] = []
    idle = list(range(lanes))
    device_free = 0.0
    times, next_arrival, retry, now = arrivals.tolist(), 0, np.inf, 0.0
    while next_arrival < len(times) or queue or running:
        arrival = times[next_arrival] if next_arrival < len(times) else np.inf
        end = running[0][0] if running else np.inf
        before, now = now, min(arrival, end, max(retry, now))
        if queue and not running:
            outcome.idle_with_queue += now - before
        if now == end:
            _, lane, members = heapq.heappop(running)
            idle.append(lane)
            policy.finished(lane, now)
            for came, predicted in members:
                outcome.latencies.append(now - came)
                policy.answered(predicted, now - came)
        elif now == arrival:
            next_arrival += 1
            predicted = policy.arrives(now, len(queue))
            if predicted is None:
                outcome.refused += 1
            else:
                queue.append(now)
                promises.append(predicted)
        retry = np.inf
        while queue and idle:
            samples, again = policy.decide(now, queue)
            if samples == 0:
                retry = max(again, now + 1e-9)
                break
            count = min(samples, len(queue))
            members = [(queue.popleft(), promises.popleft()) for _ in range(count)]
            lane = idle.pop(0)
            cost = costs[padded(costs, count)] * random.lognormal(0, noise)
            device_free = max(now, device_free) + cost
            policy.launched(lane, now, count)
            outcome.batches.append(count)
            heapq.heappush(running, (device_free, lane, members))
    return outcome


# --- Traces: times of arrival, in seconds


def uniform(rate: float, seconds: float) -> np.ndarray:
    return np.arange(0, seconds, 1 / rate)


def poisson(rate: float, seconds: float, seed: int = 0) -> np.ndarray:
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds))
    return np.cumsum(gaps)


def bursts(rate: float, seconds: float, size: int = 50) -> np.ndarray:
    """All requests of a burst come at once."""
    return np.repeat(np.arange(0, seconds, size / rate), size)


def ramp(low: float, high: float, seconds: float, seed: int = 0) -> np.ndarray:
    """Poisson arrivals of a rate that grows from ``low`` to ``high``."""
    random = np.random.default_rng(seed)
    candidates = np.cumsum(random.exponential(1 / high, int(high * seconds)))
    kept = random.random(len(candidates)) < (low + (high - low) * candidates / seconds) / high
    return candidates[kept]
