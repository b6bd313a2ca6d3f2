"""A run folder, opened for writing by one driver or for reading by anybody."""

from __future__ import annotations

import json
import secrets
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from batchscope.errors import StoreError
from batchscope.store.disk import Files
from batchscope.store.lock import STALE_SECONDS, Lock, holder
from batchscope.store.schema import (
    SCHEMA_VERSION,
    measurements_frame,
    trials_frame,
)
from batchscope.store.segments import TRIALS, Damage, Pair, Segments, Snapshot
from batchscope.store.states import WEIGHTS, States
from batchscope.store.trial_log import evaluations_of, log_of, merge_log, resolve_log, trials_of, valid_evaluations

if TYPE_CHECKING:
    from torch import Tensor

STUDY, PROVENANCE, SUMMARY, REPORT = "study.yaml", "provenance.json", "summary.json", "report.html"
STUDY_BYTES = 2**20
MERGE_PAIRS = 256
# How far below a folder its runs may lie; whoever gives a home folder by mistake does not wait for all of it.
FOLDERS_DEEP = 4
_OWN = {"lock", PROVENANCE, "checkpoints", "damaged", WEIGHTS}
_IDENTITY = ("status", "index", "replicate", "revision")


class Store:
    """A run folder. Made by ``Store.create`` or ``Store.open``; a context manager that gives the lock back.

    A driver that dies at any moment, even while writing, loses only what it had not committed. After a failed
    write the store refuses further commits: open the folder again, and it shows what the disk really holds.
    Everything raises ``StoreError`` if the disk refuses, naming the file and what to do.
    """

    def __init__(self, folder: Path, files: Files, lock: Lock | None) -> None:
        """Use ``create`` or ``open``."""
        self.folder = folder
        self._files = files
        self._lock = lock
        self._segments = Segments(files)
        self._states, self._weights = States(files), States(files, WEIGHTS)
        self._damage: dict[str, Damage] = {}
        self._foreign: list[str] = []
        self._notes: list[str] = []
        self._failed = False
        self._known: dict[str, tuple[int, tuple[Any, ...]]] = {}
        self._commits = 0
        self._loose: Counter[int] = Counter()
        # What was last read, and of which pairs: they never change, and an answer asks for the same tables many times.
        self._last: tuple[list[Pair], tuple[pl.DataFrame, pl.LazyFrame]] | tuple[None, None] = (None, None)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        study_text: str,
        provenance: Mapping[str, Any],
        *,
        files: Callable[[Path], Files] = Files,
    ) -> Self:
        """Make a run folder, locked for this driver.

        Raises:
            StoreError: If there is a run already, the folder holds other things, or the disk refuses.
        """
        folder = Path(folder)
        layer = files(folder)
        if folder.exists() and not layer.exists(STUDY):
            if not folder.is_dir():
                raise StoreError(f"{folder} is a file: choose another folder for the run")
            names = {path.name for path in folder.iterdir() if not path.name.startswith((".", "lock."))}
            if names - _OWN - {"trials", "measurements"} or layer.names("trials"):
                raise StoreError(
                    f"{folder} is not empty and has no {STUDY}: choose another folder, or put back the "
                    f"{STUDY} of the run that this was"
                )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {folder}: {error.strerror or error}; choose another folder") from error
        store = cls(folder, layer, Lock.take(folder))
        try:
            if layer.exists(STUDY):
                raise StoreError(f"{folder} holds a run already: go on with it, or choose another folder")
            store._segments.run = secrets.token_hex(8)
            store.write_provenance(provenance)
            store.write_study(study_text)  # last: this makes the folder a run
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, folder: str | Path, *, write: bool = False, files: Callable[[Path], Files] = Files) -> Self:
        """Open a run folder; with ``write``, as its one driver, setting aside what is damaged.

        Raises:
            StoreError: If it is no run folder, is of a newer version, or is driven by another process.
        """
        folder = Path(folder)
        layer = files(folder)
        if not layer.exists(STUDY):
            if folder.is_file():
                raise StoreError(f"{folder} is a file: give the folder of a run")
            reason = "there is no such folder" if not folder.exists() else f"it has no {STUDY}"
            if layer.names("trials"):
                reason += f", though it has measurements: put its {STUDY} back"
            raise StoreError(f"{folder} is no run folder: {reason}")
        store = cls(folder, layer, Lock.take(folder) if write else None)
        try:
            provenance = store.provenance
            version = provenance["schema"]
            store._segments.run = str(provenance.get("run", ""))
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{folder / PROVENANCE} has schema version {version!r}, this Batchscope reads up to "
                    f"{SCHEMA_VERSION}: type pip install --upgrade batchscope"
                )
            if write:
                store._recover()
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back."""
        self.close()

    def close(self) -> None:
        """Give the lock back. Reading goes on to work, writing does not."""
        if self._lock is not None:
            self._lock.release()
            self._lock, self._failed = None, True

    # ---- what was asked

    @property
    def study_text(self) -> str:
        """The resolved study, YAML.

        Raises:
            StoreError: If the file is missing, too large or no text.
        """
        path = self._files.path(STUDY)
        try:
            if self._files.size(STUDY) > STUDY_BYTES:
                raise StoreError(f"{path} is larger than {STUDY_BYTES} bytes: this is no study; put the right one back")
            return self._files.read(STUDY).decode()
        except FileNotFoundError:
            raise StoreError(f"{path} is missing: put the study of this run back under this name") from None
        except UnicodeDecodeError as error:
            raise StoreError(f"{path} is no text ({error.reason}): put the study of this run back") from None

    def write_study(self, text: str) -> None:
        """Replace the study, after a change that extends the run."""
        self._must_drive()
        if len(data := text.encode()) > STUDY_BYTES:
            raise StoreError(f"a study may have {STUDY_BYTES} bytes, this one has {len(data)}: make it shorter")
        self._files.write(STUDY, data)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, hardware, seeds, commit.

        Raises:
            StoreError: If the file is missing or damaged.
        """
        path = self._files.path(PROVENANCE)
        try:
            value = json.loads(self._files.read(PROVENANCE))
        except (FileNotFoundError, ValueError, RecursionError):
            value = None
        if value is None and not (self._files.names(TRIALS) or self._files.exists(PROVENANCE)):
            raise StoreError(
                f"{self.folder} is no run folder: it has a {STUDY}, but no {PROVENANCE} and no trials. Is that a study "
                f"of your own? Run it into a folder that is not there yet: -o {shlex.quote(str(self.folder / 'run'))}"
            )
        if not isinstance(value, dict) or type(value.get("schema")) is not int:
            raise StoreError(
                f'{path} is missing or damaged: put it back, or write {{"schema": {SCHEMA_VERSION}}} into it to read '
                "the measurements without what it said; a driver needs the file itself"
            )
        return value

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Replace the provenance, after a choice that a later driver must repeat."""
        self._must_drive()
        mark = {"run": self._segments.run} if self._segments.run else {}
        self._write_json(PROVENANCE, {**provenance, **mark, "schema": SCHEMA_VERSION})

    # ---- what was measured

    @property
    def warnings(self) -> list[str]:
        """What was found damaged or lost so far, one line each."""
        return [*map(str, self._damage.values()), *self._foreign, *self._notes]

    @property
    def damage(self) -> tuple[Damage, ...]:
        """The segments that could not be used at the last reading; a curve drawn without them may be wrong."""
        return tuple(self._damage.values())

    @property
    def foreign(self) -> tuple[str, ...]:
        """The segments of other runs that lay here at the last reading, one line each; they do not count."""
        return tuple(self._foreign)

    @property
    def driver(self) -> str | None:
        """Host and process of the driver at work on this folder; None if there is none."""
        owner = holder(self.folder)
        return f"{owner.host}, process {owner.pid}" if owner else None

    def trials(self) -> pl.DataFrame:
        """One row a trial as last committed, sorted by batch size, replicate, revision and index."""
        return trials_of(log_of(self._segments.read(self._used)))[0]

    def measurements(self, batch_size: int | None = None) -> pl.LazyFrame:
        """One row an evaluation of the committed units, each (trial, step) once."""
        return self.tables(batch_size)[1]

    def tables(self, batch_size: int | None = None) -> tuple[pl.DataFrame, pl.LazyFrame]:
        """Trials and measurements of one and the same moment, of one batch size or of all."""

        def read(snapshot: Snapshot) -> tuple[pl.DataFrame, pl.LazyFrame]:
            pairs = [pair for pair in self._used(snapshot) if batch_size in {None, pair.batch_size}]
            if pairs != self._last[0]:
                trials, clean = trials_of(log_of(pairs))
                measured = evaluations_of(self._segments.measurements(pairs))
                self._last = pairs, (trials, measured if clean else valid_evaluations(measured, trials))
            return self._last[1]

        return self._segments.read(read)

    def commit(self, trials: pl.DataFrame, measurements: pl.DataFrame) -> None:
        """Make the rows of finished units durable in one step; what is committed already is left out.

        Args:
            trials: A row for every trial that was advanced, as it now stands.
            measurements: Their evaluations; those at or before the steps already committed are left out.

        Raises:
            StoreError: If a row breaks a rule of the tables, the lock is lost, or the disk refuses.
        """
        self._must_drive()
        rows, evaluations = trials_frame(trials), measurements_frame(measurements)
        since = [self._known.get(trial, (-1, ()))[0] for trial in rows["trial"]]
        rows = rows.with_columns(pl.Series("since", since, pl.Int64), pl.lit(self._commits, pl.Int64).alias("commit"))
        stray = evaluations.join(rows, on=["trial", "batch_size"], how="anti")
        if len(stray):
            raise StoreError(f"a commit holds an evaluation of a trial that is not in it: {stray.row(0, named=True)}")
        evaluations = evaluations.join(rows.select("trial", "since", "steps"), on="trial", maintain_order="left")
        if len(beyond := evaluations.filter(pl.col("step") > pl.col("steps"))):
            raise StoreError(f"a commit holds an evaluation beyond the steps of its trial: {beyond.row(0, named=True)}")
        evaluations = evaluations.filter(pl.col("step") > pl.col("since")).drop("since", "steps")
        identities = dict(zip(rows["trial"], rows.select(_IDENTITY).iter_rows(), strict=True))
        units = rows.select("trial", "steps").iter_rows()
        news = [self._is_news(trial, steps, identities[trial]) for trial, steps in units]
        rows = rows.filter(pl.Series(news, dtype=pl.Boolean))
        for (batch_size,), part in rows.partition_by("batch_size", as_dict=True, maintain_order=True).items():
            self._write_pair(batch_size, part, evaluations.filter(pl.col("batch_size") == batch_size))
            for trial, steps in part.select("trial", "steps").iter_rows():
                self._known[trial] = steps, identities[trial]
            self._loose[batch_size] += 1
        self._commits += 1
        self._merge_if_many()

    def compact(self, batch_size: int | None = None) -> None:
        """Merge the segments of a batch size (or of each) into one, sorted by trial and step.

        Segments that are large already are left alone, so a reader may go on scanning them.
        """
        self._must_drive()
        sizes = {pair.batch_size for pair in self._segments.read(self._used)}
        for size in sorted(sizes) if batch_size is None else [batch_size]:
            self._merge(size, repair=False)

    # ---- checkpoints

    def state_keys(self) -> list[str]:
        """The keys of all checkpoints, sorted."""
        return self._states.keys()

    def drop_states(self, keys: Collection[str]) -> None:
        """Remove checkpoints; missing ones are no fault."""
        self._must_drive()
        self._states.drop(keys)

    def keep_weights(self, batch_size: int, keys: Collection[str]) -> None:
        """Remove the weights of a batch size except some."""
        self._must_drive()
        own = [key for key in self._weights.keys() if key.startswith(f"{batch_size}-")]  # noqa: SIM118 - no dict
        self._weights.drop(set(own) - set(keys))

    def weights(self, key: str) -> tuple[dict[str, Tensor] | None, str]:
        """Weights that were kept, or None and what is wrong with them."""
        return self._weights.load(key)

    # ---- what is made of it

    def write_summary(self, summary: Mapping[str, Any]) -> Path:
        """Write ``summary.json``; allowed to readers too."""
        return self._write_json(SUMMARY, summary)

    def write_report(self, html: str) -> Path:
        """Write ``report.html``; allowed to readers too."""
        self._files.write(REPORT, html.encode(errors="replace"))
        return self._files.path(REPORT)

    def _write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        self._files.write(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
        return self._files.path(name)

    # ---- inside

    def _must_drive(self) -> None:
        if self._lock is None:
            raise StoreError(f"{self.folder} is open for reading: open it with write=True to change it")
        if self._failed:
            raise StoreError(f"an earlier write to {self.folder} failed: open it again to go on from what is there")
        self._lock.check()

    def _used(self, snapshot: Snapshot) -> tuple[Pair, ...]:
        known = {} if self._lock is None else self._damage  # a driver moves damaged files away: remember them
        self._damage = known | {damage.file: damage for damage in snapshot.damage}
        self._foreign = [
            f"{TRIALS}/{pair.name} is of another run: its {len(pair.rows)} rows do not count; "
            "take it out of this folder, or put back the provenance.json that was here"
            for pair in snapshot.foreign
        ]
        return snapshot.pairs

    def _recover(self) -> None:
        """Bring the folder into the state in which every row is valid and nothing is left over."""
        snapshot = self._segments.read(lambda snapshot: snapshot)
        pairs = self._used(snapshot)
        self._segments.tidy(snapshot)
        self._states.tidy()
        self._files.tidy(STALE_SECONDS)
        for size in {pair.batch_size for pair in pairs}:
            if not resolve_log(log_of([pair for pair in pairs if pair.batch_size == size]))[1]:
                self._merge(size, repair=True)
        pairs = self._segments.read(self._used)
        latest, _ = resolve_log(log_of(pairs))
        for trial, steps, *identity in latest.select("trial", "steps", *_IDENTITY).iter_rows():
            self._known[trial] = steps, tuple(identity)
        self._commits = 1 + max(latest["commit"], default=-1)
        self._loose = Counter(pair.batch_size for pair in pairs if not self._segments.is_large(pair))
        self._merge_if_many()

    def _merge_if_many(self) -> None:
        """Readers open every small pair, of whatever batch size: all are merged when together they are many."""
        if sum(count - 1 for count in self._loose.values() if count) >= MERGE_PAIRS:
            for size in [size for size, count in self._loose.items() if count > 1]:
                self._merge(size, repair=False)

    def _is_news(self, trial: str, steps: int, identity: tuple[Any, ...]) -> bool:
        known_steps, known_identity = self._known.get(trial, (-1, ()))
        return steps > known_steps or (steps == known_steps and identity != known_identity)

    def _merge(self, batch_size: int, *, repair: bool) -> None:
        """Replace the segments of a batch size by one; to ``repair``, all of them, keeping what is valid."""

        def gather(snapshot: Snapshot) -> tuple[list[Pair], pl.DataFrame, pl.DataFrame]:
            pairs = [pair for pair in self._used(snapshot) if pair.batch_size == batch_size]
            if not repair:
                pairs = [pair for pair in pairs if not self._segments.is_large(pair)]
            log, evaluations = log_of(pairs), evaluations_of(self._segments.measurements(pairs))
            if repair:
                log = resolve_log(log)[0].with_columns(since=pl.lit(-1, pl.Int64))
                evaluations = valid_evaluations(evaluations, log)
            return pairs, merge_log(log), evaluations.sort("trial", "step").collect()

        pairs, rows, evaluations = self._segments.read(gather)
        if len(pairs) > 1 or repair:
            self._write_pair(batch_size, rows, evaluations, pairs)
            self._segments.remove(pairs)
        self._loose[batch_size] = 1

    def _write_pair(
        self, batch_size: int, rows: pl.DataFrame, evaluations: pl.DataFrame, replaces: Collection[Pair] = ()
    ) -> None:
        self._failed = True  # until it is known that it did not
        self._segments.write(batch_size, rows, evaluations, replaces)
        self._failed = False


def find_runs(folder: str | Path) -> list[Path]:
    """The run folders at or below ``folder``, sorted; an import of several workloads makes one for each."""
    return sorted(_runs(Path(folder), FOLDERS_DEEP))


def _runs(folder: Path, deep: int) -> Iterator[Path]:
    if (folder / STUDY).is_file() and (folder / PROVENANCE).is_file():
        yield folder
    elif deep and folder.is_dir() and not folder.is_symlink():
        try:
            children = [child for child in folder.iterdir() if not child.name.startswith(".")]
        except OSError:  # not ours to read: then no run of ours is there
            children = []
        for child in children:
            yield from _runs(child, deep - 1)
