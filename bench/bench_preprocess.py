"""How long does preprocessing take, against Pillow + NumPy for the same bits, and on the GPU?

Everything runs interleaved in one process; medians are shown.
    python bench/bench_preprocess.py [--rounds 50] [--json results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import PIL.Image

from trtinfer import _core
from trtinfer.preprocess import Recipe

SIZES = [(1080, 1920), (480, 640), (256, 256)]
RECIPES = ["torchvision", "timm"]
BATCHES = [1, 8, 32]
FILTERS = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}
Array = npt.NDArray[Any]


def photo(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A smooth picture with some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 100 * np.sin(x / 17 + y / 31 + c) for c in range(3)], -1)
    return (waves + rng.uniform(-20, 20, waves.shape)).astype(np.uint8)


def with_pillow(recipe: Recipe, picture: PIL.Image.Image) -> Array:
    """Resize, crop and normalize as torchvision's transforms of a PIL image do."""
    assert isinstance(recipe.resize, int)
    assert recipe.crop is not None
    side, (crop_height, crop_width) = recipe.resize, recipe.crop
    shorter, longer = sorted(picture.size)
    scaled = int(side * longer / shorter)
    size = (side, scaled) if picture.width <= picture.height else (scaled, side)
    left, top = round((size[0] - crop_width) / 2), round((size[1] - crop_height) / 2)
    resized = picture.resize(size, FILTERS[recipe.filter])
    values = np.asarray(resized.crop((left, top, left + crop_width, top + crop_height)), np.float32)
    values /= np.float32(recipe.scale)
    values -= np.float32(recipe.mean)
    values /= np.float32(recipe.std)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def measure(runs: dict[str, Callable[[], Array]], rounds: int) -> dict[str, float]:
    """Median milliseconds of every run, one after the other in each round."""
    expected = next(iter(runs.values()))()
    assert all(np.array_equal(run(), expected) for run in runs.values())
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def bench_cpu(rounds: int) -> list[dict[str, Any]]:
    """Every size with every recipe."""
    rows = []
    threads = len(os.sched_getaffinity(0))
    for name in RECIPES:
        recipe = Recipe.named(name)
        one = _core.HostPreprocessor(recipe.native, 1)
        many = _core.HostPreprocessor(recipe.native, threads)
        for height, width in SIZES:
            print(f"CPU: {name} {width}x{height} ...", file=sys.stderr, flush=True)
            image = photo(height, width)
            picture = PIL.Image.fromarray(image)
            medians = measure(
                {
                    "pillow": lambda recipe=recipe, picture=picture: with_pillow(recipe, picture),
                    "one_thread": lambda one=one, image=image: one(image),
                    "all_threads": lambda many=many, image=image: many(image),
                },
                rounds,
            )
            rows.append(
                {"recipe": name, "size": f"{width}x{height}", "threads": threads, **medians}
            )
    return rows


def bench_gpu(rounds: int) -> list[dict[str, Any]]:
    """Microseconds of a whole batch. Empty without a GPU."""
    rows: list[dict[str, Any]] = []
    if _core.probe_cuda().reason:
        return rows
    for name in RECIPES:
        for dtype in ("float32", "float16"):
            native = Recipe.named(name).replace(dtype=dtype).native
            for height, width in SIZES:
                for batch in BATCHES:
                    print(
                        f"GPU: {name} {width}x{height} x {batch} ...", file=sys.stderr, flush=True
                    )
                    images = [photo(height, width)] * batch
                    times = _core.time_preprocess_gpu(native, images, rounds + 5)[5:]
                    rows.append(
                        {
                            "recipe": name,
                            "dtype": dtype,
                            "size": f"{width}x{height}",
                            "batch": batch,
                        }
                        | {
                            key: statistics.median(getattr(t, key) for t in times)
                            for key in ("kernel", "launch", "with_transfer")
                        }
                    )
    return rows


def print_cpu(rows: list[dict[str, Any]]) -> None:
    """The table of bench_cpu."""
    print("| recipe | source | Pillow + NumPy, ms | 1 thread, ms | ratio | all threads, ms |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        ratio = row["one_thread"] / row["pillow"]
        print(
            f"| {row['recipe']} | {row['size']} | {row['pillow']:.2f} | {row['one_thread']:.2f} "
            f"| {ratio:.3f} | {row['all_threads']:.2f} |"
        )


def print_gpu(rows: list[dict[str, Any]]) -> None:
    """The table of bench_gpu."""
    print(
        "\n| recipe | source | dtype | batch | kernel, us | launch to end, us | with copies, us |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['recipe']} | {row['size']} | {row['dtype']} | {row['batch']} "
            f"| {row['kernel']:.1f} | {row['launch']:.1f} | {row['with_transfer']:.1f} |"
        )


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    probe = _core.probe_cuda()
    return {
        "processor": platform.processor() or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "gpus": [device.name for device in probe.devices],
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    """Runs both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path, help="write the results there")
    arguments = parser.parse_args()
    cpu, gpu = bench_cpu(arguments.rounds), bench_gpu(arguments.rounds)
    print_cpu(cpu)
    if gpu:
        print_gpu(gpu)
    if arguments.json:
        results = {"machine": machine(), "cpu": cpu, "gpu": gpu}
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
