"""Wrong input of every kind to every verb: an exit status as documented, one message that says what is wrong and what
to type, no traceback; and on a terminal of 40 columns nothing of it is cut or folded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from batchscope.cli.main import DONE, FAILED, MISUSE, VERBS, invoke
from cli import small_study

STUDY = small_study.text()
FILES: dict[str, str | bytes] = {
    "study.yaml": STUDY,
    "empty": "",
    "a file": "x",
    "binary": b"\xff\xfe\x00\x01" * 50,
    "text": "hello",
    "tab.yaml": "a:\n\t- b\n",
    "open.yaml": "workload: {a: [\n",
    "list.yaml": "- 1\n",
    "syntax.py": "def make(:\n",
    "imports.py": "import nothing_like_this\n",
    "other.py": "def other(): pass\n",
    "three.py": "def make(): return 3\n",
    "raises.py": 'def make():\n    raise RuntimeError("boom\\x1b[31m")\n',
    "exits.py": "import sys\nsys.exit(3)\n",
    "needs.py": "def make(x, y): pass\n",
    "deep.py": "def make(): return make()\n",
    "wide.py": """import torch, batchscope as bs
def model():
    return torch.nn.Linear(8, 10**9)
def make():
    data = torch.zeros(64, 8), torch.zeros(64, dtype=torch.long)
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    return bs.Workload(model=model, loss=loss, train=data, validation=data)
""",
    "nulls.py": b"\x00\x01",
    "deep.json": "[" * 100_000,
    "open.json": "[1",
    "empty.json": "{}",
    "log.csv": "b,s,loss\n8,1,0.5\n8,2,0.4\n",
    "head.csv": "b,s,loss\n",
    "words.csv": "b,s,loss\nx,y,z\n",
    "ragged.csv": "b,s,loss\n8,1\n8,1,2,3,4\n",
    "own/study.yaml": STUDY,
    "other things/readme": "x",
    os.fsdecode(b"caf\xe9.yaml"): f"{STUDY}bad: 1\n",
}
TO_RUN = ["run", "study.yaml", "-o", "new", "--workers", "0"]
LOG = ["import", "csv", "log.csv", "-o", "new", "--batch-size", "b", "--step", "s", "--metric", "validation/loss=loss"]
SCHEDULE = ["schedule", "--learning-rate", "0.1", "--epochs", "9", "--train-size", "500", "--batch-size", "8"]
PROBE = ["probe", "digits/softmax"]
BRANCH = ["branch", "digits/softmax", "--learning-rate", "0.1"]
GOAL = "validation/error < 0.1"
ADVICE = ["recommend", "run"]


def with_option(arguments: Sequence[str], *given: str) -> list[str]:
    """The arguments with an option in place of the one of the same name; without a value, without it."""
    kept = list(arguments)
    place = kept.index(given[0]) if given[0] in kept else len(kept)
    kept[place : place + 2] = given if len(given) > 1 else []
    return kept


STUDY_FILES = [
    ("none.yaml", "no study file at none.yaml; give the path of a YAML file"),
    ("empty", "empty must hold keys with values, such as 'workload: digits/softmax'; it holds nothing"),
    ("list.yaml", "it holds a list"),
    ("text", "it holds text"),
    ("tab.yaml", "tab.yaml, line 2, column 1: found character '\\t' that cannot start any token"),
    ("open.yaml", "open.yaml, line 2, column 1"),
    ("binary", "binary is no text in UTF-8 (byte 1 is 0xff), and a study is a YAML file"),
    ("a file", "it holds text"),
    ("own", "own is a folder, and a study is a YAML file: the study of that run is own/study.yaml"),
    ("other things", "other things is a folder, and a study is a YAML file: give the path of a YAML file"),
    ("three.py", "give three.yaml, or write both anew with  batchscope init three.py"),
    ("x" * 300, "File name too long; give another path"),
    ("evil\x1b[31m.yaml", "no study file at evil"),
    ("[bold].yaml", "no study file at [bold].yaml"),
    (os.fsdecode(b"caf\xe9.yaml"), "bad: unknown key; the keys here are algorithm, batch_sizes,"),
]
CHANGES = [
    ("serch.trials=3", "serch: unknown key; did you mean search?"),
    ("search.trials=-1", "search.trials: must be at least 1, got -1"),
    ("search.trials=true", "search.trials: true and false are no value here, got true"),
    ("search.trials=1e3", "search.trials: must be a whole number, got '1e3'"),
    ("search.trials=.inf", "search.trials: must be a finite number, got inf"),
    ("search.trials=10000000", "search.trials: must be at most 100000, got 10000000"),
    ("batch_sizes=[1000000000000]", "batch_sizes[0]: must be at most 16777216, got 1000000000000"),
    ("batch_sizes='4, 16'", "batch_sizes: must be a list such as [4, 16], got '4, 16'"),
    (
        "goals=validation/loss < 0.3",
        'goals: must be a list such as ["validation/loss < 0.3"], got',
    ),
    (
        'goals=["loss = 3"]',
        "goals[0]: cannot read the goal 'loss = 3': write a goal as METRIC < NUMBER or METRIC > NUMBER",
    ),
    ('goals=["valdation/loss < 1"]', "did you mean validation/loss? It measures validation/loss, train/loss"),
    ('goals=["validation/accuracy > 0.9"]', "add metrics: [accuracy] to the study. It measures validation/loss"),
    ("budget.epochs=3", "budget: give exactly one of epochs, steps, examples; got epochs, steps"),
    ("budget=5", "budget: must be a block of keys with values, got 5"),
    ("margin=.nan", "margin: must be a finite number, got nan"),
    ("seed=99999999999999999999", "seed: must be below 9223372036854775808"),
    ("policy=rase", "policy: must be race, full or halving, got 'rase'; did you mean race?"),
    ("engine.threads=0", "engine.threads: must be at least 1, got 0; or write auto"),
    ("engine.pack_size=atuo", "engine.pack_size: must be a whole number, got 'atuo'; or write auto"),
    ("algorithm.optimizer=adamm", "no optimizer is called 'adamm'; did you mean adam?"),
    ("search.space.learning_rate={min: 1, max: 0.1}", "min must be below max, got min 1 and max 0.1"),
    ("search.space.momentum={min: 0, max: 2}", "search.space.momentum must be in [0, 1), got 2.0"),
    ("workload=", "workload: has no value; give one, or remove the key"),
    ("workload=digit/softmax", "there is no workload 'digit/softmax'. Did you mean digits/softmax"),
    ("workload=syntax.py:make", "syntax.py, line 1: invalid syntax"),
    ("workload=imports.py:make", "imports.py, line 1: ModuleNotFoundError: No module named 'nothing_like_this'"),
    ("workload=other.py:make", "other.py has no function 'make'; it has other.py:other"),
    ("workload=other.py", "name the function of the workload file too: other.py:FUNCTION"),
    ("workload=three.py:make", "make() must return a batchscope.Workload, got int"),
    ("workload=raises.py:make", "raises.py, line 2: RuntimeError: boom"),
    (
        "workload=exits.py:make",
        'exits.py, line 2: SystemExit: 3; a script does its work under  if __name__ == "__main__":',
    ),
    ("workload=needs.py:make", "make() missing 2 required positional arguments"),
    ("workload=deep.py:make", "deep.py, line 1: RecursionError"),
    ("workload=nulls.py:make", "nulls.py: source code string cannot contain null bytes"),
    ("workload=no such.py:make", "batchscope init 'no such.py'"),
    ("workload=wide.py:make", "line 3: return torch.nn.Linear(8, 10**9)"),
    ("workload=digits/mlp-500000000", "fails: MemoryError: a tensor of 119 GiB where"),
    ("workload=noisy_quadratic/1000000000", "at most 1000000 dimensions, got 1000000000; write fewer"),
    ("nonsense", "an override is KEY=VALUE, for example search.trials=8, got 'nonsense'"),
    ("workload.a=3", "leads into workload, which is the value 'noisy_quadratic/8' and has no keys"),
]
ROWS: list[tuple[list[str], int, str]] = [
    *((with_option(["run", name], "--dry-run"), MISUSE, words) for name, words in STUDY_FILES),
    *(([*TO_RUN, change], MISUSE, words) for change, words in CHANGES),
    *(
        (["run", "study.yaml", "--dry-run", change], MISUSE, words)
        for change, words in [
            ("workload=wide.py:make", "wide.py, line 3"),
            ("batch_sizes={from: 1, to: 16777216, factor: 1.01}", "at most 1,000 batch sizes, got 1,308"),
        ]
    ),
    (
        [*TO_RUN, "workload=noisy_quadratic/1000000", "batch_sizes=[16777216]"],
        MISUSE,
        "TiB at batch size 16777216, and the limit is",
    ),
    # run: options and folders
    (with_option(TO_RUN, "--workers", "-1"), MISUSE, "Invalid value for '--workers'"),
    (with_option(TO_RUN, "--max-memory", "2 parsecs"), MISUSE, "write 8GiB, say"),
    (with_option(TO_RUN, "--max-memory", "9" * 400), MISUSE, "write 8GiB, say"),
    (with_option(TO_RUN, "--max-memory", "1"), MISUSE, "and the limit is 1 byte; type a smaller pack"),
    (with_option(TO_RUN, "--device", "tpu"), MISUSE, "write --device cpu or --device cuda"),
    (with_option(TO_RUN, "--replay-choices", "none"), FAILED, "none is no run folder: there is no such folder"),
    ([*TO_RUN, "workload=mnist/fc-8", "--data-dir", "not there"], FAILED, "mkdir -p 'not there'"),
    ([*TO_RUN, "workload=mnist/fc-8", "--data-dir", "a file"], FAILED, "got --data-dir a file: that is a file"),
    (with_option(TO_RUN, "-o", "a file"), FAILED, "a file is a file: choose another folder for the run"),
    (with_option(TO_RUN, "-o", "a file/x"), FAILED, "cannot make a file/x: Not a directory; choose another folder"),
    (with_option(TO_RUN, "-o", "other things"), FAILED, "other things is not empty and has no study.yaml"),
    (with_option(TO_RUN, "-o", "own"), FAILED, "run it into a folder that is not there yet: -o own/run".capitalize()),
    (
        [*with_option(TO_RUN, "-o", "run"), "algorithm.optimizer=momentum"],
        MISUSE,
        "batchscope run run/study.yaml -o run",
    ),
    # the readers of a run
    *(
        ([verb, folder, *(["--format", "csv"] if verb == "export" else [])], FAILED, words)
        for verb in ("status", "analyze", "report", "recommend", "export")
        for folder, words in [
            ("none", "none is no run folder: there is no such folder"),
            ("other things", "other things is no run folder: it has no study.yaml"),
            ("own", "own is no run folder: it has a study.yaml, but no provenance.json and no trials"),
            ("study.yaml", "study.yaml is a file: give the folder of a run"),
            ("\x1b[31mx", "[31mx is no run folder"),
            (os.fsdecode(b"\xff\xfe"), "is no run folder: there is no such folder"),
        ]
    ),
    (["analyze", "run", "--goal", "x"], MISUSE, "cannot read the goal 'x'"),
    (["analyze", "run", "--goal", "validation/loss < nan"], MISUSE, "a goal needs a finite threshold, got nan"),
    (["analyze", "run", "--goal", "valdation/loss < 1"], MISUSE, "did you mean validation/loss?"),
    ([*ADVICE, "--devices", "a"], MISUSE, "got 'a': --devices 1,2,4,8"),
    ([*ADVICE, "--devices", "0"], MISUSE, "a number of devices is at least 1, got [0]"),
    ([*ADVICE, "--devices", "2"], MISUSE, "batchscope probe WORKLOAD --json > probe.json, and add --probe probe.json"),
    ([*ADVICE, "--probe", "none.json"], FAILED, "batchscope probe WORKLOAD --json > none.json"),
    ([*ADVICE, "--probe", "empty.json"], FAILED, "empty.json is no probe: write one with batchscope probe WORKLOAD"),
    ([*ADVICE, "--probe", "open.json"], FAILED, "cannot read the probe open.json"),
    ([*ADVICE, "--probe", "deep.json"], FAILED, "cannot read the probe deep.json"),
    ([*ADVICE, "--probe", "binary"], FAILED, "cannot read the probe binary"),
    ([*ADVICE, "--probe", "own"], FAILED, "own is a folder: give the file that batchscope probe has written"),
    ([*ADVICE, "--price", "nan"], MISUSE, "a price is at least 0, got nan: --price 2.5, say"),
    ([*ADVICE, "--deadline", "soon"], MISUSE, "write 45s, 90m, 2h, 1h30m or 3d"),
    ([*ADVICE, "--batch-sizes", "64"], MISUSE, "add --extrapolate to take what the fitted law says"),
    ([*ADVICE, "--snippet", "rust"], MISUSE, "a snippet is yaml or pytorch, got 'rust'"),
    (["report", "run", "--devices", "x"], MISUSE, "got 'x': --devices 1,2,4,8"),
    # export and import
    (["export", "run", "--format", "xml"], MISUSE, "'xml' is not one of 'csv', 'parquet', 'batch-science'"),
    (
        ["export", "run", "--format", "csv", "-o", "a file"],
        FAILED,
        "a file exists already: choose another folder with -o",
    ),
    (["import", "cvs", "log.csv", "-o", "new"], MISUSE, "Did you mean 'csv'?"),
    (LOG[:5], MISUSE, "give --batch-size COL, --step COL and --metric NAME=COL"),
    *(
        ([*LOG[:2], name, *LOG[3:]], FAILED, words)
        for name, words in [
            ("none.csv", "there is no file none.csv"),
            ("empty", "cannot read empty as CSV"),
            ("head.csv", "head.csv holds nothing that can be used: no rows"),
            ("words.csv", "whose batch size is no whole number of at least 1"),
            ("ragged.csv", "cannot read ragged.csv as CSV"),
            ("other things", "other things lacks study.yaml: give a folder that batchscope export has written"),
        ]
    ),
    ([*LOG[:2], "binary", *LOG[3:]], MISUSE, "binary has no column 'b'"),
    (
        with_option(LOG, "--batch-size", "B"),
        MISUSE,
        "log.csv has no column 'B'; did you mean 'b'? It has 'b', 's', 'loss'",
    ),
    (with_option(LOG, "--metric", "loss"), MISUSE, "give NAME=COL, such as validation/loss=val_loss; got 'loss'"),
    (with_option(LOG, "--separator", ";;"), MISUSE, "a separator is one character, got ';;'"),
    (with_option(LOG, "-o", "other things"), FAILED, "other things exists already: choose another folder"),
    (["import", "batch-science", "none", "-o", "new"], FAILED, "there is no folder none"),
    # branch, predict
    (BRANCH[:-2], MISUSE, "give --learning-rate 0.1, say, or a study, or a run"),
    (["branch", "digits/sofmax", *BRANCH[2:]], MISUSE, "Did you mean digits/softmax"),
    ([*BRANCH, "--at", "early"], MISUSE, "--at is a list of shares of the training such as 0.1,0.3,0.6, got 'early'"),
    ([*BRANCH, "--window", "nan"], MISUSE, "a share of the training between 0 and 1, got nan"),
    ([*BRANCH, "--steps", "9", "--epochs", "1"], MISUSE, "in --epochs or in --steps, not in both"),
    (["branch", "study.yaml"], MISUSE, "choose one with --batch-size"),
    (["branch", "study.yaml", "--momentum", "0.9"], MISUSE, "the study says it: leave out --momentum"),
    (["branch", "none.yaml"], MISUSE, "no study file at none.yaml"),
    (["predict", "digits/softmax"], MISUSE, "give --goal"),
    (["predict", "digits/softmax", "--goal", "error < 1"], MISUSE, "cannot read the goal 'error < 1'"),
    (["predict", "digits/softmax", "--goal", GOAL, "-o", "own"], MISUSE, "--output: own is a folder"),
    (["recommend", "--from-prediction", "none.json"], FAILED, "write one with batchscope predict WORKLOAD"),
    (["recommend", "--from-prediction", "empty.json"], FAILED, "is no prediction"),
    # probe, schedule, init, workloads, and no verb at all
    (["probe", "digits/sofmax"], MISUSE, "Did you mean digits/softmax"),
    ([*PROBE, "--batch-sizes", "x"], MISUSE, "from:to:factor as 1:4096:2, got 'x'"),
    ([*PROBE, "--batch-sizes", "999999999999"], MISUSE, "batch sizes must be whole numbers from 1 to 16,777,216"),
    ([*PROBE, "--batch-sizes", "1:100:1.000001"], MISUSE, "factor: must be at least 1.01, got 1.000001"),
    ([*PROBE, "--seconds", "nan"], MISUSE, "seconds must be above 0, got nan"),
    ([*PROBE, "--output", "own"], MISUSE, "--output: own is a folder; name a file, such as own/probe.json"),
    (with_option(SCHEDULE, "--epochs", "nan"), MISUSE, "epochs must be > 0, got nan"),
    (with_option(SCHEDULE, "--train-size", "0"), MISUSE, "train_size must be at least 1, got 0"),
    (with_option(SCHEDULE, "--learning-rate", "0.1, 0.2"), MISUSE, "after the first rate comes @epoch"),
    (with_option(SCHEDULE, "--format", "x"), MISUSE, "--format is megatron, olmo or lightning, got 'x'"),
    (with_option(SCHEDULE, "--epochs"), MISUSE, "Missing option '--epochs'"),
    (["init", ""], MISUSE, "write my_workload.py"),
    (["init", "x.txt"], MISUSE, "a workload is a Python file, got 'x.txt'; write x.py"),
    (["init", "a\nb.py"], MISUSE, "write ab.py"),
    (["init", "a file/x.py"], MISUSE, "cannot make the folder a file"),
    (["init", "three.py"], MISUSE, "three.py is there already; give another name, or remove it"),
    (["workloads", "digits"], MISUSE, "unexpected extra argument"),
    (["rnu", "study.yaml"], MISUSE, "No such command 'rnu'. Did you mean 'run'?"),
]


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert invoke(["run", str(folder / "study.yaml"), "-o", str(folder / "run"), "--workers", "0"]) == DONE
    return folder


@pytest.mark.parametrize(("arguments", "status", "words"), ROWS, ids=lambda value: ascii(value)[:60])
def test_what_is_wrong_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, words: str
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "40")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    before = sorted(place.rglob("*"))
    assert invoke(arguments) == status, err.getvalue()
    said = err.getvalue()
    assert words in said
    assert "Traceback" not in said and "fault of Batchscope" not in said and "[Errno" not in said
    assert not {"\x1b[31m", "\u2026"} & {said, *said.split()} and "\x1b[31m" not in said
    assert out.getvalue() == ""
    assert sorted(place.rglob("*")) == before


def test_every_verb_is_among_them() -> None:
    assert {arguments[0] for arguments, *_ in ROWS} >= set(VERBS)
