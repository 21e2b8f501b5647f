"""The cache of plans: what is trusted, who builds, what is kept, and disks that do not take it."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trtinfer import cache, plan_file
from trtinfer.plan_cache import PlanCache

KEY = {"kind": "plan", "bucket": 8, "gpu": "8.9"}
PLAN = bytes(range(256)) * 8
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "plans"


@pytest.fixture
def plans(folder: Path) -> PlanCache:
    return PlanCache(folder)


@pytest.fixture
def stored(plans: PlanCache) -> Path:
    """The file of KEY, which holds PLAN."""
    assert plans.put(KEY, PLAN)
    return plans.entries()[0].path


def key(number: int) -> dict[str, object]:
    return {**KEY, "bucket": number}


# --- What is stored and found -----------------------------------------------------------------


def test_what_was_put_is_found_by_every_later_object(plans: PlanCache, folder: Path) -> None:
    assert plans.get(KEY) is None
    assert plans.put(KEY, PLAN)
    assert plans.get(dict(reversed(KEY.items()))) == PLAN
    assert PlanCache(folder).get(KEY) == PLAN


def test_each_difference_in_a_key_is_another_entry(plans: PlanCache) -> None:
    plans.put(KEY, PLAN)
    for name in KEY:
        assert plans.get({**KEY, name: "other"}) is None
    assert plans.get({**KEY, "more": None}) is None


def test_put_replaces(plans: PlanCache, stored: Path) -> None:
    assert plans.put(KEY, b"more kernels")
    assert plans.get(KEY) == b"more kernels"
    assert [entry.path for entry in plans.entries()] == [stored]


def test_empty_data_are_data(plans: PlanCache) -> None:
    plans.put(KEY, b"")
    assert plans.get(KEY) == b""


def test_only_the_owner_may_read(stored: Path) -> None:
    assert stored.stat().st_mode & 0o777 == 0o600
    assert stored.parent.stat().st_mode & 0o777 == 0o700


def test_folder_is_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path / "own"))
    assert PlanCache().folder == tmp_path / "own" / "plans"


def test_user_without_a_home_has_no_cache(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("TRTINFER_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # no entry in the user database
    plans = PlanCache()
    assert "set TRTINFER_CACHE" in caplog.text
    assert plans.get_or_build(KEY, lambda: PLAN) == PLAN
    assert plans.get(KEY) is None
    assert (plans.folder, plans.entries(), plans.clear()) == (None, [], 0)


def test_entries_say_what_they_are(plans: PlanCache, stored: Path) -> None:
    os.utime(stored, (1000, 1000))
    plans.put(key(1), PLAN)
    (stored.parent / "foreign.plan").write_bytes(b"no entry")
    first, second = plans.entries()
    assert (first.key["bucket"], second.key["bucket"]) == (1, 8)
    assert second.path == stored
    assert second.used == 1000
    assert second.bytes == stored.stat().st_size > len(PLAN)


def test_clear_removes_everything(plans: PlanCache, stored: Path) -> None:
    plans.put(key(1), PLAN)
    expected = sum(entry.bytes for entry in plans.entries())
    (stored.parent / "dead.lock").touch()
    assert plans.clear() == expected
    assert list(stored.parent.iterdir()) == []
    assert plans.get(KEY) is None


def test_removed_entry_is_built_again(plans: PlanCache, stored: Path) -> None:
    plans.remove(KEY)
    plans.remove(KEY)
    assert not stored.exists()
    assert plans.get_or_build(KEY, lambda: b"new") == b"new"


# --- What is not trusted ----------------------------------------------------------------------


def rebuilt(plans: PlanCache) -> bool:
    """Whether KEY has to be built, and is found afterwards."""
    built = []
    data = plans.get_or_build(KEY, lambda: built.append(True) or PLAN)
    return bool(built) and data == PLAN and PlanCache(plans.folder).get(KEY) == PLAN


@pytest.mark.parametrize("place", [0, 8, 12, 16, 24, 60, -1], ids=lambda place: f"at{place}")
def test_one_wrong_bit_anywhere_is_noticed(
    plans: PlanCache, stored: Path, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = bytearray(stored.read_bytes())
    damaged[place] ^= 1
    stored.write_bytes(damaged)
    assert plans.get(KEY) is None
    assert not stored.exists()
    assert f"{stored} is removed" in caplog.text
    assert rebuilt(plans)


@pytest.mark.parametrize("size", [0, 1, 55, 56, 60, 200, -1])
def test_truncated_file_is_built_again(plans: PlanCache, stored: Path, size: int) -> None:
    whole = stored.read_bytes()
    stored.write_bytes(whole[:size])
    assert rebuilt(plans)


def test_longer_file_is_built_again(plans: PlanCache, stored: Path) -> None:
    stored.write_bytes(stored.read_bytes() + b"\0")
    assert rebuilt(plans)


def test_absurd_size_is_not_believed(plans: PlanCache, stored: Path) -> None:
    damaged = bytearray(stored.read_bytes())
    damaged[16:24] = (1 << 60).to_bytes(8, "little")
    stored.write_bytes(damaged)
    assert rebuilt(plans)


def test_foreign_file_is_built_again(plans: PlanCache, stored: Path) -> None:
    stored.write_bytes(b"ptrt" + bytes(5000))  # a bare plan
    assert rebuilt(plans)


def test_entry_of_another_key_is_built_again(plans: PlanCache, stored: Path) -> None:
    plans.put(key(1), b"of batch 1")
    other = next(entry.path for entry in plans.entries() if entry.path != stored)
    other.replace(stored)
    assert rebuilt(plans)


def test_another_format_is_built_again(
    plans: PlanCache, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_file, "FORMAT", plan_file.FORMAT + 1)
    assert plans.get(KEY) is None
    assert rebuilt(plans)


def test_link_is_not_followed(plans: PlanCache, stored: Path, tmp_path: Path) -> None:
    stored.rename(tmp_path / "elsewhere")
    stored.symlink_to(tmp_path / "elsewhere")
    assert rebuilt(plans)
    assert not stored.is_symlink()


def test_what_is_no_file_is_not_waited_for(plans: PlanCache, stored: Path) -> None:
    stored.unlink()
    os.mkfifo(stored, 0o600)
    assert rebuilt(plans)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_that_others_can_write_is_refused(
    plans: PlanCache, stored: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    stored.chmod(mode)
    assert plans.get(KEY) is None
    assert f"{stored} is not read: others may write to it" in caplog.text
    assert "chmod go-w" in caplog.text
    assert rebuilt(plans)


def test_folder_that_others_can_write_is_refused(
    plans: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = stored.parent
    folder.chmod(0o777)
    before = stored.read_bytes()
    for number in (8, 8, 1):
        assert plans.get_or_build(key(number), lambda: b"built") == b"built"
    assert stored.read_bytes() == before
    assert list(folder.iterdir()) == [stored]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2, warnings  # once for reading, once for writing
    assert all(str(folder) in text and "chmod go-w" in text for text in warnings)


@AS_ROOT
def test_file_of_another_user_is_refused(plans: PlanCache, stored: Path) -> None:
    os.chown(stored, 12345, -1)
    assert plans.get(KEY) is None
    assert rebuilt(plans)


# --- Who builds -------------------------------------------------------------------------------

BUILDER = """
    import os, sys, time
    from trtinfer.plan_cache import PlanCache

    def build():
        with open(sys.argv[2], "a") as log:
            log.write(f"{os.getpid()}\\n")
        BODY
        return b"plan of " + str(os.getpid()).encode()

    plans = PlanCache(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    print(plans.get_or_build({"kind": "plan", "bucket": 8, "gpu": "8.9"}, build).decode())
"""


class Builder:
    """A process that gets or builds the plan of KEY when it is told to."""

    def __init__(self, folder: Path, body: str) -> None:
        self.log = folder.with_name("log")
        code = textwrap.dedent(BUILDER).replace("BODY", body)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(self.log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def start(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        return self.process.communicate(timeout=30)[0].strip()

    def wait_until_building(self) -> None:
        deadline = time.monotonic() + 20
        while str(self.process.pid) not in (self.log.read_text() if self.log.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture
def builders(folder: Path) -> Iterator[list[Builder]]:
    started: list[Builder] = []
    yield started
    for builder in started:
        builder.process.kill()
        builder.process.communicate()


def test_of_processes_that_build_at_once_one_does(folder: Path, builders: list[Builder]) -> None:
    builders += [Builder(folder, "time.sleep(0.3)") for _ in range(4)]
    for builder in builders:
        builder.start()
    answers = {builder.answer() for builder in builders}
    (pid,) = builders[0].log.read_text().split()
    assert answers == {f"plan of {pid}"}
    assert [path.suffix for path in folder.iterdir()] == [".plan"]


def test_dead_builder_is_no_obstacle(folder: Path, builders: list[Builder]) -> None:
    first = Builder(folder, "time.sleep(60)")
    second = Builder(folder, "pass")
    builders += [first, second]
    first.start()
    first.wait_until_building()
    second.start()
    with pytest.raises(subprocess.TimeoutExpired):
        second.process.wait(0.3)
    first.process.send_signal(signal.SIGKILL)
    assert second.answer() == f"plan of {second.process.pid}"
    assert [path.suffix for path in folder.iterdir()] == [".plan"]


def test_forked_child_of_a_dead_builder_is_no_obstacle(
    folder: Path, builders: list[Builder]
) -> None:
    body = "os.fork() or (os.close(1), time.sleep(3), os._exit(0)); time.sleep(60)"
    first = Builder(folder, body)
    second = Builder(folder, "pass")
    builders += [first, second]
    first.start()
    first.wait_until_building()
    time.sleep(0.2)  # for the fork
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    start = time.monotonic()
    second.start()
    assert second.answer() == f"plan of {second.process.pid}"
    assert time.monotonic() - start < 2


def test_readers_never_see_half_an_entry(folder: Path) -> None:
    versions = [bytes([number]) * (1 << 20) for number in range(2)]
    plans = PlanCache(folder)
    plans.put(KEY, versions[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(60):
            plans.put(KEY, versions[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        seen.append(PlanCache(folder).get(KEY))
    writer.join()
    assert set(seen) <= set(versions)


def test_lock_file_that_was_left_is_no_obstacle(plans: PlanCache, stored: Path) -> None:
    stored.rename(stored.with_suffix(".lock"))
    assert rebuilt(plans)
    assert [path.suffix for path in stored.parent.iterdir()] == [".plan"]


def test_failed_build_is_passed_on_and_the_next_one_tries(plans: PlanCache) -> None:
    def fail() -> bytes:
        raise KeyError("no such operator")

    with pytest.raises(KeyError, match="no such operator"):
        plans.get_or_build(KEY, fail)
    assert rebuilt(plans)


def test_of_threads_that_build_at_once_one_does(plans: PlanCache) -> None:
    built: list[int] = []
    answers: list[bytes] = []

    def build() -> bytes:
        built.append(1)
        time.sleep(0.1)
        return PLAN

    threads = [
        threading.Thread(target=lambda: answers.append(plans.get_or_build(KEY, build)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]
    assert answers == [PLAN] * 8


def test_other_keys_are_not_waited_for(plans: PlanCache) -> None:
    def build() -> bytes:
        return plans.get_or_build(key(1), lambda: b"inner")

    assert plans.get_or_build(KEY, build) == b"inner"


def test_waiting_is_said(folder: Path, builders: list[Builder], caplog) -> None:
    caplog.set_level(logging.INFO, "trtinfer")
    builder = Builder(folder, "time.sleep(0.4)")
    builders.append(builder)
    builder.start()
    builder.wait_until_building()
    assert PlanCache(folder).get_or_build(KEY, lambda: PLAN) != PLAN
    assert "waiting" in caplog.text


def test_one_at_a_time_is_alone_on_a_gpu(folder: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "trtinfer")
    order = []

    def wait() -> None:
        with PlanCache(folder).alone_on("0000:1b:00.0"):
            order.append("next")

    waiting = threading.Thread(target=wait)
    with PlanCache(folder).alone_on("0000:1b:00.0"), PlanCache(folder).alone_on("0000:1c:00.0"):
        waiting.start()
        while "waiting" not in caplog.text:
            time.sleep(0.001)
        order.append("first")
    waiting.join()
    assert order == ["first", "next"]
    assert list(folder.iterdir()) == []


# --- What is kept -----------------------------------------------------------------------------


def used_at(plans: PlanCache, number: int, seconds: int) -> None:
    """Makes an entry of one bucket, last used at some time."""
    plans.put(key(number), bytes(1000))
    for entry in plans.entries():
        if entry.key["bucket"] == number:
            os.utime(entry.path, (seconds, seconds))


def buckets(plans: PlanCache) -> list[int]:
    return sorted(entry.key["bucket"] for entry in plans.entries())


def test_least_recently_used_is_removed_first(plans: PlanCache, folder: Path) -> None:
    for number, seconds in ((1, 300), (2, 100), (4, 200)):
        used_at(plans, number, seconds)
    size = plans.entries()[0].bytes
    PlanCache(folder, limit_bytes=3 * size).put(key(8), bytes(1000))
    assert buckets(plans) == [1, 4, 8]
    PlanCache(folder, limit_bytes=2 * size).put(key(8), bytes(1000))
    assert buckets(plans) == [1, 8]


def test_reading_is_use(plans: PlanCache, folder: Path) -> None:
    for number, seconds in ((1, 100), (2, 200)):
        used_at(plans, number, seconds)
    size = plans.entries()[0].bytes
    assert PlanCache(folder).get(key(1)) is not None
    PlanCache(folder, limit_bytes=2 * size).put(key(8), bytes(1000))
    assert buckets(plans) == [1, 8]


def test_what_is_in_use_is_kept_whatever_the_limit(
    plans: PlanCache, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, seconds in ((1, 100), (2, 200)):
        used_at(plans, number, seconds)
    small = PlanCache(folder, limit_bytes=1)
    small.get(key(1))
    for number in (8, 16):
        assert small.put(key(number), bytes(1000))
    assert buckets(plans) == [1, 8, 16]
    assert len(caplog.records) == 1
    assert "more than 1 bytes" in caplog.text


def test_limit_cannot_be_negative(folder: Path) -> None:
    with pytest.raises(ValueError, match="limit_bytes is -1"):
        PlanCache(folder, limit_bytes=-1)


def test_what_a_dead_writer_left_is_removed(plans: PlanCache, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    old, young = (folder / f".{name}{cache.UNFINISHED}" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    plans.put(KEY, PLAN)
    assert not old.exists()
    assert young.exists()


# --- Disks that do not take it ----------------------------------------------------------------


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can get larger than 1000 bytes; not even the log of the tests."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_is_a_warning(
    plans: PlanCache, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with full_disk():
        assert plans.get_or_build(KEY, lambda: PLAN) == PLAN
    assert "is not written" in caplog.text
    assert "TRTINFER_CACHE" in caplog.text
    assert list(folder.iterdir()) == []
    assert plans.get(KEY) is None


def test_full_disk_leaves_the_old_entry(plans: PlanCache) -> None:
    plans.put(KEY, PLAN)
    with full_disk():
        assert not plans.put(KEY, PLAN[::-1])
    assert plans.get(KEY) == PLAN


def test_folder_that_cannot_be_made_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    plans = PlanCache(tmp_path / "file" / "plans")
    assert plans.get_or_build(KEY, lambda: PLAN) == PLAN
    assert "is not written" in caplog.text
    assert plans.entries() == []


def test_read_only_folder_is_read(
    plans: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored.parent.chmod(0o500)
    if os.access(stored.parent, os.W_OK):
        pytest.skip("permissions do not stop root")
    assert PlanCache(plans.folder).get(KEY) == PLAN
    assert caplog.text == ""
    assert plans.get_or_build(key(1), lambda: PLAN) == PLAN
    assert "Permission denied" in caplog.text
