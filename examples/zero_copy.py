"""Decodes an image straight into the session's memory: no copy between file and batch.

Usage: python examples/zero_copy.py IMAGE
"""

from __future__ import annotations

import sys

import trtinfer
from trtinfer import default_model, images


def main(path: str) -> None:
    """Claims a slot of the image's size, decodes into it, and prints the best class."""
    with trtinfer.Session(default_model.path(), preprocess=default_model.RECIPE) as session:
        image = images.load(path)  # the header only
        with session.claim(shape=image.shape) as slot:
            image.decode_into(slot.inputs["images"])
            future = slot.publish()
        probabilities = future.result()["probs"]
        best = int(probabilities.argmax())
        print(f"{default_model.labels()[best]} ({probabilities[best]:.2f})")


if __name__ == "__main__":
    main(sys.argv[1])
