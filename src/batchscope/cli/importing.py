"""``batchscope import``: a run made of measurements from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchscope.amounts import counted
from batchscope.cli.show import say
from batchscope.exchange.importers import (
    import_batch_science,
    import_csv,
    import_curve,
    import_mlflow,
    import_optuna,
    import_tables,
    import_tensorboard,
    import_wandb,
)

if TYPE_CHECKING:
    from batchscope.exchange.importers import Imported

command = typer.Typer(no_args_is_help=True, help="Make a run of measurements from elsewhere.")

Output = Annotated[Path, typer.Option("-o", "--output", help="The run folder to make.")]
Metrics = Annotated[
    list[str], typer.Option("--metric", metavar="NAME=COL", help="A metric, such as validation/loss, and where it is.")
]
Hyperparameters = Annotated[
    list[str] | None,
    typer.Option("--hyperparameter", metavar="NAME=COL", help="A hyperparameter, and where it is."),
]
Goals = Annotated[
    list[str] | None, typer.Option("--goal", help='For analyze to find, such as "validation/loss < 3.42".')
]
BatchSize = Annotated[str, typer.Option("--batch-size", metavar="COL", help="Where the batch size is.")]
Separator = Annotated[str, typer.Option(help="Between the fields of the file.")]


@command.command("batch-science")
def batch_science(
    path: Annotated[Path, typer.Argument(help="The tree, or one data set, model, workload or study of it.")],
    output: Output,
    goal: Goals = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="COMPLETE trials of a study to analyse.", show_default="as published: 100 or 50"),
    ] = None,
) -> None:
    """Import the layout dataset/model/optimizer/batch_size/trial_id of the published database; one run a workload."""
    _tell(import_batch_science(path, output, goals=goal or (), trials=trials))


@command.command("csv")
def csv(
    path: Annotated[Path, typer.Argument(help="A CSV file, or a folder that batchscope export has written.")],
    output: Output,
    batch_size: Annotated[str | None, typer.Option("--batch-size", metavar="COL", help="The batch size.")] = None,
    step: Annotated[str | None, typer.Option("--step", metavar="COL", help="Weight updates done.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME=COL", help="Such as validation/loss=val_loss.")
    ] = None,
    trial: Annotated[str | None, typer.Option(metavar="COL", help="What tells trials apart.")] = None,
    hyperparameter: Hyperparameters = None,
    status: Annotated[str | None, typer.Option(metavar="COL", help="What became of the trial.")] = None,
    seconds: Annotated[str | None, typer.Option(metavar="COL", help="Seconds trained.")] = None,
    epoch: Annotated[str | None, typer.Option(metavar="COL", help="Epochs done.")] = None,
    group: Annotated[str | None, typer.Option(metavar="COL", help="One run for each value, under RUN/VALUE.")] = None,
    goal: Goals = None,
    separator: Separator = ",",
) -> None:
    """Import a CSV file with one row for each evaluation of each trial."""
    if path.is_dir():
        _tell(import_tables(path, output))
        return
    if not batch_size or not step or not metric:
        raise typer.BadParameter("give --batch-size COL, --step COL and --metric NAME=COL")
    _tell(
        import_csv(
            path,
            output,
            batch_size=batch_size,
            step=step,
            metrics=_pairs(metric),
            trial=trial,
            hyperparameters=_pairs(hyperparameter),
            status=status,
            seconds=seconds,
            epoch=epoch,
            group=group,
            goals=goal or (),
            separator=separator,
        )
    )


@command.command("parquet")
def parquet(
    path: Annotated[Path, typer.Argument(help="A folder that batchscope export has written.")], output: Output
) -> None:
    """Import the tables that batchscope export --format parquet has written."""
    _tell(import_tables(path, output))


@command.command("curve")
def curve(
    path: Annotated[Path, typer.Argument(help="A CSV file.")],
    output: Output,
    batch_size: BatchSize,
    steps: Annotated[str | None, typer.Option("--steps", metavar="COL", help="Steps to the target.")] = None,
    examples: Annotated[str | None, typer.Option(metavar="COL", help="Or examples to the target.")] = None,
    epochs: Annotated[str | None, typer.Option(metavar="COL", help="Or epochs, with --train-size.")] = None,
    train_size: Annotated[int | None, typer.Option(min=1, help="Examples of an epoch.")] = None,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Rows were tuned already, as published tables are: no search is lucky.")
    ] = False,
    runs: Annotated[int | None, typer.Option(help="Trainings that each row sums up, with --low and --high.")] = None,
    low: Annotated[str | None, typer.Option(metavar="COL", help="The fewest steps of these.")] = None,
    high: Annotated[str | None, typer.Option(metavar="COL", help="The most.")] = None,
    mean: Annotated[bool, typer.Option("--mean", help="Steps are their mean, and not their median.")] = False,
    trial: Annotated[str | None, typer.Option(metavar="COL", help="What tells trials apart.")] = None,
    hyperparameter: Hyperparameters = None,
    group: Annotated[str | None, typer.Option(metavar="COL", help="One run for each value, under RUN/VALUE.")] = None,
    separator: Separator = ",",
) -> None:
    """Import steps to a target that are known already: one row a batch size, or a trial."""
    _tell(
        import_curve(
            path,
            output,
            batch_size=batch_size,
            steps=steps,
            examples=examples,
            epochs=epochs,
            train_size=train_size,
            tuned=tuned,
            runs=runs,
            low=low,
            high=high,
            mean=mean,
            trial=trial,
            hyperparameters=_pairs(hyperparameter),
            group=group,
            separator=separator,
        )
    )


@command.command("optuna")
def optuna(
    storage: Annotated[str, typer.Argument(help="An SQLite or journal file, or a storage address.")],
    output: Output,
    study: Annotated[str, typer.Option(help="The study's name.")],
    metric: Annotated[str, typer.Option(help="What its trials report, such as validation/error.")],
    batch_size: BatchSize = "batch_size",
    goal: Goals = None,
) -> None:
    """Import the intermediate values of an Optuna study."""
    _tell(import_optuna(storage, output, study=study, batch_size=batch_size, metric=metric, goals=goal or ()))


@command.command("wandb")
def wandb(
    project: Annotated[str, typer.Argument(help="ENTITY/PROJECT.")],
    output: Output,
    metric: Metrics,
    batch_size: BatchSize = "batch_size",
    hyperparameter: Hyperparameters = None,
    step: Annotated[str, typer.Option(metavar="KEY", help="What counts weight updates.")] = "_step",
    goal: Goals = None,
) -> None:
    """Import the runs of a Weights & Biases project."""
    _tell(
        import_wandb(
            project,
            output,
            batch_size=batch_size,
            metrics=_pairs(metric),
            hyperparameters=_pairs(hyperparameter),
            step=step,
            goals=goal or (),
        )
    )


@command.command("mlflow")
def mlflow(
    uri: Annotated[str, typer.Argument(help="A tracking address: server, database or folder mlruns.")],
    output: Output,
    experiment: Annotated[str, typer.Option(help="The experiment's name.")],
    metric: Metrics,
    batch_size: BatchSize = "batch_size",
    hyperparameter: Hyperparameters = None,
    goal: Goals = None,
) -> None:
    """Import the runs of an MLflow experiment."""
    _tell(
        import_mlflow(
            uri,
            output,
            experiment=experiment,
            batch_size=batch_size,
            metrics=_pairs(metric),
            hyperparameters=_pairs(hyperparameter),
            goals=goal or (),
        )
    )


@command.command("tensorboard")
def tensorboard(
    path: Annotated[Path, typer.Argument(help="A log folder with one folder a trial.")],
    output: Output,
    metric: Metrics,
    batch_size: Annotated[
        str, typer.Option("--batch-size", metavar="REGEX", help=r"Finds it in a folder's name, such as bs(\d+).")
    ],
    hyperparameter: Annotated[
        list[str] | None,
        typer.Option("--hyperparameter", metavar="NAME=REGEX", help="Finds one in a folder's name."),
    ] = None,
    goal: Goals = None,
) -> None:
    """Import TensorBoard event folders."""
    _tell(
        import_tensorboard(
            path,
            output,
            batch_size=batch_size,
            metrics=_pairs(metric),
            hyperparameters=_pairs(hyperparameter),
            goals=goal or (),
        )
    )


def _pairs(texts: Sequence[str] | None) -> dict[str, str]:
    pairs = {}
    for text in texts or ():
        name, equals, column = text.partition("=")
        if not equals or not name or not column:
            raise typer.BadParameter(f"give NAME=COL, such as validation/loss=val_loss; got {text!r}")
        if name in pairs:
            raise typer.BadParameter(f"{name} is given twice")
        pairs[name] = column
    return pairs


def _tell(made: Imported) -> None:

    for line in made.problems:
        say(f"note: {line}", stderr=True)
    say(f"{counted(made.trials, 'trial')} and {counted(made.measurements, 'measurement')}")
    for run in made.runs:
        say(str(run))
