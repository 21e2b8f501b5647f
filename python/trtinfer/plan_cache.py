"""What TensorRT made, on disk: plans, and TensorRT-RTX's compiled kernels beside them.

An entry is found by its key, a mapping that names all that the data depends on. Nothing here is
ever a reason to fail: what cannot be read is built again, and what cannot be kept is still used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from trtinfer import cache, plan_file
from trtinfer.errors import TrtInferError
from trtinfer.file_lock import lock

logger = logging.getLogger("trtinfer")

#: What data depends on, in values that JSON has.
Key: TypeAlias = Mapping[str, Any]

_SUFFIX, _LOCK_SUFFIX = ".plan", ".lock"
_ABANDONED_SECONDS = 3600  # since the last write to an unfinished file


@dataclass(frozen=True)
class Entry:
    """One file of the cache.

    Attributes:
        path: Of the file.
        key: What it was stored under.
        bytes: Size of the file.
        used: When it was last written or read, in seconds since 1970.
    """

    path: Path
    key: dict[str, Any]
    bytes: int
    used: float


class PlanCache:
    """A folder of entries, shared with other processes; for any number of threads.

    Files are for their owner only (plans are code): a folder or file that others can write to is
    refused with a warning.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, limit_bytes: int = 16 << 30
    ) -> None:
        """Names the folder, which is made when something is first written.

        Args:
            folder: Where; None for `plans` in trtinfer's cache folder.
            limit_bytes: When the files are larger together, those not used for the longest time are
                removed, but none that this object has written or read.

        Raises:
            ValueError: The limit is negative.
        """
        if limit_bytes < 0:
            raise ValueError(f"limit_bytes is {limit_bytes}; give a number of bytes from 0")
        self._limit_bytes = limit_bytes
        self._kept: set[str] = set()  # names that eviction leaves alone
        self._warned: set[str] = set()
        self._folder: Path | None = None
        try:
            self._folder = cache.folder() / "plans" if folder is None else Path(folder)
        except TrtInferError as error:
            self._warn(f"plans are not kept: {error}")

    @property
    def folder(self) -> Path | None:
        """Where the entries are; None: this user has no place for them."""
        return self._folder

    def get(self, key: Key) -> bytes | None:
        """Reads an entry.

        Returns:
            Its data, exactly as it was stored; None: there is none that can be trusted. One that
            is damaged is removed.
        """
        if self._folder is None:
            return None
        path = self._path(self._folder, key)
        try:
            plan_file.check_safe(os.stat(self._folder))
            data = plan_file.read(path, key_text(key))
        except FileNotFoundError:
            return None
        except plan_file.DamagedFileError as error:
            self._warn(f"{path} is removed: {error}")
            _remove(path)
            return None
        except (plan_file.UnsafeFileError, OSError) as error:
            self._warn(f"{self._named(error, path)} is not read: {error}")
            return None
        self._kept.add(path.name)
        with contextlib.suppress(OSError):  # a cache that may only be read
            os.utime(path)
        return data

    def has(self, key: Key) -> bool:
        """Whether there is an entry; `get` may still refuse it."""
        return self._folder is not None and self._path(self._folder, key).exists()

    def put(self, key: Key, data: bytes) -> bool:
        """Writes an entry, in place of one under the same key.

        Returns:
            Whether it was written; if not, a warning says why.
        """
        if self._folder is None:
            return False
        path = self._path(self._folder, key)
        try:
            self._make_folder(self._folder)
            plan_file.write(path, key_text(key), data)
        except (plan_file.UnsafeFileError, OSError) as error:
            self._warn(
                f"{self._named(error, path)} is not written: {error}; what was built is used, but "
                "will be built again next time (TRTINFER_CACHE names another folder)"
            )
            return False
        self._kept.add(path.name)
        self._evict(self._folder)
        return True

    def get_or_build(self, key: Key, build: Callable[[], bytes]) -> bytes:
        """Reads an entry, or builds and writes it.

        Of several processes and threads that want the same at once, one builds and the others wait
        for it. When it fails or dies, the next one tries.

        Args:
            key: Of the entry.
            build: Gives its data; what it raises is passed on.
        """
        if (data := self.get(key)) is not None:
            return data
        with self._alone(self._name(key), "builds the same plan"):
            if (data := self.get(key)) is None:  # nobody has built it meanwhile
                data = build()
                self.put(key, data)
        return data

    def remove(self, key: Key) -> None:
        """Removes an entry, as one that TensorRT turned out to refuse."""
        if self._folder is not None:
            _remove(self._path(self._folder, key))

    def entries(self) -> list[Entry]:
        """All entries, the last used first; their data is not checked."""
        found = []
        for path, status in self._files():
            with contextlib.suppress(
                plan_file.DamagedFileError, plan_file.UnsafeFileError, OSError, ValueError
            ):
                key = json.loads(plan_file.read_key(path))
                found.append(Entry(path, key, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def clear(self) -> int:
        """Removes all entries, and what dead processes left; returns how many bytes that frees."""
        freed = sum(status.st_size for path, status in self._files() if _remove(path))
        if self._folder is not None:
            for path in self._folder.glob(f"*{_LOCK_SUFFIX}"):
                _remove(path)
            _remove_unfinished(self._folder)
        return freed

    def alone_on(self, gpu: str) -> contextlib.AbstractContextManager[None]:
        """Returns a lock of a GPU, which one process at a time holds of those with this folder.

        Where the folder cannot be written, nobody waits.

        Args:
            gpu: Its PCI address.
        """
        return self._alone(f"gpu-{gpu}", "opens a model on the same GPU")

    def _path(self, folder: Path, key: Key) -> Path:
        return folder / (self._name(key) + _SUFFIX)

    def _name(self, key: Key) -> str:
        return hashlib.sha256(key_text(key)).hexdigest()

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        plan_file.check_safe(os.stat(folder))

    def _named(self, error: Exception, path: Path) -> Path:
        """What a warning is about: the folder when all its entries meet the same."""
        try:
            plan_file.check_safe(os.stat(path.parent))
        except (plan_file.UnsafeFileError, OSError):
            return path.parent
        return path

    @contextlib.contextmanager
    def _alone(self, name: str, what: str) -> Iterator[None]:
        """Holds the lock of that name; without one where none can be made."""
        with contextlib.ExitStack() as stack:
            if self._folder is not None:
                path = self._folder / (name + _LOCK_SUFFIX)
                with contextlib.suppress(plan_file.UnsafeFileError, OSError):  # put() will say it
                    self._make_folder(self._folder)
                    stack.enter_context(lock(path, lambda: _say_waiting(what)))
            yield

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self._folder.glob(f"*{_SUFFIX}") if self._folder else ():
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                found.append((path, path.lstat()))
        return found

    def _evict(self, folder: Path) -> None:
        files = sorted(self._files(), key=lambda file: file[1].st_mtime_ns)
        excess = sum(status.st_size for _, status in files) - self._limit_bytes
        for path, status in files:
            if excess > 0 and path.name not in self._kept and _remove(path):
                excess -= status.st_size
        if excess > 0:
            self._warn(
                f"the plans in {folder} that are in use take more than {self._limit_bytes} bytes; "
                "they are kept"
            )
        _remove_unfinished(folder)

    def _warn(self, message: str) -> None:
        """Says it once, not for every bucket."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning("%s", message)


def key_text(key: Key) -> bytes:
    """Returns a key as it is stored and hashed, the same for equal mappings."""
    whole = {**key, "format": plan_file.FORMAT}
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _remove_unfinished(folder: Path) -> None:
    for path in folder.glob(f".*{cache.UNFINISHED}"):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime <= time.time() - _ABANDONED_SECONDS:
                path.unlink()


def _say_waiting(what: str) -> None:
    logger.info("another process %s; waiting for it", what)
