"""A pack: the states of K trials at the same step, stacked.

State names: ``parameter/NAME``, ``buffer/NAME``, ``slot/SLOT/NAME``; ``optimizer/...`` of a class of the
user's. Shapes: a leading K on every tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from batchscope.engine.training import Loaded, Settings, Training
from batchscope.spec.trial import Trial
from batchscope.tensors import under_prefix, with_prefix

State = dict[str, Tensor]


@dataclass(frozen=True)
class Pack:
    """K trials that are advanced together.

    Attributes:
        trials: The K trials.
        state: Flat, every tensor (K, ...).
        step: Updates done.
        train_seconds: Spent on training each of them so far, a K-th of the pack's.
        evaluation_seconds: Likewise on evaluation.
    """

    trials: tuple[Trial, ...]
    state: State
    step: int = 0
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0

    @classmethod
    def fresh(cls, training: Training, trials: Sequence[Trial]) -> Pack:
        """Trials before their first step: every trial's initial values come from its own seed."""
        states = [initial_state(training, trial) for trial in trials]
        return cls(tuple(trials), {name: torch.stack([state[name] for state in states]) for name in states[0]})

    def only(self, members: Sequence[int]) -> Pack:
        """The pack without the trials whose index is not among ``members``."""
        if tuple(trial.index for trial in self.trials) == tuple(members):
            return self
        kept = [k for k, trial in enumerate(self.trials) if trial.index in set(members)]
        where = torch.tensor(kept, device=next(iter(self.state.values())).device)
        state = {name: value.index_select(0, where) for name, value in self.state.items()}
        return replace(self, trials=tuple(self.trials[k] for k in kept), state=state)

    def to_tensors(self, context: str) -> State:
        """Everything as tensors, for a checkpoint; of the trials, what tells them from all others.

        Args:
            context: What trial ids share (see ``Study.context``).
        """
        numbers = [float(self.step), self.train_seconds, self.evaluation_seconds]
        return {
            **self.state,
            "pack/trials": torch.tensor([_identity(trial, context) for trial in self.trials]),
            "pack/numbers": torch.tensor(numbers, dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: State, trials: Sequence[Trial], context: str, device: torch.device) -> Pack | None:
        """What ``to_tensors`` made of a pack of some of ``trials``; None if it was made of others, or of no pack."""
        if not {"pack/trials", "pack/numbers"} <= set(tensors):
            return None
        state = {name: value.to(device) for name, value in tensors.items() if not name.startswith("pack/")}
        known = {_identity(trial, context): trial for trial in trials}
        identities = tensors["pack/trials"].tolist()
        if not set(identities) <= set(known):
            return None
        step, train, evaluation = tensors["pack/numbers"].tolist()
        return cls(tuple(known[identity] for identity in identities), state, int(step), train, evaluation)


def _identity(trial: Trial, context: str) -> int:
    return int(trial.id(context), 16) >> 1  # an int64 has 63 bits beside its sign


def initial_state(training: Training, trial: Trial) -> State:
    """The state of one trial before its first step."""
    module = training.loaded.module(trial.seed)
    state: State = {}
    for name, parameter in trained(module).items():
        value = parameter.detach()
        state[f"parameter/{name}"] = value
        state |= {f"slot/{slot}/{name}": tensor for slot, tensor in training.rule.init(value).items()}
    if (users := training.loaded.users_optimizer) is not None:
        state |= with_prefix("optimizer", users.begin(trained(module), Settings.of(training, (trial,)).numbers(0)))
    return state | with_prefix("buffer", {name: buffer.detach() for name, buffer in kept(module).items()})


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that updates change, each once, however many layers share it."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def kept(module: nn.Module) -> dict[str, Tensor]:
    """What else a trial's outputs depend on: buffers, and parameters that are frozen."""
    frozen = {name: parameter for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return frozen | dict(module.named_buffers())


def to_evaluate(training: Training, settings: Settings, state: State) -> State:
    """The state with the parameters that the model is evaluated with, where a rule trains it at others."""
    slots, found = slots_of(state), dict(state)
    for name, stacked in under_prefix("parameter", state).items():
        place = training.rule.of(stacked[0]).evaluation
        if place is not None:
            found[f"parameter/{name}"] = torch.func.vmap(place)(stacked, slots[name], settings.hyper)
    return found


def weights_of(loaded: Loaded, state: State) -> State:
    """What ``load_state_dict`` of the workload's model takes, from the state of one trial."""
    module = loaded.module()
    with torch.no_grad():
        for kind, values in (("parameter", trained(module)), ("buffer", kept(module))):
            for name, value in values.items():
                value.copy_(state[f"{kind}/{name}"])
    named = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    return {name: value.detach().clone() for name, value in named.items()}


def slots_of(state: State) -> dict[str, dict[str, Tensor]]:
    """Parameter name to its slots."""
    slots: dict[str, dict[str, Tensor]] = {name: {} for name in under_prefix("parameter", state)}
    for place, value in under_prefix("slot", state).items():
        slot, name = place.split("/", 1)
        slots[name][slot] = value
    return slots
