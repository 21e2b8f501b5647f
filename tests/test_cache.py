"""The cache folder: where it is, and files that are whole or not there."""

from __future__ import annotations

import pytest

from trtinfer import cache


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TRTINFER_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == tmp_path / ".cache" / "trtinfer"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.folder() == tmp_path / ".cache" / "trtinfer"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "trtinfer"
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path / "own"))
    assert cache.folder() == tmp_path / "own"


def test_size_counts_whole_files(monkeypatch, tmp_path):
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path / "own"))
    assert cache.size() == 0
    cache.store("a", bytes(5))
    assert cache.store("b", bytes(7)).stat().st_mode & 0o777 == 0o644
    assert cache.size() == 12


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path))
    with pytest.raises(TypeError):
        cache.store("a", "text")  # fails after the file was opened
    assert list(tmp_path.iterdir()) == []
