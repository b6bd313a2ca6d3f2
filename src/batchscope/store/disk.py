"""The one way to the disk: every read and write of a run folder goes through here.

Files are never changed in place. A file is written to a temporary name in its folder, synced, renamed, and
the folder is synced, so that at any moment a name holds a whole file or nothing. Tests inject faults by
replacing the primitives.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from batchscope.errors import StoreError

TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.tmp")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
T = TypeVar("T")
_ADVICE = {
    errno.ENOSPC: "free some space, then type the same command again: what was committed is safe",
    errno.EDQUOT: "your disk quota is used up: free some of it, then type the same command again",
    errno.EROFS: "the file system is read-only: copy the folder to a place that can be written",
    errno.EACCES: "you may not write here: change the permissions, or choose another folder",
    errno.EPERM: "you may not write here: change the permissions, or choose another folder",
    errno.EIO: "the disk reports a fault: check it, copy the folder to a sound one, and go on there",
}


def read_table(read: Callable[..., T], path: Path, **options: Any) -> T:
    """A table by one of polars' readers or scanners, whatever the path is called.

    ``[ ] * ?`` in it are no pattern, and a path that is no UTF-8 is opened here: a scan keeps a handle of its own.
    """
    whole = os.path.abspath(path)
    try:
        whole.encode()
    except UnicodeEncodeError:
        with open(whole, "rb") as file:
            return read(file, **options)
    return read(whole, glob=False, **options)


class Files:
    """The files of one folder, addressed by relative names such as ``"trials/b16-....parquet"``."""

    def __init__(self, root: Path) -> None:
        """Take ``root`` as it is; nothing is made before the first write."""
        self.root = root

    def path(self, name: str) -> Path:
        """The path of ``name``.

        Raises:
            StoreError: If the name could leave the folder.
        """
        parts = name.split("/")
        if not all(_NAME.fullmatch(part) for part in parts):
            raise StoreError(
                f"{name!r} is no file name inside {self.root}: names hold letters, digits, '_', '-', '.' "
                "and '/', and no part starts with a dot"
            )
        for end in range(1, len(parts)):
            folder = self.root.joinpath(*parts[:end])
            if folder.is_symlink():
                raise StoreError(f"{folder} is a link out of the run folder: replace it by a plain folder")
        return self.root.joinpath(*parts)

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file durably, replacing any file of that name.

        If the disk refuses (``StoreError``), the name holds what it held before, or the whole new file.
        """
        target = self.path(name)
        temporary = target.with_name(f".{secrets.token_hex(6)}.tmp")
        try:
            self._make_folder(target.parent)
            self._write(temporary, data)
            self._rename(temporary, target)
            self._sync_folder(target.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise self._fault("write", target, error) from error

    def read(self, name: str) -> bytes:
        """The bytes of a file; ``FileNotFoundError`` if a running driver has just merged it into another."""
        target = self.path(name)
        try:
            return self._read(target)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._fault("read", target, error) from error

    def checksum(self, name: str) -> str:
        """The SHA-256 of a file, read in pieces; fails as ``read`` does."""
        target = self.path(name)
        try:
            with target.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._fault("read", target, error) from error

    def names(self, folder: str) -> list[str]:
        """The plain files in a folder, sorted; none if there is no such folder."""
        target = self.path(folder)
        try:
            with os.scandir(target) as entries:
                return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._fault("list", target, error) from error

    def size(self, name: str) -> int:
        """Bytes in a file."""
        return self.path(name).stat().st_size

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return self.path(name).exists()

    def remove(self, folder: str, name: str) -> None:
        """Remove a file; one that is gone already is no fault. ``name`` may be a temporary one."""
        target = self.path(folder) / name if TEMPORARY.fullmatch(name) else self.path(f"{folder}/{name}")
        try:
            self._unlink(target)
        except OSError as error:
            raise self._fault("remove", target, error) from error

    def tidy(self, seconds: float) -> None:
        """Remove temporary files of the folder itself that are older: a reader may be writing a report just now."""
        with suppress(OSError), os.scandir(self.root) as entries:
            for entry in entries:
                if TEMPORARY.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > seconds:
                    self._unlink(Path(entry.path))

    def move(self, name: str, target: str) -> None:
        """Give a file another name, replacing any file of that name."""
        source, goal = self.path(name), self.path(target)
        try:
            self._make_folder(goal.parent)
            self._rename(source, goal)
            self._sync_folder(goal.parent)
        except OSError as error:
            raise self._fault("move", source, error) from error

    # The primitives, one system call each in meaning: what tests replace.

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            self._sync_folder(folder.parent)

    def _write(self, path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            self._sync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, path: Path) -> bytes:
        return path.read_bytes()

    def _sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def _rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def _unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def _sync_folder(self, folder: Path) -> None:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except PermissionError:
            if os.name == "nt":
                return  # Windows has no handle on a folder to sync
            raise
        try:
            self._sync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
                raise
        finally:
            os.close(descriptor)

    def _fault(self, verb: str, path: Path, error: OSError) -> StoreError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        advice = _ADVICE.get(error.errno or 0, "see to it, then type the same command again")
        return StoreError(f"cannot {verb} {path}: {reason}; {advice}")
