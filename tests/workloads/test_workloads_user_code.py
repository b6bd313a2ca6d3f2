"""A mistake in the user's model, loss, metric or data is told in two lines, with their file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.cli.main import MISUSE, invoke
from batchscope.workloads import in_words

WORKLOADS = """\
import torch
from torch import nn
from torch.nn import functional as F
import batchscope as bs

inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
labels = (inputs[:, 0] > 0).long()

class KeywordOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, *, x):
        return self.layer(x)

class TooNarrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(7, 2)

    def forward(self, x):
        return self.layer(x)  # wrong shape

class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        if index == 50:
            raise KeyError("no such image")
        return inputs[index], labels[index]

class Pairs(Broken):
    def __getitem__(self, index):
        return inputs[index], labels[index]

def net():
    return nn.Linear(8, 2)

def loss(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")

def error(outputs, targets):
    return (outputs.argmax(-1) != targets).float()

def raises(*arguments):
    raise ValueError("my code is broken")

def out_of_bounds(outputs, targets):
    return outputs[:, 7]

def made(**other):
    usual = dict(model=net, loss=loss, train=(inputs, labels), validation=(inputs, labels), metrics={"error": error})
    return bs.Workload(**(usual | other))

def shape(): return made(model=TooNarrow)
def shape_in_torch(): return made(model=lambda: nn.Sequential(nn.Linear(7, 4), nn.Linear(4, 2)))
def keyword_only(): return made(model=KeywordOnly)
def module(): return made(model=net())
def lazy(): return made(model=lambda: nn.LazyLinear(2))
def complex_weights(): return made(model=lambda: nn.Linear(8, 2, dtype=torch.complex64))
def nothing(): return made(model=lambda: None)
def model_raises(): return made(model=raises)
def loss_raises(): return made(loss=raises)
def loss_class(): return made(loss=nn.CrossEntropyLoss)
def integer_loss(): return made(loss=lambda outputs, targets: (outputs.argmax(-1) != targets).long())
def constant_loss(): return made(loss=lambda outputs, targets: torch.ones(len(targets)))
def float_labels(): return made(train=(inputs, labels.float()), validation=(inputs, labels.float()))
def metric_raises(): return made(metrics={"error": out_of_bounds})
def dataset(): return made(train=Broken())
def loader(): return made(train=torch.utils.data.DataLoader(Broken(), num_workers=1))
def collate(): return made(train=torch.utils.data.DataLoader(Pairs(), collate_fn=raises))
def wide(): return made(model=lambda: nn.Sequential(nn.Linear(8, 10**12), nn.Linear(10**12, 2)))
def wider(): return made(model=lambda: nn.Linear(8, 10**19))
def dictionary(): return made(train=({"pixels": inputs}, labels), validation=({"pixels": inputs}, labels))
def arrays(): return made(train=(inputs.numpy(), labels.numpy()))
def no_workload(): pass
def missing_import(): return made(model=lambda: torchvision.models.resnet18())
"""
LINES = {line.strip(): number for number, line in enumerate(WORKLOADS.splitlines(), 1)}
IN_USER_CODE = {
    "shape": ("(4x8 and 7x2); a layer's size is not that of its inputs", "return self.layer(x)  # wrong shape"),
    "model_raises": ("ValueError: my code is broken", 'raise ValueError("my code is broken")'),
    "loss_raises": ("ValueError: my code is broken", 'raise ValueError("my code is broken")'),
    "metric_raises": ("IndexError: index 7 is out of bounds", "return outputs[:, 7]"),
    "dataset": ("KeyError: 'no such image'", 'raise KeyError("no such image")'),
    "loader": ("KeyError: 'no such image'", 'raise KeyError("no such image")'),
    "collate": ("ValueError: my code is broken", 'raise ValueError("my code is broken")'),
    "float_labels": ("expected target", 'return F.cross_entropy(outputs, targets, reduction="none")'),
    "missing_import": ("name 'torchvision' is not defined", "def missing_import(): return made("),
    "wide": ("is larger than the memory", "def wide(): return made("),
    "wider": ("is larger than any memory", "def wider(): return made("),
}
ELSEWHERE = {
    "shape_in_torch": "see the model and the loss of",
    "keyword_only": 'give inputs as a dict: ({"x": ...}, targets)',
    "module": "got one Linear: every trial begins with weights of its own; write  def build(): return Linear(...)",
    "nothing": "model() must return a torch.nn.Module, got NoneType",
    "lazy": "the parameter weight has no shape before the first call of its lazy module: call the model once",
    "complex_weights": "the parameter weight is torch.complex64, and optimizers here update real numbers: keep it as",
    "loss_class": "loss must be a function (outputs, targets), got the class CrossEntropyLoss",
    "integer_loss": "the loss must give floating-point values",
    "constant_loss": "the loss must come from the model's outputs",
    "dictionary": "inputs that are a dict are given by keyword where forward has parameters of their names",
    "arrays": "got ndarray; write torch.as_tensor(...)",
    "no_workload": "no_workload() must return a batchscope.Workload, got NoneType",
}
STUDY = """\
workload: mine.py:net
batch_sizes: [4]
search: {trials: 1, space: {learning_rate: 0.1, momentum: 0.5}}
goals: ["validation/error < 0.3"]
budget: {steps: 4}
engine: {program: loop}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(WORKLOADS)
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that is refused says after its name, in two lines at the most."""
    assert invoke(list(arguments)) == MISUSE
    printed = capsys.readouterr().err
    assert "Traceback" not in printed and "fault of Batchscope" not in printed
    message = printed[printed.index("batchscope: ") :].strip()
    assert len(message.splitlines()) <= 2, message
    return message


def place(file: Path, start: str) -> str:
    """The file and the number of the line that starts so."""
    number = next(number for line, number in LINES.items() if line.startswith(start))
    return f"at {file}, line {number}: {start}"


@pytest.mark.parametrize("name", IN_USER_CODE)
def test_a_mistake_is_told_with_the_users_line(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, "run", "study.yaml", f"workload=mine.py:{name}", "--workers", "0")
    rule, start = IN_USER_CODE[name]
    assert rule in message and place(here / "mine.py", start) in message and f"mine.py:{name} fails" in message


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_mistake_without_a_line_says_what_to_write(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ELSEWHERE[name] in said(capsys, "run", "study.yaml", f"workload=mine.py:{name}", "--workers", "0")


@pytest.mark.slow
def test_a_worker_says_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, "run", "study.yaml", "workload=mine.py:metric_raises", "--workers", "1")
    assert place(here / "mine.py", "return outputs[:, 7]") in message


def test_a_dry_run_says_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, "run", "study.yaml", "workload=mine.py:loss_raises", "--dry-run")
    assert place(here / "mine.py", 'raise ValueError("my code is broken")') in message


@pytest.mark.slow
def test_a_probe_names_the_line_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probe = ("probe", "mine.py:loss_raises", "--batch-sizes", "2", "--seconds", "0.01")
    assert invoke(list(probe)) == 1
    assert place(here / "mine.py", 'raise ValueError("my code is broken")') in capsys.readouterr().err


def test_a_fault_of_ours_stays_ours() -> None:
    try:
        "".join([1])  # type: ignore[list-item]
    except TypeError as error:
        assert in_words(error.with_traceback(None), "mine.py:make") is None
