"""Serves many asyncio callers with one session: their requests share batches.

Usage: python examples/asyncio_requests.py IMAGE [CALLERS]
"""

from __future__ import annotations

import asyncio
import sys
import time

import trtinfer


async def call(classifier: trtinfer.Classifier, image: bytes, requests: int) -> int:
    """One caller: it waits for each answer before it asks again, as a web request would."""
    for _ in range(requests):
        try:
            await classifier.aclassify(image, timeout=5.0)
        except trtinfer.DeadlineExceededError:
            return 1
    return 0


async def main(path: str, callers: int) -> None:
    """Runs the callers and prints the rate."""
    with open(path, "rb") as file:
        image = file.read()
    with trtinfer.Classifier() as classifier:
        start = time.perf_counter()
        late = sum(await asyncio.gather(*(call(classifier, image, 5) for _ in range(callers))))
        seconds = time.perf_counter() - start
        print(f"{callers} callers: {5 * callers / seconds:.0f} images/s, {late} gave up")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 16))
