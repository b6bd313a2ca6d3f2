"""Experiment trackers: their documented objects, played by small stand-ins, or the libraries where installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from batchscope.errors import DataError
from batchscope.exchange.importers import import_mlflow, import_optuna, import_tensorboard, import_wandb
from batchscope.exchange.importers.result import ColumnError
from batchscope.spec import documents
from batchscope.store import Store

METRICS = {"validation/loss": "val_loss"}


def evaluations(folder: Path, *columns: str) -> list[tuple[Any, ...]]:
    measured = Store.open(folder).measurements().sort("batch_size", "trial", "step")
    return measured.select("trial", "step", *columns).collect().rows()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("wandb", lambda path: import_wandb("a/b", path / "run", batch_size="bs", metrics=METRICS)),
        (
            "mlflow",
            lambda path: import_mlflow(str(path), path / "run", experiment="e", batch_size="bs", metrics=METRICS),
        ),
    ],
)
def test_a_library_that_is_not_there_is_named(
    name: str, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=rf"pip install 'batchscope\[{name}\]'"):
        call(tmp_path)


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, state: str, config: dict[str, Any], rows: list[dict[str, Any]]) -> SimpleNamespace:
        return SimpleNamespace(id=f"id{name}", name=name, state=state, config=config, scan_history=lambda: iter(rows))

    runs = [
        run("a", "finished", {"bs": 64, "lr": 0.1}, [{"_step": 0, "val_loss": 2.0}, {"_step": 5, "val_loss": 1.0}]),
        run("b", "crashed", {"bs": "128", "lr": 0.2}, [{"_step": 5, "val_loss": "NaN"}, {"_step": 6, "x": 1}]),
        run("c", "running", {"lr": 0.2}, [{"_step": 5, "val_loss": 1.0}]),
        run("d", "killed", {"bs": 64, "lr": None}, [{"_step": None, "val_loss": 1.0}, {"_step": 2, "val_loss": 1.5}]),
    ]
    module = ModuleType("wandb")
    module.Api = lambda: SimpleNamespace(runs=lambda project: runs)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    made = import_wandb(
        "me/project",
        tmp_path / "run",
        batch_size="bs",
        metrics=METRICS,
        hyperparameters={"learning_rate": "lr"},
        goals=["validation/loss < 1.2"],
    )
    trials = Store.open(tmp_path / "run").trials()
    assert trials.select("trial", "batch_size", "status", "steps", "hyperparameter/learning_rate").rows() == [
        ("a (ida)", 64, "complete", 5, 0.1),
        ("d (idd)", 64, "stopped", 2, None),
        ("b (idb)", 128, "stopped", 5, 0.2),
    ]
    assert evaluations(tmp_path / "run", "validation/loss")[:2] == [("a (ida)", 0, 2.0), ("a (ida)", 5, 1.0)]
    told = "\n".join(made.problems)
    assert "1 trials without a whole batch size" in told and "1 values without a whole step" in told
    assert "_step, which counts log calls" in told
    assert documents.load(Store.open(tmp_path / "run").study_text, "x")["goals"] == ["validation/loss < 1.2"]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = {
        ("r1", "val_loss"): [(10, 1.0), (20, 0.5), (20, 0.4)],
        ("r2", "val_loss"): [(10, float("inf"))],
    }

    class Page(list[Any]):
        token: str | None = None

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            assert tracking_uri == str(tmp_path)

        def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
            return SimpleNamespace(experiment_id="7") if name == "e" else None

        def search_runs(self, ids: list[str], page_token: str | None) -> Page:
            number = 1 if page_token is None else 2
            page = Page(
                [
                    SimpleNamespace(
                        info=SimpleNamespace(run_id=f"r{number}", status="FINISHED"),
                        data=SimpleNamespace(params={"bs": "32", "lr": "0.1"}),
                    )
                ]
            )
            page.token = "next" if page_token is None else None
            return page

        def get_metric_history(self, run: str, key: str) -> list[SimpleNamespace]:
            return [SimpleNamespace(step=step, value=value) for step, value in histories[run, key]]

    module = ModuleType("mlflow.tracking")
    module.MlflowClient = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", module)
    options: dict[str, Any] = {"batch_size": "bs", "metrics": METRICS, "hyperparameters": {"learning_rate": "lr"}}
    made = import_mlflow(str(tmp_path), tmp_path / "run", experiment="e", **options)
    assert evaluations(tmp_path / "run", "validation/loss")[:2] == [("r1", 10, 1.0), ("r1", 20, 0.4)]
    assert "1 values of validation/loss logged again at the same step, the last kept" in "\n".join(made.problems)
    assert Store.open(tmp_path / "run").trials()["hyperparameter/learning_rate"].to_list() == [0.1, 0.1]
    with pytest.raises(DataError, match="no folder"):
        import_mlflow(str(tmp_path / "typo"), tmp_path / "other", experiment="e", **options)
    with pytest.raises(ColumnError, match="no experiment named 'f'"):
        import_mlflow(str(tmp_path), tmp_path / "other", experiment="f", **options)


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bs64-lr0.1", "bs128-lr0.2/nested", "other"):
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / "logs" / name / "events.out.tfevents.1").write_bytes(b"")

    class Accumulator:
        def __init__(self, path: str, size_guidance: dict[str, int]) -> None:
            assert set(size_guidance.values()) == {0}
            self.tensors = "bs128" in path

        def Reload(self) -> None:
            pass

        def Tags(self) -> dict[str, list[str]]:
            return {"scalars": [] if self.tensors else ["val_loss"], "tensors": ["val_loss"] if self.tensors else []}

        def Scalars(self, tag: str) -> list[SimpleNamespace]:
            return [SimpleNamespace(step=step, value=1.0 / step) for step in (10, 20)]

        def Tensors(self, tag: str) -> list[SimpleNamespace]:
            proto = SimpleNamespace(float_val=[], double_val=[], tensor_content=b"\x00\x00\x80\x3f")
            return [SimpleNamespace(step=10, tensor_proto=proto)]

    name = "tensorboard.backend.event_processing.event_accumulator"
    module = ModuleType(name)
    module.EventAccumulator, module.SCALARS, module.TENSORS = Accumulator, "scalars", "tensors"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    for parent in ("tensorboard", "tensorboard.backend", "tensorboard.backend.event_processing"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    made = import_tensorboard(
        tmp_path / "logs",
        tmp_path / "run",
        batch_size=r"bs(\d+)",
        metrics=METRICS,
        hyperparameters={"learning_rate": r"lr([\d.]+)"},
    )
    assert evaluations(tmp_path / "run", "validation/loss") == [
        ("bs64-lr0.1", 10, 0.1),
        ("bs64-lr0.1", 20, 0.05),
        ("bs128-lr0.2/nested", 10, 1.0),
    ]
    assert Store.open(tmp_path / "run").trials()["hyperparameter/learning_rate"].to_list() == [0.1, 0.2]
    assert "1 trials without a whole batch size, left out (first: trial other: None)" in made.problems
    for pattern in ("bs(", r"bs\d+"):
        with pytest.raises(ColumnError, match="regular expression|one group"):
            import_tensorboard(tmp_path / "logs", tmp_path / "x", batch_size=pattern, metrics=METRICS)
    with pytest.raises(DataError, match="no event files"):
        import_tensorboard(tmp_path / "run", tmp_path / "x", batch_size="(.)", metrics=METRICS)


def test_optuna(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = tmp_path / "studies.db"
    study = optuna.create_study(study_name="mine", storage=f"sqlite:///{storage}")

    def objective(trial: Any) -> float:
        batch_size = trial.suggest_categorical("batch_size", [32, 64])
        rate = trial.suggest_float("learning_rate", 0.01, 1.0, log=True)
        trial.set_user_attr("note", "x")
        for step in (10, 20, 30):
            trial.report(rate * batch_size / step, step)
        if trial.number == 2:
            raise optuna.TrialPruned
        return float(rate)

    study.enqueue_trial({"batch_size": 32, "learning_rate": 0.1})
    study.optimize(objective, n_trials=4)
    before = storage.read_bytes()
    made = import_optuna(
        str(storage), tmp_path / "run", study="mine", batch_size="batch_size", metric="validation/loss"
    )
    assert storage.read_bytes() == before
    trials = Store.open(tmp_path / "run").trials().sort("trial")
    assert made.trials == 4 and made.measurements == 12
    assert trials["status"].to_list() == ["complete", "complete", "pruned", "complete"]
    assert trials["hyperparameter/learning_rate"].to_list() == [trial.params["learning_rate"] for trial in study.trials]
    assert ("0", 20, 0.1 * 32 / 20) in evaluations(tmp_path / "run", "validation/loss")
    with pytest.raises(ColumnError, match="no study named 'other'"):
        import_optuna(str(storage), tmp_path / "x", study="other", batch_size="batch_size", metric="a/b")
    with pytest.raises(DataError, match="no Optuna storage"):
        import_optuna(str(tmp_path / "none.db"), tmp_path / "x", study="mine", batch_size="b", metric="a/b")
    assert not (tmp_path / "none.db").exists()
