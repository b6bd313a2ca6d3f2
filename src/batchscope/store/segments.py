"""The Parquet segments of a run: immutable, in pairs, with the checksum of their bytes in their names.

A commit is a pair: a segment of measurements, then a segment of trials that names it. The second is the
commit mark: a measurements segment that no trials segment names was never committed. A name is
``bBATCH-IDENTITY-CHECKSUM.parquet``: the batch size, a hash of the units in it, a hash of the bytes of the
file; so a damaged file betrays itself. A merged pair lists the pairs that it replaces, which are ignored from
then on and removed: a reader sees the one or the other.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import IO, TypeVar

import polars as pl

from batchscope.errors import StoreError
from batchscope.store.disk import TEMPORARY, Files, read_table
from batchscope.store.schema import OLD_STATUS, SCHEMA_VERSION, is_log, is_measurements

TRIALS, MEASUREMENTS, DAMAGED = "trials", "measurements", "damaged"
LARGE_BYTES = 2**20
_MARK = b"batchscope.schema"
_NAME = re.compile(r"b(?P<batch_size>[0-9]{1,18})-(?P<identity>[0-9a-f]{16})-(?P<checksum>[0-9a-f]{16})\.parquet")
_ATTEMPTS = 50
T = TypeVar("T")


class _UnfitError(Exception):
    """Why a segment cannot be used."""


@dataclass(frozen=True)
class Pair:
    """One commit: the rows of its trials segment and the name of its measurements segment."""

    name: str
    measurements: str
    batch_size: int
    replaces: frozenset[str]
    run: str
    rows: pl.DataFrame = field(compare=False, repr=False)

    @property
    def files(self) -> tuple[str, str]:
        """Both, in the run folder."""
        return f"{TRIALS}/{self.name}", f"{MEASUREMENTS}/{self.measurements}"


@dataclass(frozen=True)
class Damage:
    """A segment that cannot be used: the file, the batch size of its units, and what is wrong with it."""

    file: str
    batch_size: int
    reason: str

    def __str__(self) -> str:
        """For a person."""
        return f"{self.file} {self.reason}: its units (batch size {self.batch_size}) count as not done"


@dataclass(frozen=True)
class Snapshot:
    """The committed pairs at one moment, what is damaged, and what commits and merges cut short have left.

    ``foreign`` are pairs that another run has committed: they do not count, and stay where they are.
    """

    pairs: tuple[Pair, ...]
    damage: tuple[Damage, ...]
    leftovers: tuple[tuple[str, str], ...]
    foreign: tuple[Pair, ...] = ()


class Segments:
    """The segments of one run folder. Remembers what it has verified: segments never change."""

    def __init__(self, files: Files) -> None:
        """Nothing is read yet."""
        self.run = ""  # what marks the segments of this run; nothing where its provenance has no mark
        self._files = files
        self._pairs: dict[str, Pair] = {}
        self._verified: dict[str, tuple[str, ...]] = {}  # the columns of measurements whose bytes are right

    def read(self, read: Callable[[Snapshot], T]) -> T:
        """``read`` of a verified snapshot, done again if a driver merged away a file under its hands.

        Raises:
            StoreError: If a segment was written by a newer version, or the disk refuses.
        """
        for _ in range(_ATTEMPTS):
            try:
                return read(self._snapshot())
            except FileNotFoundError as error:
                vanished = error.filename
        raise StoreError(
            f"{vanished} vanishes at every attempt to read it: if no driver is at work on this folder, the "
            "disk has a fault; copy the folder to a sound one"
        )

    def measurements(self, pairs: Iterable[Pair]) -> list[pl.LazyFrame]:
        """The measurements of these pairs, small ones in memory, large ones as scans. In ``read`` only."""
        small: dict[tuple[str, ...], list[IO[bytes]]] = {}  # by columns: one scan of many costs far less than many
        large: list[pl.LazyFrame] = []
        for pair in pairs:
            name = f"{MEASUREMENTS}/{pair.measurements}"
            if self.is_large(pair):
                large.append(read_table(pl.scan_parquet, self._files.path(name)))
                continue
            data = self._files.read(name)
            if not _has_checksum(pair.measurements, data):  # damaged since it was verified
                del self._verified[pair.measurements]
                raise FileNotFoundError(2, "damaged meanwhile", name)
            small.setdefault(self._verified[pair.measurements], []).append(io.BytesIO(data))
        frames = [pl.read_parquet(files) for files in small.values()]
        return [pl.concat(frames, how="diagonal").lazy(), *large] if frames else large

    def write(
        self, batch_size: int, trials: pl.DataFrame, measurements: pl.DataFrame, replaces: Iterable[Pair] = ()
    ) -> None:
        """Commit a pair: durable, and seen by readers, when this returns.

        If the disk refuses (``StoreError``), the pair is there as a whole or not at all.
        """
        replaced = frozenset(pair.name for pair in replaces)  # a merged pair never has the name of its source
        units = trials.select("trial", "since", "steps", "commit").sort("trial", "steps", "commit").rows()
        identity = _checksum(json.dumps([units, sorted(replaced)]).encode())
        data = _parquet(measurements, {})
        partner = f"b{batch_size}-{identity}-{_checksum(data)}.parquet"
        self._files.write(f"{MEASUREMENTS}/{partner}", data)
        links = {"batchscope.measurements": partner, "batchscope.replaces": json.dumps(sorted(replaced))}
        links["batchscope.run"] = self.run
        data = _parquet(trials, links)
        name = f"b{batch_size}-{identity}-{_checksum(data)}.parquet"
        self._files.write(f"{TRIALS}/{name}", data)
        self._pairs[name] = Pair(name, partner, batch_size, replaced, self.run, trials)
        self._verified[partner] = tuple(measurements.columns)

    def is_large(self, pair: Pair) -> bool:
        """Whether its measurements are best left as they are: scanned, never merged again."""
        return self._files.size(f"{MEASUREMENTS}/{pair.measurements}") >= LARGE_BYTES

    def remove(self, pairs: Iterable[Pair]) -> None:
        """Remove pairs that a merged pair has replaced."""
        for pair in pairs:  # the commit mark first: what a crash leaves behind was then never committed
            self._files.remove(TRIALS, pair.name)
            self._files.remove(MEASUREMENTS, pair.measurements)
            self._pairs.pop(pair.name, None)

    def tidy(self, snapshot: Snapshot) -> None:
        """Set damaged segments aside and remove what is left over. For the driver only."""
        suspects = set()
        for damage in snapshot.damage:
            folder, name = damage.file.split("/")
            suspects.add(_units(name))
            self._set_aside(folder, name)
        for folder, name in snapshot.leftovers:
            if _units(name) in suspects:  # what remains of a damaged pair
                self._set_aside(folder, name)
            else:
                self._files.remove(folder, name)
                self._pairs.pop(name, None)

    def _set_aside(self, folder: str, name: str) -> None:
        self._files.move(f"{folder}/{name}", f"{DAMAGED}/{folder}-{name}")

    def _snapshot(self) -> Snapshot:
        names = self._names()
        damage: dict[str, Damage] = {}
        pairs: dict[str, Pair] = {}
        self._read_commits(name for name in sorted(names[TRIALS] - self._pairs.keys()) if _NAME.fullmatch(name))
        for name in sorted(names[TRIALS]):
            if match := _NAME.fullmatch(name):
                batch_size = int(match["batch_size"])
                try:
                    pairs[name] = self._pair(name, batch_size, names[MEASUREMENTS])
                except _UnfitError as reason:
                    file = f"{TRIALS}/{name}"
                    damage[file] = Damage(file, batch_size, str(reason))
                    pair = self._pairs.get(name)
                    if pair and pair.measurements in names[MEASUREMENTS]:
                        file = f"{MEASUREMENTS}/{pair.measurements}"
                        damage[file] = Damage(file, batch_size, str(reason))
        foreign = [pair for pair in pairs.values() if self.run and pair.run not in {"", self.run}]
        own = {name: pair for name, pair in pairs.items() if pair not in foreign}
        replaced = {name for pair in own.values() for name in pair.replaces}
        live = {name: pair for name, pair in own.items() if name not in replaced}
        known = {file for pair in (*live.values(), *foreign) for file in pair.files} | set(damage)
        leftovers = [
            (folder, name)
            for folder in (TRIALS, MEASUREMENTS)
            for name in sorted(names[folder])
            if (_NAME.fullmatch(name) and f"{folder}/{name}" not in known) or TEMPORARY.fullmatch(name)
        ]
        return Snapshot(tuple(live.values()), tuple(damage.values()), tuple(leftovers), tuple(foreign))

    def _names(self) -> dict[str, frozenset[str]]:
        """Both folders, listed until two listings agree: one alone can miss a merged pair and its sources."""
        before: dict[str, frozenset[str]] = {}
        for _ in range(1000):
            now = {folder: frozenset(self._files.names(folder)) for folder in (TRIALS, MEASUREMENTS)}
            if now == before:
                break
            before = now
        return before

    def _read_commits(self, names: Iterable[str]) -> None:
        """Read trials segments as they were committed, all of them at once, which takes a third of the time.

        The rows of a commit have one batch size and one number, and those of the next another: that tells them apart.
        What is merged, damaged or strange in any way is left to be read alone.
        """
        found: dict[str, tuple[bytes, dict[str, str]]] = {}
        for name in names:
            with suppress(FileNotFoundError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
                data = self._files.read(f"{TRIALS}/{name}")
                links = pl.read_parquet_metadata(io.BytesIO(data)) if _has_checksum(name, data) else {}
                if links.get("batchscope.replaces") == "[]" and links.get(_MARK.decode()) == str(SCHEMA_VERSION):
                    found[name] = data, links
        if len(found) < 2:
            return
        files: list[IO[bytes]] = [io.BytesIO(data) for data, _ in found.values()]
        try:
            rows = pl.read_parquet(files).rechunk()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):  # of several kinds of columns
            return
        if not is_log(rows):
            return
        lengths = rows.select(pl.struct("batch_size", "commit").rle().struct.field("len")).to_series()
        if len(lengths) != len(found):
            return
        start = 0
        for (name, (_, links)), length in zip(found.items(), lengths, strict=True):
            own, start = rows.slice(start, length), start + length
            if own.item(0, "batch_size") == int(name[1:].partition("-")[0]) and "batchscope.measurements" in links:
                self._pairs[name] = _of(name, links, own)

    def _pair(self, name: str, batch_size: int, measurements: frozenset[str]) -> Pair:
        """The verified pair of a trials segment."""
        pair = self._pairs.get(name)
        if pair is None:
            data = self._files.read(f"{TRIALS}/{name}")
            if not _has_checksum(name, data):
                raise _UnfitError("is damaged (its bytes do not have the checksum in its name)")
            pair = self._pairs[name] = _parse(name, batch_size, data)
        partner = f"{MEASUREMENTS}/{pair.measurements}"
        if pair.measurements not in measurements:
            if not self._files.exists(f"{TRIALS}/{name}"):
                raise FileNotFoundError(2, "merged meanwhile", name)
            raise _UnfitError(f"has lost {partner}")
        if pair.measurements not in self._verified:
            match = _NAME.fullmatch(pair.measurements)
            if match is None or self._files.checksum(partner)[:16] != match["checksum"]:
                raise _UnfitError(f"is damaged (the bytes of {partner} do not have the checksum in its name)")
            with self._files.path(partner).open("rb") as file, _reading(partner):
                schema = pl.read_parquet_schema(file)
            if not is_measurements(schema):
                raise _UnfitError(f"is no commit of a run ({partner} has other columns)")
            self._verified[pair.measurements] = tuple(schema)
        return pair


def _units(name: str) -> str:
    return name.rpartition("-")[0]


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _has_checksum(name: str, data: bytes) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and _checksum(data) == match["checksum"]


def _parquet(frame: pl.DataFrame, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, metadata={_MARK.decode(): str(SCHEMA_VERSION), **metadata})
    return buffer.getvalue()


@contextmanager
def _reading(file: str) -> Iterator[None]:
    """Refuse to go on where the reader fails at a segment of ours: its checksum was right, so it is not damaged."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise StoreError(
            f"{file} is as it was written, and polars {pl.__version__} cannot read it ({reason:.200}): "
            "type pip install --upgrade polars"
        ) from None


@contextmanager
def _parsing(file: str, data: bytes) -> Iterator[None]:
    """Turn whatever a hostile file provokes into one answer."""
    try:
        with _reading(file) if _MARK in data else nullcontext():
            yield
    except (_UnfitError, StoreError):
        raise
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise _UnfitError(f"is no segment of a run ({type(error).__name__})") from None


def _parse(name: str, batch_size: int, data: bytes) -> Pair:
    with _parsing(f"{TRIALS}/{name}", data):
        metadata = pl.read_parquet_metadata(io.BytesIO(data))
        version = int(metadata["batchscope.schema"])
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{TRIALS}/{name} has schema version {version}, this Batchscope reads up to "
                f"{SCHEMA_VERSION}: type pip install --upgrade batchscope"
            )
        rows = pl.read_parquet(io.BytesIO(data))
        if version == 1 and "status" in rows.columns:
            rows = rows.with_columns(pl.col("status").replace(*OLD_STATUS))
        if not is_log(rows) or not (rows["batch_size"] == batch_size).all():
            raise _UnfitError("is no segment of trials of this batch size")
        return _of(name, metadata, rows)


def _of(name: str, links: Mapping[str, str], rows: pl.DataFrame) -> Pair:
    """The pair of a trials segment: its name, what its metadata says, and its rows."""
    replaces = frozenset(map(str, json.loads(links["batchscope.replaces"])))
    batch_size = int(name[1:].partition("-")[0])
    return Pair(name, links["batchscope.measurements"], batch_size, replaces, links.get("batchscope.run", ""), rows)
