"""A lock between processes (and threads) that ends with its holder, however that dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# A forked child would keep its parent's locks after the parent's death.
_held: set[int] = set()


@contextlib.contextmanager
def lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds a lock that is a file; the file is there only while somebody holds or awaits it.

    Args:
        path: Of the file, in a folder that exists.
        on_wait: Called before waiting for another holder.

    Raises:
        OSError: The file cannot be made, or the file system has no locks.
    """
    descriptor = _acquire(path, on_wait)
    try:
        yield
    finally:
        _release(descriptor, path)


def _acquire(path: Path, on_wait: Callable[[], None]) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        _held.add(descriptor)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            _close(descriptor)
            raise
        _close(descriptor)  # its last holder removed this file: another may be there now


def _release(descriptor: int, path: Path) -> None:
    if _is_at(descriptor, path):
        with contextlib.suppress(OSError):
            os.unlink(path)
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # for copies of the descriptor in forked children too
    _close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _close_all() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_all)
