"""Class labels: from a list, a text or JSON file, or a model's own metadata."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from trtinfer.errors import InputError

LabelSource: TypeAlias = "str | os.PathLike[str] | Sequence[str] | Mapping[int, str]"


def read(source: LabelSource) -> tuple[str, ...]:
    """Reads labels in the order of the model's outputs.

    Args:
        source: The labels themselves, as a sequence or as a mapping from class index; or the path
            of a file: `.json` holds a list, or an object from class index (to a label, or to a list
            that ends with it); any other file has one label a line.

    Returns:
        The labels by class index.

    Raises:
        InputError: The file cannot be read, or these are no labels.
    """
    if isinstance(source, (str, os.PathLike)):
        return _from_file(Path(source))
    return _in_order(source, "labels")


def from_metadata(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The labels in a model's metadata: `names`, a dict literal as ultralytics writes it.

    Returns:
        The labels by class index; None when there are none.

    Raises:
        InputError: `names` is there, but cannot be read.
    """
    names = metadata.get("names")
    if names is None:
        return None
    try:
        value = ast.literal_eval(names)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(
            f"the model's metadata has names = {names[:80]!r}, which is no dict; pass labels=..."
        ) from error
    return _in_order(value, "the model's metadata 'names'")


def numbered(classes: int) -> tuple[str, ...]:
    """Stand-ins for a model whose labels nobody knows: "class 0", "class 1" and so on."""
    return tuple(f"class {index}" for index in range(classes))


def check_count(labels: Sequence[str], classes: int) -> None:
    """Refuses labels that are not one for each class of the model.

    Raises:
        InputError: The counts differ.
    """
    if len(labels) != classes:
        raise InputError(
            f"got {len(labels)} labels, but the model has {classes} classes; pass one label for "
            "each class, in the order of its outputs"
        )


def _from_file(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read labels from {str(path)!r}: {error}; check it") from error
    if path.suffix.lower() != ".json":
        return tuple(line.strip() for line in text.rstrip().splitlines())
    try:
        return _in_order(json.loads(text), repr(str(path)))
    except json.JSONDecodeError as error:
        raise InputError(f"labels file {str(path)!r} is no JSON: {error}; correct it") from error


def _in_order(source: Any, name: str) -> tuple[str, ...]:
    if isinstance(source, Mapping):
        try:
            by_index = {int(index): label for index, label in source.items()}
            source = [by_index[index] for index in range(len(source))]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{name}: the {len(source)} keys are not the class numbers 0 to "
                f"{len(source) - 1}; pass each class once"
            ) from error
    if not isinstance(source, Sequence) or isinstance(source, (str, bytes)):
        raise InputError(f"{name}: got {type(source).__name__}; pass a list of strings")
    return tuple(_label(entry, name) for entry in source)


def _label(entry: Any, name: str) -> str:
    if isinstance(entry, (list, tuple)) and entry:
        entry = entry[-1]  # Keras writes [WordNet id, label]
    if not isinstance(entry, str):
        raise InputError(f"{name}: {entry!r} is a {type(entry).__name__}; a label is a string")
    return entry
