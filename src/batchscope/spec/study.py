"""A study: workload x batch sizes x search space x goals x budget, read from a YAML file and checked as a whole."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from batchscope import user_file
from batchscope.amounts import number
from batchscope.errors import StudyError, WorkloadError
from batchscope.optim.table import may_take
from batchscope.spec import documents, metric_names, rate_text
from batchscope.spec.algorithm import Algorithm
from batchscope.spec.faults import explain
from batchscope.spec.goal import Goal
from batchscope.spec.space import OPTIMIZER, Choice, Frozen, Range, Space, Value

EDGE = 0.05  # the share of a range that is near its side
LARGEST_BATCH_SIZE = 2**24
MOST_BATCH_SIZES = 1000
MOST_TRIALS = 100_000

# Bounds that no study comes near, and beyond which counting evaluations and steps would not end.
MOST_STEPS = 2**53
MOST_EPOCHS = 1e9

Count = Annotated[int, Field(ge=1, le=MOST_STEPS)]
GoalText = Annotated[
    Goal,
    BeforeValidator(lambda raw: raw if isinstance(raw, Goal) else Goal.parse(str(raw))),
    PlainSerializer(str, return_type=str),
]


class Widen(Frozen):
    """Widening of a side of the space that the best point lies near."""

    edge: Annotated[float, Field(gt=0, lt=0.5)] = EDGE
    rounds: Annotated[int, Field(ge=0, le=20)] = 0


class Confirm(Frozen):
    """The best few points of each batch size trained again with new seeds: 0 seeds for none."""

    seeds: Annotated[int, Field(ge=0, le=1000)] = 5
    candidates: Annotated[int, Field(ge=1, le=1000)] = 4


def _by_name(raw: Any) -> Any:
    """A bare list of optimizers is one of which none has ranges of its own."""
    if isinstance(raw, list | tuple) and all(isinstance(name, str) for name in raw):
        return {name: {} for name in raw}
    return raw


class Search(Frozen):
    """How the space is searched, anew at every batch size.

    With ``optimizers`` trials take turns among them, and each has a space of its own: what ``space`` has is given to
    every optimizer that it means something to, and is empty then.
    """

    method: Literal["sobol", "halton", "random", "grid"] = "sobol"
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 20
    optimizers: Annotated[dict[str, Space], BeforeValidator(_by_name), Field(max_length=100)] = {}
    space: Space = {}
    widen: Widen = Widen()
    confirm: Confirm = Confirm()

    @model_validator(mode="after")
    def _shared_by_all(self) -> Search:
        if OPTIMIZER in self.space:
            raise ValueError(
                "space.optimizer: optimizers to choose from stand beside the space, each with ranges of its own: "
                "optimizers: {momentum: {learning_rate: ...}, adam: {learning_rate: ...}}"
            )
        if not self.optimizers and not self.space:
            raise ValueError("space: give a range for learning_rate at the least, such as {min: 1e-3, max: 1}")
        shared = {name: [one for one in self.optimizers if may_take(one, name)] for name in self.space}
        if self.optimizers:
            spaces = {
                optimizer: {
                    name: dimension
                    for name, dimension in (self.space | own).items()
                    if name in own or optimizer in shared[name] or not shared[name]
                }
                for optimizer, own in self.optimizers.items()
            }
            object.__setattr__(self, "optimizers", spaces)  # what is written has them resolved
            object.__setattr__(self, "space", {})
        return self

    @model_validator(mode="after")
    def _grid_is_its_own_count(self) -> Search:
        if self.method == "grid":
            for name, dimension in ((name, d) for space in self.spaces.values() for name, d in space.items()):
                if isinstance(dimension, Range) and dimension.points is None:
                    raise ValueError(f"space.{name}: a grid needs points: 9, say, or a list of values")
        if self.method == "grid" and self.count > MOST_TRIALS:
            raise ValueError(
                f"a grid may have {number(MOST_TRIALS)} points, this one has {number(self.count)}; give fewer values"
            )
        if self.method == "grid":
            if "trials" in self.model_fields_set and self.trials != self.count:
                raise ValueError(
                    f"a grid runs each of its points, here {self.count}, got trials: {self.trials}; remove trials"
                )
            object.__setattr__(self, "trials", self.count)  # what is written must be true
        return self

    @property
    def count(self) -> int:
        """Feasible trials wanted at every batch size; every point of a grid."""
        if self.method != "grid":
            return self.trials
        return sum(
            math.prod(len(d.values) if isinstance(d, Choice) else d.points or 1 for d in space.values())
            for space in self.spaces.values()
        )

    @property
    def spaces(self) -> dict[str, Space]:
        """The space of every optimizer; of the one that the algorithm names under ""."""
        return self.optimizers or {"": self.space}

    def with_spaces(self, spaces: dict[str, Space]) -> Search:
        """The same search of other spaces."""
        return self.model_copy(update={"optimizers": spaces} if self.optimizers else {"space": spaces[""]})


class Budget(Frozen):
    """The most that a trial is trained; exactly one of the three."""

    epochs: Annotated[float, Field(gt=0, le=MOST_EPOCHS)] | None = None
    steps: Count | None = None
    examples: Count | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = [name for name in ("epochs", "steps", "examples") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of epochs, steps, examples; got {', '.join(given) or 'none'}")
        return self

    def examples_at(self, batch_size: int, train_size: int | None) -> int:
        """Examples that a trial may see, not rounded to whole steps."""
        if self.steps is not None:
            return self.steps * batch_size
        if self.examples is not None:
            return self.examples
        if train_size is None:
            raise StudyError("a budget in epochs needs a training set of known size; write budget: {steps: 10000}, say")
        return math.ceil(float(self.epochs or 0) * train_size)


class Evaluation(Frozen):
    """When trials are evaluated: a geometric grid of steps, the same at every batch size.

    A sequential evaluation of a race takes only as many validation examples as it needs to see that a trial is out of
    reach of its goals. ``train_examples`` are those of the training data that loss and metrics are measured on too;
    without it, where a goal is on one of these, as many as there are validation examples, and none otherwise.
    """

    ratio: Annotated[float, Field(ge=1.0001, le=4)] = 1.05
    first: Count = 1
    sequential: bool = True
    train_examples: Count | None = None


class Engine(Frozen):
    """How trials are computed. ``auto`` is measured; a pinned value makes two runs comparable bit for bit.

    With ``bfloat16`` the operations of the model are in it where they bear it; parameters and updates are in float32.
    """

    program: Literal["auto", "loop", "traced", "compiled_loop", "vmap", "compiled"] = "auto"
    pack_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto"
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"


class Span(Frozen):
    """Batch sizes from, from x factor, ... up to to."""

    start: Annotated[int, Field(ge=1, le=LARGEST_BATCH_SIZE, alias="from")]
    stop: Annotated[int, Field(ge=1, le=LARGEST_BATCH_SIZE, alias="to")]
    factor: Annotated[float, Field(ge=1.01)] = 2.0

    @model_validator(mode="after")
    def _ordered(self) -> Span:
        if self.start > self.stop:
            raise ValueError(f"from must not exceed to, got from {self.start} and to {self.stop}")
        return self

    def sizes(self) -> list[int]:
        """The batch sizes, rounded to whole examples."""
        count = math.floor(math.log(self.stop / self.start) / math.log(self.factor) + 1e-9) + 1
        return [round(self.start * self.factor**i) for i in range(count)]


def _not_too_many(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if len(sizes) > MOST_BATCH_SIZES:
        raise ValueError(
            f"at most {number(MOST_BATCH_SIZES)} batch sizes, got {number(len(sizes))}; write a larger factor"
        )
    return sizes


if TYPE_CHECKING:
    BatchSizes = tuple[int, ...]  # what the value is; below, what a file may hold
else:
    _Size = Annotated[int, Field(ge=1, le=LARGEST_BATCH_SIZE)]
    BatchSizes = Annotated[
        Annotated[Span, Tag("span")] | Annotated[tuple[_Size, ...], Field(min_length=1), Tag("list")],
        Discriminator(lambda raw: "span" if isinstance(raw, Mapping | Span) else "list"),
        BeforeValidator(lambda raw: [raw] if isinstance(raw, int) else raw),
        AfterValidator(lambda sizes: tuple(sorted(set(sizes.sizes() if isinstance(sizes, Span) else sizes)))),
        AfterValidator(_not_too_many),
        PlainSerializer(list, return_type=list),
    ]


class Study(Frozen):
    """Everything that a run depends on."""

    workload: Annotated[str, Field(min_length=1, max_length=1000)]
    algorithm: Algorithm = Algorithm()
    batch_sizes: BatchSizes
    search: Search
    metrics: Annotated[tuple[str, ...], Field(max_length=100)] = ()
    goals: Annotated[tuple[GoalText, ...], Field(min_length=1, max_length=100)]
    budget: Budget
    policy: Literal["race", "full", "halving"] = "race"
    margin: Annotated[float, Field(ge=1, le=100)] = 1.5
    evaluation: Evaluation = Evaluation()
    keep: Literal["none", "best"] = "none"
    engine: Engine = Engine()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    if not TYPE_CHECKING:  # which knows the keys, and their types, from the fields

        def __init__(self, **document: Any) -> None:
            """Check keys and values as those of a study file; every fault is told at once, in a ``StudyError``."""
            try:
                super().__init__(**document)
            except ValidationError as error:
                raise StudyError(explain(error, type(self), "the study")) from None

        __init__.__pydantic_base_init__ = True  # a mapping is checked without it: its faults name their source

    @model_validator(mode="before")
    @classmethod
    def _rate_in_words(cls, document: Any) -> Any:
        return rate_text.in_keys(document)

    @field_validator("goals")
    @classmethod
    def _each_once(cls, goals: tuple[Goal, ...]) -> tuple[Goal, ...]:
        return tuple(dict.fromkeys(goals))

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return metric_names.checked(names)
        except WorkloadError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _space_fits_algorithm(self) -> Study:
        if self.search.optimizers:
            self._name_first_optimizer()
        for name, study in self.by_optimizer.items():
            study.algorithm.check_space(study.search.space, f"search.optimizers.{name}" if name else "search.space")
        return self

    def _name_first_optimizer(self) -> None:
        """So that a study that is written and read again is the same."""
        first, *others = self.search.optimizers
        if self.algorithm.optimizer not in (first, Algorithm.model_fields["optimizer"].default):
            raise StudyError(
                f"search.optimizers: the algorithm names {self.algorithm.optimizer} too; remove algorithm.optimizer"
            )
        if self.algorithm.changes_batch_size and others:
            raise StudyError(
                "search.optimizers: a batch schedule needs one optimizer, for all trials of a batch size change theirs "
                "at the same steps; name it under algorithm"
            )
        object.__setattr__(self, "algorithm", self.algorithm.with_optimizer(first))

    @property
    def by_optimizer(self) -> dict[str, Study]:
        """The study of every optimizer that is searched, with its algorithm and its space; else itself under ""."""
        return {name: self.of({OPTIMIZER: name}) for name in self.search.spaces}

    def of(self, point: Mapping[str, Value]) -> Study:
        """The study as far as it is about the optimizer of a trial's point."""
        name = str(point.get(OPTIMIZER, ""))
        if not self.search.optimizers:
            return self
        search = self.search.model_copy(update={"optimizers": {}, "space": self.search.optimizers[name]})
        return self.model_copy(update={"algorithm": self.algorithm.with_optimizer(name), "search": search})

    @property
    def files(self) -> tuple[str, ...]:
        """What its algorithms name as ``path/to/file.py:name``."""
        found = (file for study in self.by_optimizer.values() for file in study.algorithm.files)
        return tuple(dict.fromkeys(found))

    @property
    def needs_loop(self) -> str | None:
        """Why only the plain loop can train it; None where any program may."""
        reasons = (study.algorithm.needs_loop for study in self.by_optimizer.values())
        return next(filter(None, reasons), None)

    @property
    def ends_evaluations_early(self) -> bool:
        """Whether an evaluation takes no more validation examples than it needs: in a race, where the goals decide."""
        return self.policy == "race" and self.evaluation.sequential

    @property
    def measures_training(self) -> bool:
        """Whether evaluations measure training examples too: for a goal on these, or because the study says so."""
        return self.evaluation.train_examples is not None or any(goal.data == "train" for goal in self.goals)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Iterable[str] = ()) -> Study:
        """Read a study file, with ``key=value`` overrides such as ``search.trials=8``.

        Raises:
            StudyError: With every fault at once: its place, the rule, the value got, and what to type.
        """
        if Path(path).suffix == ".py":
            raise StudyError(
                f"{path} is a Python file, and a study is a YAML file that names its workload: give "
                f"{Path(path).with_suffix('.yaml')}, or write both anew with  batchscope init {shlex.quote(str(path))}"
            )
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise StudyError(f"no study file at {path}; give the path of a YAML file") from None
        except IsADirectoryError:
            inside = Path(path) / "study.yaml"
            instead = f"the study of that run is {inside}" if inside.is_file() else "give the path of a YAML file"
            raise StudyError(f"{path} is a folder, and a study is a YAML file: {instead}") from None
        except UnicodeDecodeError as error:
            raise StudyError(
                f"{path} is no text in UTF-8 (byte {error.start + 1} is {error.object[error.start]:#04x}), and a study "
                "is a YAML file: give another, or save it as UTF-8"
            ) from None
        except OSError as error:
            raise StudyError(f"cannot read the study file {path}: {error.strerror}; give another path") from None
        return cls.from_text(text, overrides, source=str(path))

    @classmethod
    def from_text(cls, text: str, overrides: Iterable[str] = (), source: str = "the study") -> Study:
        """Read a study from YAML text.

        Errors:
            StudyError: With every fault at once.
        """
        document = documents.load(text, source)
        for override in overrides:
            documents.override(document, override)
        return cls.from_mapping(document, source)

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any], source: str = "the study") -> Study:
        """Check a mapping of the form of a study file.

        Raises:
            StudyError: With every fault at once.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise StudyError(explain(error, cls, source)) from None

    def to_yaml(self) -> str:
        """The resolved study, every default written out; ``from_text`` gives the same study again."""
        document = self.model_dump(mode="json", exclude_none=True)
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        if any(character in text for character in "\x85\u2028\u2029"):  # line ends to YAML, which would fold them
            text = yaml.safe_dump(document, sort_keys=False)
        return text

    def context(self, workload_fingerprint: str) -> str:
        """What trial ids share: workload, algorithm, and whatever else changes the numbers of a trial."""
        evaluation = self.evaluation.model_dump(exclude_none=True)
        if self.measures_training:
            evaluation["measures"] = "training examples"
        what = [workload_fingerprint, self.algorithm.model_dump(mode="json"), evaluation]
        what.append(self.engine.dtype)
        if self.algorithm.depends_on_budget:
            what.append(self.budget.model_dump())
        what += [user_file.digest(reference) for reference in self.files]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
