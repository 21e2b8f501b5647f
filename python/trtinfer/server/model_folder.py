"""Models in folders, laid out as Triton's model repository.

folder/name/config.pbtxt        optional
folder/name/1/model.onnx        a version is a folder with a number
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtinfer.errors import ModelError, TrtInferError
from trtinfer.server import model_config
from trtinfer.server.model import Model
from trtinfer.server.source import FileSource, open_model

_CONFIG = "config.pbtxt"
_FILES = ("model.onnx", "model.plan")
_RECIPE = "recipe"  # the parameter that names one


@dataclass(frozen=True)
class FolderSource:
    """A model in a folder of a repository.

    Attributes:
        folder: The model's own; its name is the model's.
        session_options: As for `trtinfer.Session`; the model's configuration comes first.
    """

    folder: Path
    session_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.folder.name

    def open(self) -> list[Model]:
        """Open the versions that the configuration chooses: unless it says more, the newest.

        Raises:
            TrtInferError: The configuration or a version cannot be opened.
        """
        config = model_config.read(self.folder / _CONFIG)
        if config.name not in ("", self.name):
            raise ModelError(f"{self.folder} has the configuration of a model {config.name!r}")
        source = _configured(self, config)
        models: list[Model] = []
        try:
            for version in _chosen(self._versions(), config):
                path = self._file(version, config.default_model_filename)
                models.append(open_model(dataclasses.replace(source, path=path), version))
                _check_tensors(config, models[-1])
        except BaseException as error:
            for model in models:
                model.close()
            if isinstance(error, ValueError) and not isinstance(error, TrtInferError):
                raise ModelError(f"{self.folder / _CONFIG}: {error}") from error
            raise
        return models

    def _versions(self) -> list[str]:
        """All versions, the newest last."""
        names = [entry.name for entry in self.folder.iterdir() if entry.is_dir()]
        numbers = sorted(int(name) for name in names if name.isdecimal() and name[0] != "0")
        if not numbers:
            raise ModelError(f"{self.folder} has no version: put the model into {self.folder}/1/")
        return [str(number) for number in numbers]

    def _file(self, version: str, name: str) -> Path:
        folder = self.folder / version
        if name:
            return self.named_file("default_model_filename", folder, name)
        for candidate in _FILES:
            path = (folder / candidate).resolve()
            if self._has(path):
                return path
        raise ModelError(f"{folder} has no {' or '.join(_FILES)} within the repository")

    def named_file(self, option: str, folder: Path, name: str) -> Path:
        """Return the file that an option of the configuration names, from a folder on.

        Raises:
            ModelError: It is not there, or not within the repository.
        """
        reason = "it is no file, or out of the repository"
        try:
            path = Path(os.path.realpath(folder / name, strict=True))
            if self._has(path):
                return path
        except OSError as error:
            reason = str(error.strerror)
        except ValueError as error:  # a null byte
            reason = str(error)
        raise ModelError(
            f"{option} is {name[:80]!r}, which {folder} does not have within the repository: "
            f"{reason}"
        )

    def _has(self, path: Path) -> bool:
        return path.is_file() and path.is_relative_to(self.folder.parent.resolve())


@dataclass(frozen=True)
class Folder:
    """A repository of models: one folder for each."""

    path: Path
    session_options: Mapping[str, Any] = field(default_factory=dict)

    def sources(self) -> Iterator[FolderSource]:
        """Go through the models that are there now.

        Raises:
            ModelError: There are none.
        """
        names = sorted(entry.name for entry in self.path.iterdir() if entry.is_dir())
        found = [source for name in names if (source := self.find(name)) is not None]
        if not found:
            raise ModelError(f"{self.path} has no models: put them into {self.path}/NAME/1/")
        yield from found

    def find(self, name: str) -> FolderSource | None:
        """Return the model of a name, which may have come since; None: there is none."""
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            return None
        folder = self.path / name
        # Path.is_dir would raise where the name is longer than names of files may be.
        return FolderSource(folder, self.session_options) if os.path.isdir(folder) else None


def _configured(source: FolderSource, config: Any) -> FileSource:
    options = dict(source.session_options)
    if config.max_batch_size > 0:
        options["max_batch_size"] = config.max_batch_size
    batching = config.dynamic_batching
    if batching.max_queue_delay_microseconds:
        options["max_delay"] = batching.max_queue_delay_microseconds / 1e6
    if config.instance_group:
        options["max_inflight"] = sum(max(group.count, 1) for group in config.instance_group)
    policy = batching.default_queue_policy
    labels = next((out.label_filename for out in config.output if out.label_filename), None)
    return FileSource(
        name=source.name,
        recipe=config.parameters[_RECIPE].string_value or None,
        labels=source.named_file("label_filename", source.folder, labels) if labels else None,
        timeout=policy.default_timeout_microseconds / 1e6 or None,
        queue_limit=policy.max_queue_size or None,
        session_options=options,
    )


def _chosen(versions: list[str], config: Any) -> list[str]:
    policy = config.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return versions
    if choice == "specific":
        wanted = {str(version) for version in policy.specific.versions}
        if missing := wanted - set(versions):
            raise ModelError(f"the version {', '.join(sorted(missing))} is not there")
        return [version for version in versions if version in wanted]
    return versions[-max(policy.latest.num_versions, 1) :]


def _check_tensors(config: Any, model: Model) -> None:
    session = model.session
    for kind, configured, tensors in (
        ("input", config.input, session.inputs),
        ("output", config.output, session.outputs),
    ):
        names = {info.name for info in tensors}
        for entry in configured:
            if entry.name not in names:
                raise ModelError(
                    f"the configuration of {model.name!r} has the {kind} {entry.name!r}, the "
                    f"model has {sorted(names)}"
                )
