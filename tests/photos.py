"""Real photos."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest


def photos() -> list[Path]:
    """Of scikit-image, or of a folder named by TRTINFER_PHOTOS."""
    folder = os.environ.get("TRTINFER_PHOTOS")
    if folder is None:
        spec = importlib.util.find_spec("skimage")
        if spec is None or not spec.submodule_search_locations:
            pytest.skip("no photos: install scikit-image")
        folder = os.path.join(spec.submodule_search_locations[0], "data")
    names = ("chelsea.png", "coffee.png", "camera.png", "rocket.jpg", "motorcycle_left.png")
    return [path for name in names if (path := Path(folder, name)).is_file()]
