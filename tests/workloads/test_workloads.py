"""Every built-in workload x every check, the user's file, and what is said of names that are wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from batchscope import workloads
from batchscope.errors import DataError, WorkloadError
from batchscope.models import FullyConnected, SimpleCNN
from batchscope.seeds import torch_generator
from batchscope.spec.examples import as_tensors
from batchscope.spec.goal import Goal
from batchscope.spec.workload import Stream, Workload, _sample

NAMES = [
    "digits/softmax",
    "digits/mlp-32",
    "digits/mlp-16-8-dropout",
    pytest.param("mnist/fc-32", marks=pytest.mark.data),
    pytest.param("mnist/simple-cnn-narrow", marks=pytest.mark.data),
    pytest.param("fashion_mnist/fc-32-dropout", marks=pytest.mark.data),
    pytest.param("fashion_mnist/simple-cnn-narrow-dropout", marks=pytest.mark.data),
    pytest.param("tinyshakespeare/char-transformer-1x32", marks=pytest.mark.data),
    pytest.param("tinyshakespeare/char-lstm-1x32", marks=pytest.mark.data),
    "noisy_quadratic/10",
]


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path | None:
    """The data folder, for the tests marked as in need of it."""
    if request.node.get_closest_marker("data"):
        path: Path = request.getfixturevalue("data_dir")
        return path
    return None


def some(workload: Workload, count: int = 64) -> tuple[Tensor, Tensor]:
    if isinstance(workload.train, Stream):
        inputs, targets = workload.train.draw(torch_generator("some"), count)
    else:
        assert isinstance(workload.train, tuple)
        inputs, targets = (part[:count] for part in workload.train)
    assert isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    return inputs, targets


@pytest.mark.parametrize("name", NAMES)
def test_every_workload_is_loaded_the_same_twice_trains_and_is_judged_per_example(
    name: str, folder: Path | None
) -> None:
    workload = workloads.load(name, folder)
    assert workload.name == name and workload.fingerprint() == workloads.load(name, folder).fingerprint()
    torch.manual_seed(0)
    model = workload.model()
    inputs, targets = some(workload)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = workload.loss(model(inputs), targets)
        assert loss.shape == (64,)
        optimizer.zero_grad()
        loss.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.mean().item())
    assert losses[-1] < 0.95 * losses[0]
    held_out, labels = (part[:64] for part in as_tensors(workload.validation))  # type: ignore[index]
    outputs = model.eval()(held_out)
    for metric in workload.metrics.values():
        wrong = (outputs.argmax(-1) != labels).float().view(64, -1)  # of one class, or of every token
        torch.testing.assert_close(metric(outputs, labels), wrong.mean(1))


def test_names_say_the_model() -> None:
    plain = workloads.load("digits/mlp-24-12").model()
    dropped = workloads.load("digits/mlp-24-dropout").model()
    assert isinstance(plain, FullyConnected) and isinstance(dropped, FullyConnected)
    sizes = [module.out_features for module in plain.modules() if isinstance(module, torch.nn.Linear)]
    assert sizes == [24, 12, 10]
    rates = [module.p for module in dropped.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates == [0.4]


@pytest.mark.data
def test_simple_cnn_size_is_read_from_the_name(data_dir: Path) -> None:
    wide = workloads.load("mnist/simple-cnn-wide", data_dir).model()
    assert isinstance(wide, SimpleCNN)
    assert [m.out_channels for m in wide.modules() if isinstance(m, torch.nn.Conv2d)] == [64, 128]


def test_the_list_names_examples_that_exist_and_goals_that_parse() -> None:
    listed = workloads.names()
    assert len({row.pattern for row in listed}) == len(listed) == len(workloads.WORKLOADS)
    for row in listed:
        family, _ = workloads.registry.find(row.example)
        assert family.pattern == row.pattern
        assert row.description and row.goals
        for goal in row.goals:
            assert str(Goal.parse(goal)) == goal
    for row in listed:
        if row.example.startswith(("digits", "noisy")):
            columns = workloads.load(row.example).metric_names
            assert all(Goal.parse(goal).metric in columns for goal in row.goals)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("fashon_mnist/fc-256", "fashion_mnist/fc-256 "),
        ("digits/soft-max", "digits/softmax"),
        ("digits/mlp", "digits/mlp-32"),
        ("digits/mlp-0", "digits/mlp-N1-..."),
        ("mnist/simple-cnn", "mnist/simple-cnn-(narrow|base|wide)"),
        ("noisy_quadratic", "noisy_quadratic/100 (noisy_quadratic/D)"),
        ("noisy_quadratic/0", "noisy_quadratic/100"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(WorkloadError, match=re.escape(nearest)) as caught:
        workloads.load(name)
    assert repr(name) in str(caught.value)
    assert "batchscope workloads" in str(caught.value)


def test_a_name_like_nothing_is_told_where_to_search() -> None:
    with pytest.raises(WorkloadError, match=r"path/to/file\.py:function") as caught:
        workloads.load("xyz")
    assert "Did you mean" not in str(caught.value)


def test_missing_data_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "mnist" / f"{part}-ubyte.gz").write_bytes(b"cut short")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        workloads.load("mnist/fc-8", tmp_path)


# A user's file


GOOD = """
import torch
from batchscope.spec.workload import Workload
DATA = torch.arange(8.0).reshape(8, 1), torch.zeros(8)
def make():
    return Workload(lambda: torch.nn.Linear(1, 1), lambda o, t: (o[:, 0] - t) ** 2, DATA, DATA)
"""


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_template_loads_trains_and_reaches_a_goal(tmp_path: Path) -> None:
    text = workloads.template()
    workload = workloads.load(f"{write(tmp_path, text)}:make")
    assert workload.name == "mine.py:make"
    torch.manual_seed(0)
    model = workload.model()
    assert isinstance(workload.train, tuple) and isinstance(workload.validation, tuple)
    inputs, targets = workload.train
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(300):
        rows = torch.arange(step * 64, step * 64 + 64) % len(targets)
        optimizer.zero_grad()
        workload.loss(model(inputs[rows]), targets[rows]).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    error = workload.metrics["error"](model(workload.validation[0]), workload.validation[1])
    assert error.mean() < 0.08


def test_template_is_as_documented() -> None:
    """What a reader copies: one function per example value, and the goal it names parses."""
    text = workloads.template()
    assert "def make()" in text
    goal = re.search(r'"(validation/error < [0-9.]+)"', text)
    assert goal and Goal.parse(goal[1]).metric == "validation/error"


def test_a_users_file_gives_its_workload(tmp_path: Path) -> None:
    workload = workloads.load(f"{write(tmp_path, GOOD)}:make")
    assert workload.train_size == 8
    assert workload.name == "mine.py:make"


@pytest.mark.parametrize(
    ("edited", "same"),
    [
        (GOOD, True),
        (GOOD.replace(", DATA, DATA)", ", DATA,   DATA)  # twice"), True),
        (f'"""A docstring."""\n\n{GOOD}\n\n# the end', True),
        (GOOD.replace("def make():\n", 'def make():\n    """A docstring\n    of two lines."""\n\n'), True),
        (GOOD.replace("** 2", "** 4"), False),
        (f"{GOOD}\nEPOCHS = 'ten'\n", False),
    ],
)
def test_a_file_with_other_code_is_another_workload(edited: str, same: bool, tmp_path: Path) -> None:
    reference = f"{write(tmp_path, GOOD)}:make"
    before = workloads.load(reference).fingerprint()
    write(tmp_path, edited)
    assert (workloads.load(reference).fingerprint() == before) is same


def test_a_stated_version_and_name_are_kept(tmp_path: Path) -> None:
    text = GOOD.replace("DATA, DATA)", "DATA, DATA, name='n', version='v')")
    workload = workloads.load(f"{write(tmp_path, text)}:make")
    assert (workload.name, workload.version) == ("n", "v")


def test_a_function_that_asks_gets_the_data_folder(tmp_path: Path) -> None:
    text = GOOD.replace("make()", "make(data_dir)").replace("DATA, DATA)", "DATA, DATA, name=str(data_dir))")
    reference = f"{write(tmp_path, text)}:make"
    assert workloads.load(reference, "/some/where").name == "/some/where"


def test_a_file_imports_its_neighbour_and_leaves_the_path_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, "ANSWER = 'from the neighbour'", "neighbour_of_mine.py")
    named = GOOD.replace("DATA, DATA)", "DATA, DATA, name=neighbour_of_mine.ANSWER)")
    reference = f"{write(tmp_path, 'import neighbour_of_mine' + named)}:make"
    before = list(sys.path)
    assert workloads.load(reference).name == "from the neighbour"
    assert sys.path == before


def test_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    references = []
    for name in ("a", "b", "torch"):
        (tmp_path / name).mkdir()
        text = GOOD.replace("DATA, DATA)", f"DATA, DATA, name={name!r})")
        references.append(f"{write(tmp_path / name, text, 'random.py')}:make")
    assert [workloads.load(reference).name for reference in references] == ["a", "b", "torch"]
    assert not hasattr(sys.modules["random"], "make")


def test_classes_of_the_file_can_be_pickled_and_be_dataclasses(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nimport pickle\nfrom dataclasses import dataclass\n@dataclass\n"
        "class C:\n    x: int = 1\n"
        + GOOD.replace("return", "assert pickle.loads(pickle.dumps(C())) == C()\n    return")
    )
    assert workloads.load(f"{write(tmp_path, text)}:make").train_size == 8


@pytest.mark.parametrize(
    ("text", "function", "message"),
    [
        (GOOD, "mak", r"has no function 'mak'; it has mine\.py:make"),
        ("x = 1", "make", r"has no function 'make'; it has no function at all"),
        (GOOD, "DATA", r"has 'DATA', which is no function; it has mine\.py:make"),
        ("def make():\n    return 3", "make", r"must return a batchscope\.Workload, got int"),
        ("def make():\n    x = 1\n    return x / 0", "make", r"make\(\) failed: .*py, line 3: ZeroDivision"),
        ("import nothing_like_it", "make", r"cannot be imported: .*mine\.py, line 1: ModuleNotFoundError"),
        ("def make(:\n", "make", r"cannot be imported: .*mine\.py, line 1: "),
        ("def make(x):\n    return x", "make", r"make\(\) failed: .*mine\.py: TypeError: .*'x'"),
    ],
    ids=["no such", "none", "no function", "no workload", "fails", "no import", "syntax", "argument"],
)
def test_a_users_mistake_is_named_with_its_line(tmp_path: Path, text: str, function: str, message: str) -> None:
    path = write(tmp_path, text)
    modules = set(sys.modules)
    with pytest.raises(WorkloadError, match=message) as caught:
        workloads.load(f"{path}:{function}")
    assert path in str(caught.value)
    if "cannot be imported" in message:
        assert set(sys.modules) == modules


def test_our_own_errors_pass_through_a_users_function(tmp_path: Path) -> None:
    text = "from batchscope.errors import DataError\ndef make():\n    raise DataError('no such shard')"
    with pytest.raises(DataError, match="^no such shard$"):
        workloads.load(f"{write(tmp_path, text)}:make")


def test_a_file_that_is_not_there_and_a_function_that_is_not_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent.py"
    with pytest.raises(WorkloadError, match=rf"no workload file {absent}(.|\n)*batchscope init"):
        workloads.load(f"{absent}:make")
    with pytest.raises(WorkloadError, match=re.escape(f"{absent}:FUNCTION")):
        workloads.load(str(absent))


def test_listing_reads_no_data_and_no_scikit_learn() -> None:
    code = "import sys; from batchscope import workloads; workloads.names(); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_fingerprint_of_more_examples_than_float32_counts() -> None:
    """2**25 - 1, the last of so many examples, is 2**25 in float32."""
    many = torch.zeros(()).expand(2**25)
    assert _sample(many) == bytes(4 * 256)
