"""A model's configuration as Triton writes it: config.pbtxt, the text form of a ModelConfig."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from trtinfer.errors import ModelError
from trtinfer.server.grpc.messages import message

logger = logging.getLogger("trtinfer")

_STRINGS_AND_COMMENTS = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*')
_FIELD = re.compile(r"([A-Za-z_]\w*)\s*(?=[:{\[])")
_MAP_ENTRY = {"key", "value"}


def read(path: Path) -> Any:
    """Read a configuration; fields that mean nothing here are named in a warning.

    Args:
        path: Of config.pbtxt; where there is none, everything has its default.

    Returns:
        A ModelConfig message.

    Raises:
        ModelError: The file cannot be read.
    """
    config = message("ModelConfig")()
    try:
        text = path.read_text(encoding="utf-8")
        text_format.Parse(text, config, allow_unknown_field=True)
    except FileNotFoundError:
        return config
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ModelError(f"the configuration {path} cannot be read: {error}") from error
    unknown = sorted(_fields_of(text) - _MAP_ENTRY - set(_known(config.DESCRIPTOR)))
    if unknown:
        logger.warning("%s: these fields have no effect here: %s", path, ", ".join(unknown))
    return config


def _fields_of(text: str) -> set[str]:
    return set(_FIELD.findall(_STRINGS_AND_COMMENTS.sub('""', text)))


def _known(descriptor: Any) -> Iterator[str]:
    for field in descriptor.fields:
        yield field.name
        if field.message_type is not None:
            yield from _known(field.message_type)
