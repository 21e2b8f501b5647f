"""Classifies photos with the embedded model: one at a time, then all at once.

Usage: python examples/classify_photos.py IMAGE...
"""

from __future__ import annotations

import sys
from pathlib import Path

import trtinfer


def main(paths: list[str]) -> None:
    """Prints the best class of each photo, then the top 3 of all of them."""
    with trtinfer.Classifier() as classifier:
        for path in paths:
            [(probability, label)] = classifier(path, top_k=1)
            print(f"{Path(path).name}: {label} ({probability:.2f})")

        # Futures: the requests share batches.
        futures = {path: classifier.submit(path, top_k=3) for path in paths}
        for path, future in futures.items():
            print(Path(path).name, future.result())


if __name__ == "__main__":
    main(sys.argv[1:])
