"""The gradient noise scale of a model in training: the batch size at which noise and signal are equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from batchscope.errors import MeterError
from batchscope.interval import Interval
from batchscope.meters.moments import Moments, moments_of_parts
from batchscope.meters.norm_layers import NormLayers, norm_layers, parameters_of
from batchscope.meters.objective import Loss, Objective, chunks, size
from batchscope.meters.preconditioner import Preconditioner
from batchscope.meters.ratio import ratio_of_means
from batchscope.meters.sources import HessianThirds, Parts, Signs
from batchscope.meters.squares import Squares
from batchscope.seeds import torch_generator
from batchscope.tensors import Tree

SourceName = Literal["signs", "parts", "norm_layers", "hessian"]
# Batches from one observation to the next, for models of at least LARGE parameters and for smaller ones, whose steps
# are so short that the meter's own calls count: at most 3% of training (benchmarks/meters.py).
LARGE = 100_000
EVERY: dict[str, tuple[int, int]] = {
    "signs": (32, 100),
    "parts": (16, 64),
    "norm_layers": (8, 32),
    "hessian": (512, 512),
}
ALL = "all"


class Observation(NamedTuple):
    """One batch: unbiased estimates of tr(Sigma) and |G|^2, by group."""

    step: int
    noise: dict[str, float]
    signal: dict[str, float]


class NoiseScale:
    """B_noise = tr(Sigma) / |G|^2 in any training loop (McCandlish et al. 2018), with an interval.

    Sigma is the covariance of the gradient of one example, G its mean. Numerator and denominator are unbiased in every
    observation; the estimate is the ratio of their averages over the last ``window`` observations, and the interval is
    meant to hold that ratio of the true ones, over the same steps.

        meter = NoiseScale(model)
        for inputs, targets in loader:
            loss = cross_entropy(model(inputs), targets, reduction="none")
            meter.observe(loss)
            loss.mean().backward()
            ...
        meter.estimate()  # Interval(value, low, high)

    Args:
        model: Parameters that require a gradient are measured. A model wrapped in DistributedDataParallel is given
            wrapped.
        source: Where parts of a batch are told apart: "signs", a backward pass more (any loop); "parts", the
            micro-batches or ranks that there are, with ``end_batch`` after the last backward pass; "norm_layers", the
            per-example gradients of normalization layers only (Gray et al. 2024); "hessian", for
            tr(H Sigma) / (G' H G) instead, by products with the Hessian H.
        optimizer: Measures in the coordinates in which this optimizer's step is a gradient step:
            tr(P Sigma) / (G' P G), P from Adam's or RMSProp's second moments and from the learning rate and momentum of
            each parameter group.
        scaler: The ``GradScaler`` of float16 training, for what "signs" and "hessian" compute themselves. What an
            ordinary backward pass was scaled by is seen and undone in any case.
        groups: Name -> parameters, for ``estimate(name)`` beside that of all.
        every: Observe every so many batches. The defaults cost less than 3% of training (``docs/meters.md``).
        window: Observations to average over, the latest.
        seed: Of the signs.

    Raises:
        MeterError: If there is nothing to measure, or the arguments contradict each other.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        source: SourceName = "signs",
        optimizer: Optimizer | None = None,
        scaler: torch.amp.GradScaler | None = None,
        groups: Mapping[str, Iterable[Tensor]] | None = None,
        every: int | None = None,
        window: int = 128,
        seed: int = 0,
    ) -> None:
        if source not in get_args(SourceName):
            raise MeterError(f"source must be one of {', '.join(get_args(SourceName))}, got {source!r}")
        for name, value in (("every", every), ("window", window)):
            if value is not None and value < 1:
                raise MeterError(f"{name} must be at least 1, got {value}")
        if source == "hessian" and optimizer is not None:
            raise MeterError(
                'source="hessian" measures the loss as it is, and no optimizer\'s coordinates: leave out optimizer='
            )
        layers = norm_layers(model) if source == "norm_layers" else []
        chosen = parameters_of(layers) if source == "norm_layers" else set(model.parameters())
        parameters = [p for p in model.parameters() if p.requires_grad and p in chosen]
        if not parameters:
            raise MeterError(
                'source="norm_layers" needs a LayerNorm, GroupNorm or RMSNorm whose weight trains, got none: leave '
                "out source="
                if source == "norm_layers"
                else "the model must have a parameter that requires a gradient, got none"
            )
        if any(hasattr(p, "device_mesh") for p in parameters):
            raise MeterError("parameters must be whole on every rank, got sharded ones (FSDP): measure before sharding")
        self._model, self._source_name, self._seed = model, source, seed
        large = sum(p.numel() for p in model.parameters()) >= LARGE
        self.every = every or EVERY[source][0 if large else 1]
        self._squares = Squares(parameters, None if optimizer is None else Preconditioner(optimizer))
        self._source: Signs | Parts | NormLayers | HessianThirds
        match source:
            case "signs":
                self._source = Signs(self._squares, scaler.get_scale if scaler else lambda: 1.0)
            case "parts":
                self._source = Parts(self._squares, model)
            case "norm_layers":
                self._source = NormLayers(self._squares, layers)
            case "hessian":
                self._source = HessianThirds(self._squares, scaler.get_scale if scaler else lambda: 1.0)
        self._rows = self._groups(groups or {})
        self._batches = 0
        self._pending_step = 0
        self._observations: deque[Observation] = deque(maxlen=window)

    def observe(self, loss_per_example: Tensor) -> None:
        """Take note of a batch, or of a micro-batch with ``source="parts"``, before its backward pass.

        Args:
            loss_per_example: (B,) with its graph. All must weigh the same in the loss that is minimised: their mean or
                sum, whatever it is then multiplied by.

        Raises:
            MeterError: If the losses are not one for each of at least two examples, or the batch before was not
                trained on by equal weights of its losses.
        """
        loss = loss_per_example
        least = 1 if self._source_name == "parts" else 2
        if loss.ndim != 1 or len(loss) < least or not loss.requires_grad:
            raise MeterError(
                f"observe() needs one loss for each of at least {least} examples, with its graph, got shape "
                f"{tuple(loss.shape)}{'' if loss.requires_grad else ' without graph'}: compute the loss with "
                'reduction="none", average over what is not the example, and call observe() before backward()'
            )
        if self._source_name != "parts":
            self._settle()
            self._source.forget()
        if self._batches % self.every == 0 and self._squares.ready:
            rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
            generator = torch_generator(self._seed, "noise scale", rank, self._batches)
            self._pending_step = self._batches
            self._source.observe(loss, generator)
        if self._source_name != "parts":
            self._next_batch()

    def end_batch(self) -> None:
        """With ``source="parts"``: right after the last backward pass of a batch, on every rank.

        ``.grad`` must be what the backward passes made it: before clipping, before ``scaler.unscale_``.

        Raises:
            MeterError: If the batch had one part only, or ``.grad`` is something else.
        """
        if self._source_name != "parts":
            raise MeterError(f'end_batch() belongs to source="parts", got {self._source_name!r}: observe() is enough')
        if self._batches % self.every == 0 and self._squares.ready:
            self._pending_step = self._batches
            self._settle()
        self._next_batch()

    def observe_examples(self, loss: Loss, inputs: Tree, targets: Tree, *, chunk_size: int = 64) -> None:
        """Measure B examples exactly, by the gradient of each (``torch.func``); counts as one observation.

        The model is left as it is, and no gradient is added to ``.grad``.

        Args:
            loss: (outputs, targets) -> (B,).
            inputs: B examples, a tensor or a nested structure of them.
            targets: Likewise.
            chunk_size: Examples whose gradients are in memory at a time.

        Raises:
            MeterError: If the model has batch norm in training mode, or the source does not take examples.
        """
        pair = inputs, targets
        count = size(pair)
        if self._source_name not in ("signs", "parts") or count < 2:
            raise MeterError(
                f'observe_examples() measures at least 2 examples beside source="signs" or "parts", got {count} beside '
                f"{self._source_name!r}"
            )
        objective = Objective(self._model, loss)
        names = {id(p): name for name, p in self._model.named_parameters()}
        order = [names[id(p)] for p in self._squares.parameters]
        each: Any = 0
        totals: dict[str, Any] = dict.fromkeys(order, 0)
        for part in chunks(pair, chunk_size):
            found = objective.per_example_gradients(objective.parameters, part)
            each = each + self._squares.all([found[name] for name in order]).cpu().double().numpy()
            totals = {name: totals[name] + found[name].sum(dim=0) for name in order}
        whole = self._squares.all([totals[name] / count for name in order]).cpu().double().numpy()
        self._pending_step = self._batches
        self._record(moments_of_parts(each / count, whole, per_part=1.0, whole=1 / count))

    def estimate(self, group: str = ALL, *, level: float = 0.9) -> Interval:
        """The noise scale, in examples, over the window; a side that the measurements leave open is None.

        Args:
            group: One of ``groups``, or "all".
            level: The probability with which the interval is meant to hold the truth.

        Raises:
            MeterError: If there is no such group, or no batch in parts was ever ended.
        """
        if not isinstance(self._source, Parts):
            self._settle()
        elif not self._observations and self._source.waiting:
            raise MeterError("a batch in parts is not over: call meter.end_batch() after its last backward pass")
        if group not in self._rows:
            raise MeterError(f"there is no group {group!r}: the groups are {', '.join(self._rows)}")
        noise = [observation.noise[group] for observation in self._observations]
        return ratio_of_means(noise, [observation.signal[group] for observation in self._observations], level)

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The observations of the window, the oldest first."""
        if self._source_name != "parts":
            self._settle()
        return tuple(self._observations)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on as if nothing had been; between two steps, not between forward and backward."""
        observations = self.observations
        return {
            "source": self._source_name,
            "batches": self._batches,
            "steps": [observation.step for observation in observations],
            "noise": {name: [o.noise[name] for o in observations] for name in self._rows},
            "signal": {name: [o.signal[name] for o in observations] for name in self._rows},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` of a meter with the same source and groups returned.

        Raises:
            MeterError: If it was another source or had other groups.
        """
        theirs, ours = (state["source"], sorted(state["noise"])), (self._source_name, sorted(self._rows))
        if theirs != ours:
            raise MeterError(f"the state must be of a meter with source and groups {ours}, got {theirs}")
        self._source.forget()
        self._batches = state["batches"]
        self._observations.clear()
        for index, step in enumerate(state["steps"]):
            noise, signal = ({name: state[key][name][index] for name in self._rows} for key in ("noise", "signal"))
            self._observations.append(Observation(step, noise, signal))
        self._arm()

    def close(self) -> None:
        """Take all hooks off the model, as for copying or pickling it; what was observed stays."""
        self._source.forget()
        if isinstance(self._source, NormLayers):
            self._source.close()

    def _groups(self, groups: Mapping[str, Iterable[Tensor]]) -> dict[str, list[int]]:
        place = {id(p): index for index, p in enumerate(self._squares.parameters)}
        rows = {name: [place[id(p)] for p in members if id(p) in place] for name, members in groups.items()}
        for name, members in rows.items():
            if name == ALL or not members or self._source_name == "hessian":
                raise MeterError(
                    "groups are named parameters of the model that are measured, none of them named "
                    f'"all", and not with source="hessian", which has cross terms; got {name!r} with {len(members)}'
                )
        return {ALL: list(range(len(place))), **rows}

    def _next_batch(self) -> None:
        self._batches += 1
        self._arm()

    def _arm(self) -> None:
        if isinstance(self._source, NormLayers):
            self._source.armed = self._batches % self.every == 0

    def _settle(self) -> None:
        found = self._source.settle()
        if found is not None:
            self._record(found)

    def _record(self, found: Moments) -> None:
        if not (np.isfinite(found.noise).all() and np.isfinite(found.signal).all()):
            return  # an overflow of reduced precision: the scaler skips this step too
        noise, signal = (
            {name: float(values[rows].sum()) for name, rows in self._rows.items()}
            for values in (found.noise, found.signal)
        )
        self._observations.append(Observation(self._pending_step, noise, signal))
