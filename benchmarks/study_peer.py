"""The peer of ``study_time.py``: Optuna around the training loop that a user of PyTorch would write.

It is handed a plan: for every batch size the points, seeds and evaluations of our study. Points are enqueued; the
sampler is ``QMCSampler`` all the same. Data order and initial values come from our seeds, so that a trial crosses the
goal where ours does, up to rounding. A trial stops when it reaches the goal, when its loss is no number, at the budget,
or when the pruner says so.

Three arrangements for all cores: ``processes`` of one thread each that share the studies through a journal file,
``threads`` (``n_jobs``) of one process, and ``alone``: one trial after the other, each on all cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from torch import Tensor
from torch.nn import functional as F

from batchscope import workloads
from batchscope.seeds import torch_generator
from batchscope.spec.workload import Workload

ARRANGEMENTS = ("processes", "threads", "alone")
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # the sampler is one
SEEDING = threading.Lock()  # models draw their initial values from one global generator

Plan = dict[str, Any]


class Objective:
    """Trains one trial of one batch size."""

    def __init__(self, plan: Plan, workload: Workload, batch_size: str) -> None:
        self.plan, self.cell, self.batch_size = plan, plan["batch_sizes"][batch_size], int(batch_size)
        self.evaluations = frozenset(self.cell["evaluations"])
        self.model = workload.model
        assert isinstance(workload.train, tuple) and isinstance(workload.validation, tuple)
        self.inputs, self.labels = workload.train
        self.held_out = workload.validation

    def __call__(self, trial: optuna.Trial) -> float:
        if trial.number >= len(self.cell["points"]):  # two processes have asked for the last one
            trial.study.stop()
            raise optuna.TrialPruned
        (low, high), (least, most) = self.plan["learning_rate"], self.plan["momentum"]
        rate = trial.suggest_float("learning_rate", low, high, log=True)
        momentum = 1 - trial.suggest_float("one_minus_momentum", 1 - most, 1 - least, log=True)
        with SEEDING:
            torch.manual_seed(self.cell["seeds"][trial.number])
            model = self.model()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, nesterov=momentum > 0)
        step = evaluations = 0
        error, status = math.nan, "complete"
        for step, batch in enumerate(itertools.islice(self.batches(), self.cell["last"]), 1):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(self.inputs[batch]), self.labels[batch])
            loss.backward()
            optimizer.step()
            if step in self.evaluations:
                error, evaluations = self.error(model), evaluations + 1
                if error < self.plan["goal"]:
                    status = "reached"
                elif not math.isfinite(loss.item()):
                    status = "diverged"
                elif self.plan["pruner"]:
                    trial.report(error, step)
                    status = "pruned" if trial.should_prune() else status
                if status != "complete":
                    break
        for name, value in {"steps": step, "evaluations": evaluations, "status": status}.items():
            trial.set_user_attr(name, value)
        print(
            f"  {self.plan['label']} B={self.batch_size} trial {trial.number}: {status} at {step}",
            file=sys.stderr,
            flush=True,
        )
        if status == "pruned":
            raise optuna.TrialPruned
        return error

    def batches(self) -> Iterator[Tensor]:
        """Stretches of one endless stream of permutations."""
        left = torch.empty(0, dtype=torch.int64)
        for epoch in itertools.count():
            generator = torch_generator(self.plan["seed"], "order", 0, epoch)
            left = torch.cat([left, torch.randperm(len(self.inputs), generator=generator)])
            whole = len(left) // self.batch_size * self.batch_size
            yield from left[:whole].split(self.batch_size)
            left = left[whole:]

    def error(self, model: torch.nn.Module) -> float:
        inputs, labels = self.held_out
        model.eval()
        with torch.no_grad():
            wrong: float = (model(inputs).argmax(-1) != labels).double().mean().item()
        model.train()
        return wrong


def make(plan: Plan, storage: JournalStorage | None) -> dict[str, optuna.Study]:
    """A study for every batch size, with our points enqueued."""
    studies = {}
    for batch_size, cell in plan["batch_sizes"].items():
        studies[batch_size] = optuna.create_study(**settings(plan, storage), study_name=batch_size)
        for point in cell["points"]:
            given = {"learning_rate": point["learning_rate"], "one_minus_momentum": 1 - point["momentum"]}
            studies[batch_size].enqueue_trial(given)
    return studies


def settings(plan: Plan, storage: JournalStorage | None) -> dict[str, Any]:
    pruner = optuna.pruners.MedianPruner() if plan["pruner"] else optuna.pruners.NopPruner()
    return {"storage": storage, "sampler": optuna.samplers.QMCSampler(scramble=True, seed=0), "pruner": pruner}


def work(plan: Plan, journal: str, barrier: Any) -> None:
    """One of the processes: takes the next trial until none is left, batch size by batch size."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    storage = JournalStorage(JournalFileBackend(journal))
    workload = workloads.load(plan["workload"], plan["data_dir"])
    barrier.wait()
    for batch_size in plan["batch_sizes"]:
        objective = Objective(plan, workload, batch_size)
        study = optuna.load_study(study_name=batch_size, **settings(plan, storage))
        study.optimize(objective, n_trials=len(plan["batch_sizes"][batch_size]["points"]), callbacks=[stop_at_the_end])


def stop_at_the_end(study: optuna.Study, _: object) -> None:
    if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.stop()


def run(plan: Plan, arrangement: str, cores: int, journal: str) -> dict[str, optuna.Study]:
    """All trials of all batch sizes."""
    if arrangement == "processes":
        studies = make(plan, JournalStorage(JournalFileBackend(journal)))
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(cores)
        processes = [context.Process(target=work, args=(plan, journal, barrier)) for _ in range(cores)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode:
                raise SystemExit(f"a process of the peer failed with status {process.exitcode}")
        return studies
    jobs = cores if arrangement == "threads" else 1
    torch.set_num_threads(cores // jobs)
    workload = workloads.load(plan["workload"], plan["data_dir"])
    studies = make(plan, None)
    for batch_size, study in studies.items():
        objective = Objective(plan, workload, batch_size)
        study.optimize(objective, n_trials=len(study.get_trials(deepcopy=False)), n_jobs=jobs)
    return studies


def told(studies: dict[str, optuna.Study]) -> dict[str, Any]:
    """For every batch size what came of its trials, and how long it took from the first to the last."""
    found = {}
    for batch_size, study in studies.items():
        trials = [trial for trial in study.get_trials(deepcopy=False) if "status" in trial.user_attrs]
        times = [(trial.datetime_start, trial.datetime_complete) for trial in trials]
        begun, ended = min(start for start, _ in times if start), max(end for _, end in times if end)
        found[batch_size] = {
            "trials": {trial.number: trial.user_attrs for trial in trials},
            "seconds": (ended - begun).total_seconds(),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("answer", type=Path)
    parser.add_argument("--arrangement", choices=ARRANGEMENTS, required=True)
    parser.add_argument("--cores", type=int, required=True)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = str(options.answer.with_suffix(".journal"))
    studies = run(json.loads(options.plan.read_text()), options.arrangement, options.cores, journal)
    options.answer.write_text(json.dumps({"batch_sizes": told(studies)}))


if __name__ == "__main__":
    main()
