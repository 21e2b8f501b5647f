"""How long does preprocessing take, against Pillow + NumPy for the same bits, and on the GPU?

On the GPU against torchvision (where it is missing, torch's own antialiased interpolation), and
against the time in which the GPU's memory can be read and written. Everything takes turns in one
process; medians are shown.
    python bench/bench_preprocess.py [--rounds 50] [--json results.json]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from measuring import Verdict, describe_machine, show_verdicts, to_json, write_json

from trtinfer import _core
from trtinfer.preprocess import Recipe

SIZES = [(1080, 1920), (480, 640), (256, 256)]
RECIPES = ["torchvision", "timm"]
BATCHES = [1, 8, 32]
LARGEST = ("1920x1080", 32)
OURS = ("kernel", "launch", "with_transfer")  # of _core.GpuTiming
TURNS = 5
CLOSE = 0.05  # mean difference of normalized values: others round after the resize, or not at all
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


def open_torch() -> Any:
    """The peer on the GPU; None where there is no PyTorch."""
    try:
        import torch_preprocess
    except ImportError as error:
        print(f"missing: PyTorch ({error})")
        return None
    return torch_preprocess


def bench_gpu(rounds: int, peer: Any) -> list[dict[str, Any]]:
    """Microseconds of whole batches. Empty without a GPU."""
    if _core.probe_cuda().reason:
        return []
    bandwidth = peer.bandwidth() if peer else math.nan
    rows = []
    for name in RECIPES:
        recipe = Recipe.named(name).replace(dtype="float16")
        for height, width in SIZES:
            for batch in BATCHES:
                print(f"GPU: {name} {width}x{height} x {batch} ...", file=sys.stderr, flush=True)
                images = [photo(height, width)] * batch
                times = measure_gpu(recipe, images, rounds, peer)
                floor = batch * needed_bytes(recipe, height, width) / bandwidth * 1e6
                what = {"recipe": name, "size": f"{width}x{height}", "batch": batch}
                rows.append(what | times | {"floor": floor, "bandwidth": bandwidth})
    return rows


def needed_bytes(recipe: Recipe, height: int, width: int) -> int:
    """What the crop is made of, and the output."""
    assert recipe.crop is not None
    source_rows, source_columns = _core.source_window(recipe.native, height, width)
    return 3 * (source_rows * source_columns + math.prod(recipe.crop) * recipe.dtype.itemsize)


def measure_gpu(recipe: Recipe, images: list[Array], rounds: int, peer: Any) -> dict[str, float]:
    """Medians of trtinfer and of the peer, which take turns."""
    theirs = peer.Batch(recipe, images) if peer else None
    if theirs is not None:
        ours = _core.preprocess_gpu(recipe.native, images).astype(np.float32)
        assert np.abs(ours - theirs.answers().astype(np.float32)).mean() < CLOSE
    times: dict[str, list[float]] = {}
    for turn in range(TURNS + 1):
        taken = _core.time_preprocess_gpu(recipe.native, images, rounds)
        found = {key: [getattr(t, key) for t in taken] for key in OURS}
        if theirs is not None:
            found["peer"] = time_calls(theirs.without_copies, rounds)
            found["peer_with_transfer"] = time_calls(theirs.with_copies, rounds)
        if turn > 0:  # the first is the warm-up
            for key, values in found.items():
                times.setdefault(key, []).extend(values)
    absent = dict.fromkeys(("peer", "peer_with_transfer"), math.nan)
    return absent | {key: statistics.median(values) for key, values in times.items()}


def time_calls(call: Callable[[], object], count: int) -> list[float]:
    """Microseconds of each."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e6)
    return times


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


def print_gpu(rows: list[dict[str, Any]], peer: str) -> None:
    """The table of bench_gpu."""
    print(f"\nGPU, to float16, us a batch; {rows[0]['bandwidth'] / 1e12:.2f} TB/s within the GPU\n")
    print(
        "| recipe | source | batch | kernel | launch to end | with copies "
        f"| share of the floor | {peer} | {peer}, with copies |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['recipe']} | {row['size']} | {row['batch']} | {row['kernel']:.1f} "
            f"| {row['launch']:.1f} | {row['with_transfer']:.1f} "
            f"| {row['floor'] / row['kernel']:.1%} | {row['peer']:.1f} "
            f"| {row['peer_with_transfer']:.1f} |"
        )
    print()


def verdicts(rows: list[dict[str, Any]]) -> dict[str, Verdict]:
    """What is asked of the GPU, with the recipe whose figures the aims are."""
    mine = [row for row in rows if row["recipe"] == "torchvision"]
    single = {row["size"]: row["launch"] for row in mine if row["batch"] == 1}
    (many,) = (row["launch"] for row in mine if (row["size"], row["batch"]) == LARGEST)
    judged = {
        f"{size}, one image, launch to end in us": Verdict(figure, 25, at_most=True)
        for size, figure in single.items()
    }
    each = Verdict(many / LARGEST[1], 5, at_most=True)
    return judged | {f"{LARGEST[0]} in a batch of {LARGEST[1]}, us an image": each}


def main() -> None:
    """Runs both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path, help="write the results there")
    arguments = parser.parse_args()
    machine = describe_machine("trtinfer", "pillow", "numpy", "torch", "torchvision")
    print(f"{machine}; {arguments.rounds} rounds, medians\n")
    peer = open_torch()
    cpu, gpu = bench_cpu(arguments.rounds), bench_gpu(arguments.rounds, peer)
    print_cpu(cpu)
    judged = verdicts(gpu) if gpu else {}
    if gpu:
        print_gpu(gpu, peer.NAME if peer else "PyTorch")
        show_verdicts(judged)
    if arguments.json:
        found = to_json(judged)
        write_json(arguments.json, machine=machine, cpu=cpu, gpu=gpu, verdicts=found)


if __name__ == "__main__":
    main()
