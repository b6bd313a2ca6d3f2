"""``batchscope init``: a workload file to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
import yaml

from batchscope.cli.show import say
from batchscope.errors import WorkloadError
from batchscope.workloads import template

STUDY = """\
# What is measured: how many steps each batch size needs to reach the goals, everything tuned anew at each.
workload: {workload}
algorithm: {{optimizer: nesterov, learning_rate_schedule: constant}}
batch_sizes: {{from: 4, to: 512, factor: 2}}
search:
  trials: 32                       # feasible ones, at every batch size
  space:
    learning_rate: {{min: 0.01, max: 1, scale: log}}
    momentum: 0.9                  # one value, or a range such as {{min: 0.5, max: 0.99, scale: reverse_log}}
goals: ["validation/error < 0.1"]
budget: {{epochs: 30}}               # the most that a trial is trained
"""


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The Python file to write, such as my_workload.py.")],
) -> None:
    """Write a commented workload that runs as it is, and a study beside it."""
    if file.suffix != ".py" or not str(file).isprintable():
        stem = "".join(filter(str.isprintable, file.stem)) or "my_workload"
        raise WorkloadError(f"a workload is a Python file, got {str(file)!r}; write {file.parent / stem}.py")
    study = file.with_suffix(".yaml")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkloadError(f"cannot make the folder {file.parent}: {error.strerror}; give another") from None
    for path, text in ((file, template()), (study, STUDY.format(workload=_scalar(f"{file}:make")))):
        try:
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except FileExistsError:
            raise WorkloadError(f"{path} is there already; give another name, or remove it") from None
        except OSError as error:
            raise WorkloadError(f"cannot write {path}: {error.strerror}; give another folder") from None
        say(f"wrote {path}")
    say(f"run it with: batchscope run {shlex.quote(str(study))}")


def _scalar(text: str) -> str:
    """Text as a value of YAML: in quotes where it needs them."""
    return yaml.safe_dump(text, width=10**6, allow_unicode=True).splitlines()[0]
