"""Prints the paths of real photos that installed packages ship, one a line (for `make demo`)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PHOTOS = (
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "skimage/data/camera.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/rocket.jpg",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)


def find(photo: str) -> Path | None:
    """The photo's path, or None where its package is not installed; nothing is imported."""
    package, _, rest = photo.partition("/")
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / rest if folders else None
    return path if path and path.is_file() else None


def main() -> int:
    """Prints what is there; fails when nothing is."""
    paths = [path for photo in PHOTOS if (path := find(photo))]
    for path in paths:
        print(path)
    if not paths:
        print('no photos found; run: pip install "trtinfer[demo]"', file=sys.stderr)
    return 0 if paths else 1


if __name__ == "__main__":
    sys.exit(main())
