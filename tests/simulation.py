"""A device and its queue on a simulated clock: how batching policies do under a trace."""

from __future__ import annotations

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


#: The same on an H200 when batches follow each other without end, and when one runs alone, with
#: transfers: again 1, 8 and 64 were measured.
RESNET50_BUSY = {
    1: 0.205e-3,
    2: 0.247e-3,
    4: 0.330e-3,
    8: 0.497e-3,
    16: 0.821e-3,
    32: 1.469e-3,
    64: 2.765e-3,
}
RESNET50_ALONE = {
    1: 0.365e-3,
    2: 0.410e-3,
    4: 0.501e-3,
    8: 0.683e-3,
    16: 1.038e-3,
    32: 1.749e-3,
    64: 3.174e-3,
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


# --- Devices


class InOrder:
    """Runs one batch after the other, as they were launched."""

    def __init__(self, costs: dict[int, float]) -> None:
        self._costs = costs
        self._running: deque[tuple[float, int]] = deque()
        self._free = 0.0

    @property
    def next_end(self) -> float:
        """When the next batch ends."""
        return self._running[0][0] if self._running else np.inf

    def launch(self, now: float, lane: int, samples: int, slowness: float) -> None:
        self._free = max(now, self._free) + self._costs[padded(self._costs, samples)] * slowness
        self._running.append((self._free, lane))

    def end(self) -> int:
        """The lane of the batch that ends."""
        return self._running.popleft()[1]


class Shared:
    """Runs batches side by side, as a GPU does, which a lone small batch does not fill.

    ``alone`` is what a batch takes when no other runs, ``costs`` what it adds where others wait.
    """

    def __init__(self, costs: dict[int, float], alone: dict[int, float]) -> None:
        self._costs, self._alone = costs, alone
        self._left: dict[int, float] = {}  # work, in seconds of the whole device, by lane
        self._most: dict[int, float] = {}  # of the device, that a batch can use
        self._now = 0.0

    def _shares(self) -> dict[int, float]:
        shares, left = {}, 1.0
        for waiting, lane in enumerate(sorted(self._most, key=self._most.__getitem__)):
            shares[lane] = min(self._most[lane], left / (len(self._most) - waiting))
            left -= shares[lane]
        return shares

    def _ends(self) -> dict[int, float]:
        return {lane: self._now + self._left[lane] / s for lane, s in self._shares().items()}

    def _go_on(self, now: float) -> None:
        for lane, share in self._shares().items():
            self._left[lane] -= share * (now - self._now)
        self._now = now

    @property
    def next_end(self) -> float:
        return min(self._ends().values(), default=np.inf)

    def launch(self, now: float, lane: int, samples: int, slowness: float) -> None:
        self._go_on(now)
        size = padded(self._costs, samples)
        self._left[lane] = self._costs[size] * slowness
        self._most[lane] = self._costs[size] / self._alone[size]

    def end(self) -> int:
        ends = self._ends()
        lane = min(ends, key=ends.__getitem__)
        self._go_on(ends[lane])
        del self._left[lane], self._most[lane]
        return lane


def simulate(
    policy: Policy,
    arrivals: np.ndarray,
    costs: dict[int, float] = RESNET50,
    *,
    alone: dict[int, float] | None = None,
    lanes: int = 2,
    noise: float = 0.03,
    seed: int = 1,
) -> Outcome:
    """Run a trace: lanes launch batches on a device, in order or (with ``alone``) side by side."""
    random = np.random.default_rng(seed)
    device = InOrder(costs) if alone is None else Shared(costs, alone)
    outcome = Outcome()
    queue: deque[float] = deque()
    promises: deque[float] = deque()
    running: dict[int, list[tuple[float, float]]] = {}
    idle = list(range(lanes))
    times, next_arrival, retry, now = arrivals.tolist(), 0, np.inf, 0.0
    while next_arrival < len(times) or queue or running:
        arrival = times[next_arrival] if next_arrival < len(times) else np.inf
        end = device.next_end
        before, now = now, min(arrival, end, max(retry, now))
        if queue and not running:
            outcome.idle_with_queue += now - before
        if now == end:
            lane = device.end()
            idle.append(lane)
            policy.finished(lane, now)
            for came, predicted in running.pop(lane):
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
            lane = idle.pop(0)
            running[lane] = [(queue.popleft(), promises.popleft()) for _ in range(count)]
            device.launch(now, lane, count, random.lognormal(0, noise))
            policy.launched(lane, now, count)
            outcome.batches.append(count)
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
