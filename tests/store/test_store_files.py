"""The file layer: whole files or none, and nothing outside the folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchscope.errors import StoreError
from batchscope.store.disk import Files


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    files = Files(tmp_path / "run")
    files.write("a/b.txt", b"one")
    files.write("a/b.txt", b"two")
    assert files.read("a/b.txt") == b"two" and files.names("a") == ["b.txt"]
    assert files.size("a/b.txt") == 3 and files.exists("a/b.txt") and not files.exists("a/c.txt")
    files.move("a/b.txt", "c/d.txt")
    files.remove("c", "d.txt")
    files.remove("c", "d.txt")
    assert files.names("c") == [] == files.names("nothing")
    with pytest.raises(FileNotFoundError):
        files.read("c/d.txt")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a/.x", "a\0b", "a\\b", "C:x"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    files = Files(tmp_path / "run")
    with pytest.raises(StoreError, match="no file name inside"):
        files.write(name, b"x")
    with pytest.raises(StoreError, match="no file name inside"):
        files.read(name)
    assert list(tmp_path.rglob("*")) == []


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "trials").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="link out of the run folder"):
        Files(tmp_path / "run").write("trials/x", b"x")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "run" / "trials").mkdir(parents=True)
    (tmp_path / "run" / "trials" / "x").symlink_to("/etc/passwd")
    assert Files(tmp_path / "run").names("trials") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="change the permissions"):
        Files(tmp_path).write("x", b"x")
    tmp_path.chmod(0o700)


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    Files(tmp_path).write("x", b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"
