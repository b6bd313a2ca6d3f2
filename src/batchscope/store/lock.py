"""One driver at a time: the lock of a run folder.

The lock is a file that names its owner and is touched while the owner lives. It is taken by making a hard
link, which fails if the name exists, also on network disks. A stale lock with token T is taken over by
whoever first makes ``lock.after-T`` (again a link, so exactly one can) and then renames its own lock over the
stale one. A taker that dies in between leaves ``lock.after-T``, which is then judged like a lock itself: the
chain is followed to its end.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from batchscope.amounts import duration
from batchscope.errors import StoreError

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
_LINUX, _WINDOWS = (sys.platform.startswith(name) for name in ("linux", "win32"))


@dataclass(frozen=True)
class Owner:
    """Who holds a lock. ``realm`` tells the kernel and process namespace in which ``pid`` has a meaning."""

    host: str
    pid: int
    started: str
    realm: str
    token: str

    @classmethod
    def this_process(cls) -> Owner:
        """The owner that this process would be, with a new token."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()) or "", _realm(), secrets.token_hex(8))

    @classmethod
    def read(cls, path: Path) -> Owner | None:
        """The owner named in a lock file; None if there is no file. An unreadable one has the empty owner."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            return cls("an unknown host", 0, "", "", "")

    def is_alive(self, heartbeat_age: float) -> bool:
        """Whether the owner still runs: its process where this machine can see it, else its heartbeat."""
        if self.realm and self.realm == _realm() and self.host == socket.gethostname():
            return _started(self.pid) in {self.started, ""}
        return abs(heartbeat_age) < STALE_SECONDS  # a time in the future is no sign of life either


class Lock:
    """A held lock; made by ``Lock.take``."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        """Keep the lock that ``take`` has made alive."""
        self._path = folder / "lock"
        self.owner = owner
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="batchscope-heartbeat", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Take the lock of a folder, and remove what takers that died have left.

        Raises:
            StoreError: If another driver holds it, or the folder cannot be written.
        """
        owner = Owner.this_process()
        own = folder / f"lock.new-{owner.token}"
        try:
            own.write_text(json.dumps(asdict(owner)))
            try:
                _take(folder, own)
                _tidy(folder, own)
            finally:
                own.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot lock {folder}: {error.strerror or error}; a run needs a folder that it can write"
            ) from error
        return cls(folder, owner)

    def check(self) -> None:
        """Refuse to go on once the lock is another's.

        Raises:
            StoreError: If another driver took the lock over, or it was removed.
        """
        holder = Owner.read(self._path)
        if holder != self.owner:
            who = f"{holder.host}, process {holder.pid}," if holder else "somebody"
            raise StoreError(
                f"{who} has taken over {self._path.parent} while this driver did not respond: this one "
                "stops; what it committed is safe"
            )

    def release(self) -> None:
        """Give the lock back; harmless if it is another's by now."""
        self._stop.set()
        self._thread.join(timeout=1)
        if Owner.read(self._path) == self.owner:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if Owner.read(self._path) != self.owner:
                return
            with suppress(OSError):
                os.utime(self._path)


def holder(folder: Path) -> Owner | None:
    """The live owner of a folder's lock; None if no driver is at work."""
    path = folder / "lock"
    owner = Owner.read(path)
    return owner if owner and owner.is_alive(_age(path, None)) else None


def _take(folder: Path, own: Path) -> None:
    lock = folder / "lock"
    for _ in range(100):
        if _link(own, lock):
            return
        chain = _chain(folder)
        if not chain:
            continue  # released between the two evaluations
        path, last = chain[-1]
        if last.is_alive(_age(path, own)):
            raise StoreError(
                f"another driver works on {folder}: {last.host}, process {last.pid}. Wait for it, stop it, "
                f"or choose another folder (a dead driver's lock is free {duration(STALE_SECONDS)} after its end)"
            )
        claim = folder / f"lock.after-{last.token}"
        if not _link(own, claim):
            continue  # another taker was quicker: judge it in the next round
        if Owner.read(lock) != chain[0][1]:
            claim.unlink(
                missing_ok=True
            )  # the takeover was finished, and its claims cleared, between the two evaluations
            continue
        os.replace(own, lock)
        for leftover in folder.glob("lock.after-*"):
            leftover.unlink(missing_ok=True)
        return
    raise StoreError(f"the lock of {folder} changes hands too quickly to be taken: type the same command again")


def _tidy(folder: Path, own: Path) -> None:
    """Remove the files of takers that were killed before they could."""
    for path in folder.glob("lock.new-*"):
        owner = Owner.read(path)
        if owner is not None and path != own and not owner.is_alive(_age(path, own)):
            path.unlink(missing_ok=True)


def _chain(folder: Path) -> list[tuple[Path, Owner]]:
    """The lock, and whoever claimed to take it over, in order."""
    chain: list[tuple[Path, Owner]] = []
    path = folder / "lock"
    while (owner := Owner.read(path)) is not None and all(path != seen for seen, _ in chain):
        chain.append((path, owner))
        path = folder / f"lock.after-{owner.token}"
    return chain


def _link(own: Path, name: Path) -> bool:
    """Give ``own`` a second name if that name is free."""
    try:
        os.link(own, name)
    except FileExistsError:
        return False
    except OSError:
        try:  # a file system without hard links
            with name.open("xb") as file:
                file.write(own.read_bytes())
        except FileExistsError:
            return False
    return True


def _age(path: Path, now: Path | None) -> float:
    """Seconds since ``path`` was touched; by its file system's clock if ``now`` was just written there."""
    try:
        return (now.stat().st_mtime if now else time.time()) - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's own words; None if it does not run, "" if that is hidden."""
    if _WINDOWS:
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    if _LINUX:
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return None if state in {"Z", "X"} else fields[18]
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def _realm() -> str:
    """Where a process number means the same process: this boot of this machine, in this process namespace."""
    if _LINUX:
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
        except OSError:
            return ""
    return "" if _WINDOWS else sys.platform
