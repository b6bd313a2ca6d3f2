"""One driver at a time, whatever happens to the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from threading import Barrier

import pytest

import batchscope.store.lock
from batchscope.errors import StoreError
from batchscope.store import Store
from batchscope.store.lock import Lock, Owner, holder


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def leave(folder: Path, owner: Owner, name: str = "lock", age: float = 0) -> None:
    path = folder / name
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age,) * 2)


def dead() -> Owner:
    """This process as it was before its number was given again."""
    return replace(Owner.this_process(), started="1")


def elsewhere() -> Owner:
    return replace(Owner.this_process(), host="node-7", realm="another kernel", pid=4711)


def test_the_second_driver_is_refused_with_host_and_process(tmp_path: Path) -> None:
    lock = Lock.take(tmp_path)
    with pytest.raises(StoreError, match=rf"{lock.owner.host}, process {os.getpid()}"):
        Lock.take(tmp_path)
    assert holder(tmp_path) == lock.owner
    lock.check()
    lock.release()
    assert holder(tmp_path) is None and list(tmp_path.iterdir()) == []
    Lock.take(tmp_path).release()


def test_a_live_process_of_this_machine_keeps_its_lock_however_old(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    started = batchscope.store.lock._started(child.pid)
    assert started
    leave(tmp_path, replace(Owner.this_process(), pid=child.pid, started=started), age=10**6)
    with pytest.raises(StoreError, match=f"process {child.pid}"):
        Lock.take(tmp_path)
    child.kill()
    assert child.stdin is not None
    for _ in range(500):  # dead, though nobody has asked for its exit status yet
        if batchscope.store.lock._started(child.pid) is None:
            break
        time.sleep(0.01)
    Lock.take(tmp_path).release()


def test_a_process_number_given_again_is_another_process(tmp_path: Path) -> None:
    leave(tmp_path, dead())
    lock = Lock.take(tmp_path)
    assert Owner.read(tmp_path / "lock") == lock.owner
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_driver_on_another_machine_lives_by_its_heartbeat(tmp_path: Path) -> None:
    leave(tmp_path, elsewhere(), age=batchscope.store.lock.STALE_SECONDS - 20)
    with pytest.raises(StoreError, match="node-7, process 4711"):
        Lock.take(tmp_path)
    leave(tmp_path, elsewhere(), age=batchscope.store.lock.STALE_SECONDS + 20)
    Lock.take(tmp_path).release()


def test_an_unreadable_lock_waits_for_its_heartbeat(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[]", b'{"pid": 1}', b"\xff"):
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(StoreError, match="unknown host"):
            Lock.take(tmp_path)
        os.utime(tmp_path / "lock", (0, 0))
        Lock.take(tmp_path).release()


def test_a_driver_that_lost_its_lock_stops(tmp_path: Path) -> None:
    lock = Lock.take(tmp_path)
    leave(tmp_path, elsewhere())
    with pytest.raises(StoreError, match="node-7, process 4711, has taken over"):
        lock.check()
    lock.release()
    assert Owner.read(tmp_path / "lock") is not None  # the other's lock is left alone


def test_the_heartbeat_touches_only_its_own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchscope.store.lock, "HEARTBEAT_SECONDS", 0.01)
    lock = Lock.take(tmp_path)
    os.utime(tmp_path / "lock", (0, 0))
    for _ in range(500):
        if (tmp_path / "lock").stat().st_mtime > 1:
            break
        time.sleep(0.01)
    assert time.time() - (tmp_path / "lock").stat().st_mtime < 5
    leave(tmp_path, elsewhere(), age=100)
    time.sleep(0.05)
    assert time.time() - (tmp_path / "lock").stat().st_mtime > 90
    lock.release()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_takers_that_died_halfway_are_followed_to_the_end(tmp_path: Path, depth: int) -> None:
    owner = dead()
    leave(tmp_path, owner)
    for _ in range(depth):
        successor = dead()
        leave(tmp_path, successor, f"lock.after-{owner.token}")
        owner = successor
    lock = Lock.take(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    lock.release()


def test_a_live_taker_wins_before_it_has_renamed(tmp_path: Path) -> None:
    stale, taker = dead(), elsewhere()
    leave(tmp_path, stale)
    leave(tmp_path, taker, f"lock.after-{stale.token}")
    with pytest.raises(StoreError, match="node-7"):
        Lock.take(tmp_path)


def test_a_taker_that_comes_late_backs_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw the stale lock; before it claims, another takes over, clears the claims, and lives."""
    stale, winner = dead(), elsewhere()
    leave(tmp_path, stale)
    link = batchscope.store.lock._link

    def late(own: Path, name: Path) -> bool:
        if name.name.startswith("lock.after-"):
            leave(tmp_path, winner)
        return link(own, name)

    monkeypatch.setattr(batchscope.store.lock, "_link", late)
    with pytest.raises(StoreError, match="node-7"):
        Lock.take(tmp_path)
    assert Owner.read(tmp_path / "lock") == winner
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_many_takers_exactly_one_succeeds(tmp_path: Path, hard_links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hard_links:

        def link(source: object, target: object) -> None:
            raise PermissionError(1, "no hard links here")

        monkeypatch.setattr(os, "link", link)
    takers = 8
    with ThreadPoolExecutor(takers) as pool:
        for round in range(30):
            folder = tmp_path / str(round)
            folder.mkdir()
            if round % 2:
                leave(folder, dead())
            barrier = Barrier(takers)

            def take(_: int, folder: Path = folder, barrier: Barrier = barrier) -> Lock | None:
                barrier.wait()
                try:
                    return Lock.take(folder)
                except StoreError:
                    return None

            held = [lock for lock in pool.map(take, range(takers)) if lock]
            assert len(held) == 1
            held[0].check()
            held[0].release()
            assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot lock .*nothing"):
        Lock.take(tmp_path / "nothing")


def test_a_time_in_the_future_does_not_hold_for_ever(tmp_path: Path) -> None:
    Store.create(tmp_path / "run", "workload: x\n", {}).close()
    lock = tmp_path / "run" / "lock"
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "", "realm": "", "token": "0" * 16}))
    os.utime(lock, (time.time() + 3600,) * 2)
    assert Store.open(tmp_path / "run").driver is None
    with Store.open(tmp_path / "run", write=True) as store:
        assert store.driver


def test_what_dead_takers_and_writers_have_left_is_tidied(tmp_path: Path) -> None:
    Store.create(tmp_path / "run", "workload: x\n", {}).close()
    dead = {"host": "elsewhere", "pid": 1, "started": "", "realm": "", "token": "0" * 16}
    old = [tmp_path / "run" / name for name in ("lock.new-0000000000000000", ".00112233aabb.tmp")]
    new = [tmp_path / "run" / name for name in ("lock.new-1111111111111111", ".00112233aabc.tmp", ".mine.tmp")]
    for path in (*old, *new):
        path.write_text(json.dumps(dead))
    for path in old:
        os.utime(path, (time.time() - 3600,) * 2)
    Store.open(tmp_path / "run", write=True).close()
    assert not any(path.exists() for path in old) and all(path.exists() for path in new)
