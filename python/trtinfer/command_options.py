"""Options that several commands of the command line share."""

from __future__ import annotations

import argparse

from trtinfer.build_options import Dimensions
from trtinfer.precision import PRECISIONS

#: Sizes of varying dimensions, by input and axis.
Sizes = dict[str, dict[int, tuple[int, int, int]]]

BACKENDS = ("auto", "tensorrt", "onnxruntime")


def add_model(parser: argparse.ArgumentParser) -> None:
    """What has to be known of a model's plans."""
    parser.add_argument("model", nargs="?", help="ONNX model (default: EfficientNet-Lite0)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="(default: fp32)")
    parser.add_argument("--tf32", action="store_true", help="round fp32 products, which is faster")
    parser.add_argument(
        "--dimension",
        action="append",
        default=[],
        metavar="INPUT:AXIS=MIN,OPT,MAX",
        help="sizes of what varies beside the batch",
    )
    parser.add_argument("--tensorrt", metavar="PATH", help="library or its folder")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Which GPUs are used."""
    parser.add_argument("--device", default="0", metavar="0,1", help="GPUs (default: 0)")


def add_format(parser: argparse.ArgumentParser, default: str = "json") -> None:
    """How answers are written."""
    parser.add_argument(
        "--format", choices=["json", "table"], default=default, help="(default: %(default)s)"
    )


def read_dimensions(texts: list[str], known: Dimensions | None = None) -> Sizes:
    """Reads --dimension options, which go before what is known.

    Raises:
        ValueError: One is not understood.
    """
    sizes = {name: dict(axes) for name, axes in (known or {}).items()}
    for text in texts:
        name, axis, given = _dimension(text)
        sizes.setdefault(name, {})[axis] = given
    return sizes


def whole_numbers(text: str) -> list[int]:
    """Reads whole numbers from 0 with commas between.

    Raises:
        ValueError: One is none.
    """
    return [_whole(number) for number in text.split(",")]


def _dimension(text: str) -> tuple[str, int, tuple[int, int, int]]:
    place, _, sizes = text.rpartition("=")
    name, _, axis = place.rpartition(":")
    numbers = whole_numbers(sizes)
    if not name or len(numbers) not in (1, 3):
        raise ValueError(f"--dimension {text} is not understood; give INPUT:AXIS=MIN,OPT,MAX")
    return name, _whole(axis), (numbers[0], numbers[len(numbers) // 2], numbers[-1])


def _whole(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"{text!r} is no whole number")
    return int(text)
