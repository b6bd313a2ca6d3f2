"""What the trials at one batch size share, and the arithmetic of one training step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from batchscope.engine.batches import Batches, placed, train_sample
from batchscope.engine.reading import Reader
from batchscope.errors import WorkloadError
from batchscope.hutchinson import signs
from batchscope.nn import convert_ghost_batch_norm
from batchscope.optim import RULES, Rule
from batchscope.optim.average import averaged
from batchscope.optim.users_own import UserOptimizer, moved_already
from batchscope.plan.timeline import Timeline
from batchscope.schedules import BatchSchedule, SmallLossDiscard
from batchscope.seeds import seeded, torch_generator
from batchscope.spec.algorithm import Algorithm
from batchscope.spec.examples import as_tensors
from batchscope.spec.space import OPTIMIZER, Choice, Value
from batchscope.spec.study import Study
from batchscope.spec.trial import Trial
from batchscope.spec.workload import PerExample, Workload
from batchscope.tensors import Pair, Tree, leaves, map_pair, size_of

# Of data, parameters and updates. The operations of the model are in bfloat16 where the study asks for it.
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}
_SINGLE = torch.finfo(torch.float32).bits


# Of an algorithm: numbers that cost something wherever they are used at all.
OPTIONAL = ("clip_gradient_norm", "average_weights")


def in_random_order(examples: Pair, seed: int) -> Pair:
    """So that the first examples are a random sample of all of them, whatever the order that they came in."""
    order = torch.randperm(size_of(examples), generator=torch_generator(seed, "validation"))
    order = order.to(next(leaves(examples)).device)
    return map_pair(lambda tensor: tensor.index_select(0, order), examples)


class Loaded:
    """A workload with its data placed on a device, once for all batch sizes."""

    def __init__(
        self,
        workload: Workload,
        study: Study,
        device: torch.device,
        *,
        ordered: bool = False,
        drawn_at_once: int | None = None,
    ) -> None:
        """Place the data; a model function that does not return a module is a ``WorkloadError`` later.

        Args:
            workload: What is trained.
            study: How.
            device: Where.
            ordered: Whether the validation examples are in random order already, as ``in_random_order`` makes it.
            drawn_at_once: Of a stream, examples, as ``Batches`` takes it.
        """
        workload = workload.measuring(study.metrics)
        self.workload, self.study, self.device = workload, study, device
        self._drawn_at_once = drawn_at_once
        self.algorithm: Algorithm = study.algorithm
        self.dtype = DTYPES[study.engine.dtype]
        validation = placed(as_tensors(workload.validation, workload.target), self.dtype, device)
        self.validation: Pair = validation if ordered else in_random_order(validation, study.seed)
        self.test: Pair | None = None
        if workload.test is not None:
            test = placed(as_tensors(workload.test, workload.target), self.dtype, device)
            self.test = in_random_order(test, study.seed)
        self._batches: dict[int, Batches] = {}
        self._reader = Reader.of(workload)
        self.train_sample = self._train_sample()
        # An evaluation is the same at every batch size: its graphs are shared.
        self.graphs: dict[tuple[object, ...], Callable[..., Any]] = {}
        self._of: dict[str, Loaded] = {}

    def of(self, optimizer: str) -> Loaded:
        """The same data and workload, with the study of one of the optimizers that are searched; "" for no choice."""
        if not optimizer:
            return self
        if optimizer not in self._of:
            own = copy.copy(self)
            own.study = self.study.of({OPTIMIZER: optimizer})
            own.algorithm = own.study.algorithm
            self._of[optimizer] = own
        return self._of[optimizer]

    @property
    def needs_loop(self) -> str | None:
        """Why only the plain loop can train it; None where any program may."""
        return self.workload.needs_loop or self.study.needs_loop

    @cached_property
    def users_optimizer(self) -> UserOptimizer | None:
        """The class of the user's that updates the weights, watched in its first steps; None for a rule of the table.

        One that cannot be used as the study says is a ``StudyError``.
        """
        if not self.algorithm.users_optimizer:
            return None
        parameters = {name: value for name, value in self.module().named_parameters() if value.requires_grad}
        return UserOptimizer.watched(self.algorithm.optimizer, parameters, points_of(self.study))

    def batches(self, replicate: int) -> Batches:
        """The stream of training examples of a replicate."""
        if replicate not in self._batches:
            given = self.workload, self.study.seed, replicate, self.dtype, self.device
            self._batches[replicate] = Batches(*given, self._reader, drawn_at_once=self._drawn_at_once)
        return self._batches[replicate]

    def _train_sample(self) -> Pair | None:
        """Training examples that evaluations measure too; None where the study wants none."""
        if not self.study.measures_training:
            return None
        count = self.study.evaluation.train_examples or size_of(self.validation)
        return train_sample(self.workload, count, self.dtype, self.device, self._reader)

    def precision(self) -> AbstractContextManager[object]:
        """What the model and its loss are called under: autocast, where the study asks for bfloat16."""
        if self.study.engine.dtype != "bfloat16":
            return nullcontext()
        # Without a cache of converted weights, which would outlive the transforms that graphs are traced under.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def module(self, seed: int = 0) -> nn.Module:
        """A fresh module whose initial values depend on ``seed`` only, whatever the device."""
        with seeded(seed):
            module = self.workload.fresh_module()
        size = self.algorithm.ghost_batch_size
        if size is not None and convert_ghost_batch_norm(module, size)[1] == 0:
            raise WorkloadError(
                f"algorithm.ghost_batch_size: the model of {self.study.workload} has no batch norm; remove it"
            )
        return placed_module(module, self.device, self.dtype)


def points_of(study: Study) -> Iterator[dict[str, float]]:
    """The optimizer's hyperparameters at one corner of the space, and with each at its other values in turn."""
    ends, corner = _ends(study), corner_of(study)
    first = study.algorithm.hyperparameters(corner)
    yield first
    for name in (name for name in first if name in ends):
        for value in ends[name][1:]:
            yield study.algorithm.hyperparameters({**corner, name: value})


def corner_of(study: Study) -> dict[str, Value]:
    """The point of the space where everything has its first or least value."""
    return {name: values[0] for name, values in _ends(study).items()}


def _ends(study: Study) -> dict[str, tuple[Value, ...]]:
    return {
        name: dimension.values if isinstance(dimension, Choice) else (dimension.min, dimension.max)
        for name, dimension in study.search.space.items()
    }


def placed_module(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The module on the device and in the dtype.

    Shared buffers stay shared, and complex ones complex, which ``Module.to`` does not see to. Where some parameters are
    in half precision and others are not, which the model then converts between, only those others become ``dtype``.
    """
    kinds = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    half = {kind for kind in kinds if torch.finfo(kind).bits < _SINGLE}
    narrow = half if half != kinds else set()
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            places.setdefault(id(buffer), []).append((part, name))

    def place(tensor: Tensor) -> Tensor:
        if tensor.dtype in narrow:
            return tensor.to(device)
        kind = dtype if tensor.is_floating_point() else torch.complex64 if tensor.is_complex() else tensor.dtype
        return tensor.to(device=device, dtype=kind)

    module._apply(place)  # type: ignore[no-untyped-call]
    for (first, name), *others in places.values():
        for part, other in others:
            setattr(part, other, getattr(first, name))
    return module


def for_any_loop(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A placed module whose sparse gradients are written out in full, as the engine's are, for any optimizer."""
    placed_module(module, device, dtype)
    for part in module.modules():
        if getattr(part, "sparse", False):
            for parameter in part.parameters(recurse=False):
                parameter.register_post_accumulate_grad_hook(_write_out)  # type: ignore[no-untyped-call]
    return module


def _write_out(parameter: Tensor) -> None:
    if parameter.grad is not None and parameter.grad.is_sparse:
        parameter.grad = parameter.grad.to_dense()


@dataclass(frozen=True)
class Training:
    """One batch size of a study: what its trials share.

    Attributes:
        loaded: The workload and its data.
        batch_size: The study's; examples in one update where no schedule changes it.
        replicate: Which stream of examples.
        schedule: Of the batch size, instead of the study's; its rates are multiples of the trials'.
    """

    loaded: Loaded
    batch_size: int
    replicate: int = 0
    schedule: BatchSchedule | None = None

    def of_replicate(self, replicate: int) -> Training:
        """The same with the examples of another replicate."""
        return self if replicate == self.replicate else replace(self, replicate=replicate)

    @cached_property
    def timeline(self) -> Timeline:
        """Batch size and learning-rate factor of every step."""
        return Timeline(self.loaded.study, self.batch_size, self.loaded.workload.train_size, self.schedule)

    @cached_property
    def smooths(self) -> bool:
        """Whether any trial can have smoothed labels."""
        study = self.loaded.study
        return study.algorithm.label_smoothing > 0 or "label_smoothing" in study.search.space

    @cached_property
    def rule(self) -> Rule:
        """The optimizer's update rule, with an average of the weights where the study wants one."""
        name = self.loaded.algorithm.optimizer
        rule = moved_already(name) if self.loaded.algorithm.users_optimizer else RULES[name]
        return averaged(rule) if self.uses("average_weights") else rule

    def uses(self, extra: str) -> bool:
        """Whether the algorithm has, or a trial may have, something that is only there if it is named."""
        study = self.loaded.study
        return getattr(study.algorithm, extra) is not None or extra in study.search.space

    def batch(self, step: int) -> Pair:
        """The batch of the 0-based ``step``."""
        start, end = self.timeline.examples(step), self.timeline.examples(step + 1)
        return self.loaded.batches(self.replicate).take(start, end - start)

    def probes(self, step: int, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """For each parameter (probes, *shape) random signs, the same for all trials; none where no rule needs them."""
        if not self.rule.needs_hessian_diagonal:
            return {}
        study = self.loaded.study
        generator = torch_generator(study.seed, "probes", self.replicate, step, device=self.loaded.device)
        count = study.algorithm.hessian_probes
        return {name: signs(value, generator, count) for name, value in parameters.items()}


@dataclass(frozen=True)
class Settings:
    """The hyperparameters of a pack as tensors of shape (K,).

    Attributes:
        training: Of the trials' replicate.
        hyper: For every hyperparameter of the rule, ``label_smoothing`` and ``discard_fraction``, and what of
            ``OPTIONAL`` is used.
        searched: Parameters of the learning-rate schedule that are each trial's own, in float64.
    """

    training: Training
    hyper: dict[str, Tensor]
    searched: dict[str, Tensor]

    @classmethod
    def of(cls, training: Training, trials: tuple[Trial, ...]) -> Settings:
        """Read the trials' points."""
        algorithm = training.loaded.algorithm

        def column(values: Iterable[float | str], dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.tensor([float(value) for value in values], dtype=dtype, device=training.loaded.device)

        def own(name: str, default: float) -> Tensor:
            return column((trial.hyperparameters.get(name, default) for trial in trials), training.loaded.dtype)

        points = [algorithm.hyperparameters(trial.hyperparameters) for trial in trials]
        scaled = training.timeline.scaled({name: column(point[name] for point in points) for name in points[0]})
        small = algorithm.discard_small_loss
        return cls(
            training=training,
            hyper={name: value.to(training.loaded.dtype) for name, value in scaled.items()}
            | {
                "label_smoothing": own("label_smoothing", algorithm.label_smoothing),
                "discard_fraction": own("discard_fraction", small.fraction if small else 0.0),
            }
            | {name: own(name, getattr(algorithm, name) or 0.0) for name in OPTIONAL if training.uses(name)},
            searched={
                name: column(trial.hyperparameters[name] for trial in trials) for name in training.timeline.searched
            },
        )

    def numbers(self, k: int) -> dict[str, float]:
        """The hyperparameters of the ``k``-th trial as numbers."""
        return {name: float(value[k]) for name, value in self.hyper.items()}

    def learning_rates(self, start: int, until: int) -> Tensor:
        """(T, K) learning rates of the 0-based steps from ``start`` up to ``until``."""
        base = self.hyper["learning_rate"]
        factors = self.training.timeline.factors(start, until, self.searched).to(base.device)
        return (base * factors).to(base.dtype)


def clipped(training: Training, gradients: dict[str, Tensor], hyper: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients times min(1, limit / (norm + 1e-6)), as ``torch.nn.utils.clip_grad_norm_``; as given without a limit.

    The norm is over all parameters. ``hyper`` has the limit, ``clip_gradient_norm``, 0-dim.
    """
    if not training.uses("clip_gradient_norm") or not gradients:
        return gradients
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients.values()]))
    factor = (hyper["clip_gradient_norm"] / (norm + 1e-6)).clamp(max=1.0)
    return {name: gradient * factor for name, gradient in gradients.items()}


def losses(workload: Workload, outputs: Any, targets: Tree) -> Tensor:
    """What the loss gives: (B,), or 0-dim where it is one for a batch.

    Raises:
        WorkloadError: If it has another shape.
    """
    found = workload.loss(outputs, targets)
    count = size_of(targets)
    if workload.loss_per == "batch":
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise WorkloadError(
                f'with loss_per="batch" the loss must give one value for the batch, got {shape_of(found)}; without it, '
                "one per example"
            )
        return found.reshape(())
    if not isinstance(found, Tensor) or tuple(found.shape) != (count,):
        advice = "with torch's losses write reduction='none'"
        if isinstance(found, Tensor) and found.ndim > 1:
            advice = "take the mean over the other dimensions: .flatten(1).mean(1)"
        elif isinstance(found, Tensor) and found.numel() == 1:
            advice += '; for a loss that compares the examples of a batch, bs.Workload(loss_per="batch")'
        raise WorkloadError(f"loss must give one value per example, shape ({count},), got {shape_of(found)}; {advice}")
    return found


def shape_of(value: Any) -> str:
    """The shape of what should be a tensor, or what it is."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def batch_loss(training: Training, outputs: Any, targets: Tree, hyper: Mapping[str, Tensor], epoch: Tensor) -> Tensor:
    """The loss of a batch, a 0-dim tensor: the mean over its examples, smoothed and thinned as the study asks.

    With smoothing s the loss is (1 - s) loss(outputs, targets) + s mean over classes c of loss(outputs, c), which for
    the cross entropy is the loss against the smoothed target (Szegedy et al. 2016, section 7).

    Args:
        training: Whose loss.
        outputs: What the model returned.
        targets: (B,) classes where there is smoothing.
        hyper: ``label_smoothing`` and ``discard_fraction``, 0-dim.
        epoch: 0-dim, epochs seen before the batch.

    A loss of another shape than the workload says is a ``WorkloadError``.
    """
    loss, found = training.loaded.workload.loss, losses(training.loaded.workload, outputs, targets)
    if training.loaded.workload.loss_per == "batch":
        return found
    if training.smooths:
        assert isinstance(targets, Tensor)
        found = smoothed(loss, outputs, targets, found, hyper["label_smoothing"])
    small = training.loaded.algorithm.discard_small_loss
    if small is not None:
        return SmallLossDiscard(hyper["discard_fraction"], small.epochs or math.inf).mean(found, epoch)
    return found.mean()


def smoothed(loss: PerExample, outputs: Any, targets: Tensor, found: Tensor, smoothing: Tensor | float) -> Tensor:
    """The loss (B,) with smoothed labels; ``found`` is that without."""
    spread = [loss(outputs, torch.full_like(targets, c)) for c in range(outputs.shape[-1])]
    return (1 - smoothing) * found + smoothing * torch.stack(spread).mean(0)
