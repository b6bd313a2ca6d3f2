"""The plain loop, for any module and as the oracle: one trial after the other, through module and autograd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from batchscope.engine.calling import called
from batchscope.engine.evaluate import Accumulators, per_example
from batchscope.engine.habits import habits
from batchscope.engine.pack import State, kept, slots_of, trained
from batchscope.engine.program import Program
from batchscope.engine.randomness import seed_part, seed_step
from batchscope.engine.training import Settings, Training, batch_loss, clipped
from batchscope.hutchinson import hessian_diagonal_of_graph
from batchscope.optim.rule import is_dense, laid_out_as
from batchscope.tensors import Pair, map_pair, under_prefix, with_prefix


class Loop(Program):
    """One trial at a time, as a user would write it."""

    def __init__(self, training: Training) -> None:
        """Build the module that every trial's state is loaded into."""
        self.training = training
        self._module, self.habits = training.loaded.module(), habits(training.loaded)
        dense = all(is_dense(parameter) for parameter in self._module.parameters())
        self._in_place = dense and training.rule.has_kernel(training.loaded.device)

    def train(self, state: State, settings: Settings, start: int, until: int) -> tuple[State, Tensor]:
        """Advance the trials one after the other."""
        rates = settings.learning_rates(start, until)
        states, sums = [], []
        for k, own in enumerate(_each(state)):
            hyper = {name: value[k] for name, value in settings.hyper.items()}
            trained, total = self._train_one(own, settings.training, hyper, rates[:, k], start)
            states.append(trained)
            sums.append(total)
        return {name: torch.stack([own[name] for own in states]) for name in state}, torch.stack(sums)

    def evaluate(
        self, state: State, examples: Pair, whole: Sequence[Accumulators] = (), place: int = 0
    ) -> dict[str, Tensor]:
        """Evaluate the trials one after the other."""
        inputs, targets = examples
        rows = []
        with torch.no_grad(), self.training.loaded.precision():
            for k, own in enumerate(_each(state)):
                self._load(own).eval()
                if self.habits.writes_inputs:  # into what all evaluations share
                    inputs, targets = map_pair(Tensor.clone, examples)
                seed_part(self.training, place, python=self.habits.draws)
                outputs = called(self._module, inputs)
                rows.append(per_example(self.training.loaded.workload, outputs, targets))
                for metric in whole[k].values() if whole else ():
                    metric.update(outputs, targets)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _train_one(
        self, state: State, training: Training, hyper: State, rates: Tensor, start: int
    ) -> tuple[State, Tensor]:
        rule = self.training.rule
        named: dict[str, Tensor] = dict(trained(self._load(state).train()))
        slots = {
            name: {slot: laid_out_as(named[name], value).clone() for slot, value in own.items()}
            for name, own in slots_of(state).items()
        }
        numbers = {name: float(value) for name, value in hyper.items()}
        users = training.loaded.users_optimizer
        optimizer = users.resumed(named, numbers, under_prefix("optimizer", state)) if users else None
        total = torch.zeros((), dtype=torch.float64, device=rates.device)
        for i, rate in enumerate(rates):
            step = start + i
            clock = torch.tensor([step + 1, training.timeline.epoch(step)], dtype=torch.float64, device=rates.device)
            inputs, targets = training.batch(step)
            seed_step(training, step, python=self.habits.draws)
            with training.loaded.precision():
                loss = batch_loss(training, called(self._module, inputs), targets, hyper, clock[1])
            diagonal: dict[str, Tensor] = {}
            if rule.needs_hessian_diagonal:
                gradients, diagonal = _with_diagonal(loss, named, training.probes(step, named))
            else:
                gradients = _gradients(loss, named)
            with torch.no_grad():
                total += loss.detach()
                gradients = clipped(training, gradients, hyper)
                if users is not None and optimizer is not None:
                    users.step(optimizer, named, gradients, float(rate))
                    if not rule.slots:
                        continue
                if self._in_place:
                    moving = [named[name] for name in gradients]
                    along = list(map(laid_out_as, moving, gradients.values()))
                    own = {slot: [slots[name][slot] for name in gradients] for slot in rule.slots}
                    now = {**numbers, "learning_rate": float(rate)}
                    rule.update_in_place(moving, along, own, step + 1, now)
                    continue
                changing, count = {**hyper, "learning_rate": rate}, clock[0].to(rate.dtype)
                for name, gradient in gradients.items():
                    curvature = (diagonal[name],) if diagonal else ()
                    moved, slots[name] = rule.update(named[name], gradient, slots[name], count, changing, *curvature)
                    named[name].copy_(moved)
        read = self._read(slots)
        if users is not None and optimizer is not None:
            read |= with_prefix("optimizer", users.flat(optimizer, named))
        return read, total

    def _load(self, state: State) -> nn.Module:
        with torch.no_grad():
            for name, parameter in trained(self._module).items():
                parameter.copy_(state[f"parameter/{name}"])
            for name, buffer in kept(self._module).items():
                buffer.copy_(state[f"buffer/{name}"])
        return self._module

    def _read(self, slots: dict[str, dict[str, Tensor]]) -> State:
        flat = {f"slot/{slot}/{name}": value for name, own in slots.items() for slot, value in own.items()}
        read = {
            **with_prefix("parameter", trained(self._module)),
            **flat,
            **with_prefix("buffer", kept(self._module)),
        }
        return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in read.items()}


def _each(state: State) -> Iterator[State]:
    count = next(iter(state.values())).shape[0]
    for k in range(count):
        yield {name: value[k] for name, value in state.items()}


def _gradients(loss: Tensor, parameters: Mapping[str, Tensor]) -> State:
    """As ``backward`` leaves them, hooks and all; without those that the loss does not depend on.

    Such a parameter stays as it is, weight decay and momentum included, as under torch's own optimizers.
    """
    loss.backward()  # type: ignore[no-untyped-call]
    found = {}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            found[name] = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
            parameter.grad = None
    return found


def _with_diagonal(loss: Tensor, parameters: Mapping[str, Tensor], probes: State) -> tuple[State, State]:
    """Gradients, and the estimated diagonal of the Hessian."""
    values = list(parameters.values())
    gradients = torch.autograd.grad(loss, values, create_graph=True, allow_unused=True, materialize_grads=True)
    diagonal = hessian_diagonal_of_graph(gradients, values, _by_probe(probes))
    return dict(zip(parameters, gradients, strict=True)), dict(zip(parameters, diagonal, strict=True))


def _by_probe(probes: State) -> list[list[Tensor]]:
    """From every parameter's signs, stacked, to every probe's."""
    return [list(signs) for signs in zip(*(stacked.unbind() for stacked in probes.values()), strict=True)]
