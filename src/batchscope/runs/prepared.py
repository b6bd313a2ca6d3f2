"""What a run depends on, settled before anything is written, and the folder that is opened for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batchscope import workloads
from batchscope.engine.training import DTYPES
from batchscope.executors import starting
from batchscope.executors.local import WorkerSetup
from batchscope.executors.shared import SharedData
from batchscope.executors.worker import FolderCheckpoints
from batchscope.machine.devices import resolve_device
from batchscope.plan.rungs import Grid
from batchscope.plan.timeline import Timeline
from batchscope.runs import notes
from batchscope.runs.changed import refusal
from batchscope.runs.demand import demand
from batchscope.runs.planned import searches
from batchscope.runs.preflight import check_extension, check_goals, check_size, grids_of, timelines_of
from batchscope.runs.program_choices import Recorded, check_pins, joined, pinned, replayed, written
from batchscope.runs.workers_and_packs import Layout, lay_out
from batchscope.spec.study import Study
from batchscope.spec.workload import Workload
from batchscope.store.provenance import collect
from batchscope.store.store import Store


@dataclass(frozen=True)
class Prepared:
    """A study that can be run here, checked against its workload.

    Attributes:
        study: What to run.
        folder: Where.
        context: What the ids of its trials share.
        identity: What is told of the workload where another one is in the folder.
        remarks: Of the workload.
        timelines: The clock at every batch size.
        grids: Evaluations and rungs at every batch size.
        recorded: The choices that are made already.
        layout: Workers, threads and the packs that fit.
        setup: What a worker begins with, the examples among it.
        given: Whether the workload was given as an object, which no later driver can load.
    """

    study: Study
    folder: Path
    context: str
    identity: Mapping[str, str]
    remarks: tuple[str, ...]
    timelines: Mapping[int, Timeline]
    grids: Mapping[int, Grid]
    recorded: Recorded
    layout: Layout
    setup: WorkerSetup
    given: bool

    @property
    def computing(self) -> dict[str, object]:
        """What the provenance says of how the run is computed."""
        facts: dict[str, object] = {
            "workers": self.layout.workers,
            "threads": self.layout.threads,
            "choices": written(self.recorded.choices),
        }
        facts |= {"remarks": list(self.recorded.remarks)} if self.recorded.remarks else {}
        return facts | ({"notes": list(self.remarks)} if self.remarks else {})


def prepare(
    study: Study,
    folder: Path,
    *,
    workload: Workload | None,
    workers: int | None,
    device: str,
    data_dir: Path | None,
    replay_choices: Path | None,
    max_memory: int | None,
) -> Prepared:
    """Load the workload, check the study against it and lay the run out; arguments are those of ``runs.run``.

    Errors:
        BatchscopeError: If the study cannot be run here.
    """
    if workload is None and workers != 0:
        starting.begin()
    device = resolve_device(device)
    known = (workload or workloads.load(study.workload, data_dir)).measuring(study.metrics)
    check_goals(study, known)
    check_size(known)
    timelines = timelines_of(study, known)
    context = study.context(known.fingerprint())
    other = None if replay_choices is None else replayed(replay_choices, study, device)
    recorded = _recorded(study, folder, context, other)
    need, wanted = demand(study, known, timelines, device), 0 if workload is not None else workers
    layout = lay_out(study, need, wanted, device, recorded.choices, recorded.threads, max_memory)
    data, sent = None, workload
    if layout.workers:
        data = SharedData.of(known, DTYPES[study.engine.dtype], study.seed)
        if data is not None and not workloads.is_file(study.workload):
            sent = data.skeleton(known)
    checkpoints, held = FolderCheckpoints(folder), layout.fit.held_bytes
    return Prepared(
        study,
        folder,
        context,
        known.identity(),
        known.remarks,
        timelines,
        grids_of(study, timelines),
        recorded,
        layout,
        WorkerSetup(study, device, checkpoints, context, layout.threads, data_dir, sent, data, held),
        given=workload is not None,
    )


def _recorded(study: Study, folder: Path, context: str, other: Recorded | None) -> Recorded:
    """The choices that are made already: by an earlier driver of this folder, or by the run that is replayed."""
    own = Recorded(folder, {}, None)
    if (folder / "study.yaml").exists():
        provenance = Store.open(folder).provenance
        if provenance.get("context") == context:
            own = Recorded.of(folder, provenance)
    own = own if own.choices else Recorded(folder, {}, None)
    found = joined(pinned(study, own), other)
    check_pins(study, found)
    return found


def opened(run: Prepared) -> Store:
    """The run folder: a new one, or one that holds a run of this study.

    Errors:
        StudyError: If the folder holds a run of another workload or algorithm, or evaluations that ended early without
            what this study asks for.
    """
    study, folder, text = run.study, run.folder, run.study.to_yaml()
    if not (folder / "study.yaml").exists():
        facts = {"seed": study.seed, "context": run.context, "device": run.setup.device, "workload": run.identity}
        facts["searches"] = searches(study, None)
        return Store.create(folder, text, collect(**facts, **run.computing))
    store = Store.open(folder, write=True)
    try:
        if notes.context(store.provenance, folder) != run.context:
            before = Study.from_text(store.study_text, source=str(folder / "study.yaml"))
            raise refusal(folder, before, study, store.provenance.get("workload"), run.identity)
        if store.study_text != text:
            check_extension(study, folder, store.measurements())
            store.write_study(text)
        facts = run.computing | {"searches": searches(study, store.provenance)}
        if "remarks" in facts:
            facts["remarks"] = notes.joined_remarks(store.provenance, run.recorded.remarks)
        if facts != {name: store.provenance.get(name) for name in facts}:
            store.write_provenance({**store.provenance, **facts})
    except BaseException:
        store.close()
        raise
    return store
