"""The user's cache folder: what is made once and kept, and may be deleted at any time."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from trtinfer.errors import TrtInferError

#: How the name of a file ends that is being written, or whose writer died.
UNFINISHED = ".unfinished"


def folder() -> Path:
    """Where trtinfer keeps files, which may not exist yet.

    Returns:
        `$TRTINFER_CACHE`, else `$XDG_CACHE_HOME/trtinfer`, else `~/.cache/trtinfer`.

    Raises:
        TrtInferError: This user has no home folder.
    """
    if own := os.environ.get("TRTINFER_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # the XDG specification says to ignore relative ones
        return Path(shared) / "trtinfer"
    try:
        return Path.home() / ".cache" / "trtinfer"
    except RuntimeError as error:
        raise TrtInferError(f"no cache folder: {error}; set TRTINFER_CACHE to one") from error


def size() -> int:
    """Bytes that the cache's files take."""
    return sum(path.lstat().st_size for path in folder().rglob("*") if path.is_file())


def store(name: str, data: bytes) -> Path:
    """Writes a file whole or not at all, whatever other processes write at the same time.

    Args:
        name: File name within the folder.
        data: Its contents.

    Returns:
        The file's path.

    Raises:
        TrtInferError: The folder cannot be written.
    """
    path = folder() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, [data], 0o644)
    except OSError as error:
        raise TrtInferError(
            f"cannot write {path}: {error.strerror}; set TRTINFER_CACHE to a writable folder"
        ) from error
    return path


def write(path: Path, parts: Iterable[bytes], mode: int) -> None:
    """Writes a file whole or not at all, in place of one that is there.

    Args:
        path: Of the file, in a folder that exists.
        parts: Its contents, one after the other.
        mode: Its permissions.

    Raises:
        OSError: It cannot be written.
    """
    handle, unfinished = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(unfinished, mode)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise
