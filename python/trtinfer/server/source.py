"""A model to serve, as named on the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trtinfer import labels, model_metadata
from trtinfer.classifier import Classifier
from trtinfer.server.model import Model
from trtinfer.session import Session


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """A model in a file.

    Attributes:
        name: What clients call it.
        path: Of the ONNX file; None for the embedded classifier.
        recipe: Makes the model's input of an image; None: of none, unless the file says so.
        labels: One for each class.
        timeout: Seconds for requests that set none.
        queue_limit: Samples that may be under way at a time; None: the session's capacity.
        session_options: As for `trtinfer.Session`.
    """

    name: str
    path: str | os.PathLike[str] | None = None
    recipe: str | None = None
    labels: labels.LabelSource | None = None
    timeout: float | None = None
    queue_limit: int | None = None
    session_options: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> list[Model]:
        """Open the model as version 1.

        Raises:
            TrtInferError: It cannot be opened.
        """
        return [open_model(self, "1")]


def open_model(source: FileSource, version: str) -> Model:
    """Open a file as a version of a model: as a classifier where it takes images.

    Raises:
        TrtInferError: It cannot be opened.
    """
    session: Session | Classifier
    if source.path is None or source.recipe is not None or _says_recipe(source.path):
        session = Classifier(source.path, source.labels, source.recipe, **source.session_options)
    else:
        session = Session(source.path, **source.session_options)
    try:
        return Model(
            source.name,
            session,
            version=version,
            labels=labels.read(source.labels) if source.labels is not None else (),
            queue_limit=source.queue_limit,
            timeout=source.timeout,
        )
    except BaseException:
        session.close(drain=False)
        raise


def _says_recipe(path: str | os.PathLike[str]) -> bool:
    return model_metadata.read(path).get("task") == "classify"
