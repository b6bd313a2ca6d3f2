"""Data as users of PyTorch have it: loaders, datasets of dicts, iterables; and what is used of them.

A ``DataLoader`` is taken apart: its dataset, what puts examples together, and its processes stay; the order and the
size of batches are the study's.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from batchscope.errors import WorkloadError
from batchscope.seeds import key, seeded
from batchscope.tensors import Pair, Tree, leaves

# Keys of items that are dicts, one of which is the target where nothing else is said.
TARGETS = ("labels", "label", "targets", "target", "y")

Collate = Callable[[list[Any]], Any]


def together(items: list[Any]) -> Any:
    """Examples as one batch, as a ``DataLoader`` does it; in items that are dicts, lists of numbers are tensors."""
    if isinstance(items[0], Mapping):
        items = [{name: _tensor(value) for name, value in item.items()} for item in items]
    return default_collate(items)


def _tensor(value: Any) -> Any:
    return torch.as_tensor(value) if isinstance(value, list) and value and not isinstance(value[0], str) else value


@dataclass(frozen=True)
class Examples:
    """A map-style dataset, and how it is read.

    Attributes:
        dataset: Gives an example for an index.
        collate: Makes a batch of examples.
        sampler: Says which examples an epoch has; None for each once, in an order of the study's.
        workers: Processes that read.
        worker_init: What each of them calls first, with its number.
    """

    dataset: Any
    collate: Collate = together
    sampler: Any = None
    workers: int = 0
    worker_init: Callable[[int], None] | None = None

    def __len__(self) -> int:
        """Examples in an epoch."""
        return len(self.dataset if self.sampler is None else self.sampler)

    def order(self, seed: int) -> Tensor:
        """The indices of an epoch, from random numbers of ``seed`` alone.

        Raises:
            WorkloadError: If the sampler does not give as many as it says.
        """
        if self.sampler is None:
            return torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        sampler = copy.copy(self.sampler)
        if hasattr(sampler, "generator"):
            sampler.generator = torch.Generator().manual_seed(seed)
        with seeded(seed):
            found = torch.tensor(list(sampler), dtype=torch.int64)
        if len(found) != len(self):
            raise WorkloadError(
                f"the sampler {type(sampler).__name__} says that it has {len(self)} examples, and gave {len(found)}"
            )
        return found

    def first(self, count: int) -> Examples:
        """A few examples."""
        few = Subset(self.dataset, range(min(count, len(self.dataset))))
        return replace(self, dataset=few, sampler=None, workers=0)


@dataclass(frozen=True)
class Passes:
    """An iterable that is passed over once for every epoch."""

    iterable: Iterable[Any]
    collate: Collate = together

    def __call__(self, seed: int) -> Iterator[Any]:
        """The examples of one epoch; their own random numbers are seeded by whoever reads."""
        return iter(self.iterable)

    def first(self, count: int) -> Passes:
        """A few examples."""
        return replace(self, iterable=list(itertools.islice(self.iterable, count)))


def taken_apart(role: str, data: Any, target: str | None) -> Any:
    """Data in one of the forms that the engine reads: what the user gave, where it is one already.

    Raises:
        WorkloadError: If the study cannot do with it what the user would expect.
    """
    if isinstance(data, DataLoader):
        data = _of_loader(role, data)
    if isinstance(data, IterableDataset):
        return Passes(data)
    if isinstance(data, dict):
        if not data or not all(isinstance(value, Tensor) for value in data.values()):
            raise WorkloadError(
                f"{role} is a dict, which must be one of tensors with the examples along the first dimension; it has "
                f"{_kinds(data)}. Of a dict of datasets give one, such as data[{next(iter(data), 'train')!r}]"
            )
        return split(data, target)
    return data


def _of_loader(role: str, loader: DataLoader[Any]) -> Any:
    collate = together if loader.collate_fn is default_collate else loader.collate_fn
    if isinstance(loader.dataset, IterableDataset):
        if loader.batch_size is None:
            raise WorkloadError(_own_batches(role, "gives whole batches (batch_size=None)"))
        return Passes(loader.dataset, collate)
    if loader.batch_sampler is None:
        raise WorkloadError(_own_batches(role, "gives whole batches (batch_size=None)"))
    if type(loader.batch_sampler) is not BatchSampler:
        raise WorkloadError(_own_batches(role, f"has a batch_sampler, {type(loader.batch_sampler).__name__}"))
    sampler = None if _each_once(loader.batch_sampler.sampler) else loader.batch_sampler.sampler
    if isinstance(loader.dataset, TensorDataset) and collate is together and sampler is None:
        return loader.dataset
    return Examples(loader.dataset, collate, sampler, loader.num_workers, loader.worker_init_fn)


def _own_batches(role: str, what: str) -> str:
    return (
        f"{role} is a DataLoader that {what}, and batches are made by the study: write DataLoader(dataset, "
        "collate_fn=...), with sampler=... where it matters which examples an epoch has"
    )


def _each_once(sampler: Any) -> bool:
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


def remark(role: str, loader: DataLoader[Any]) -> str:
    """What is used of a loader, and what is not."""
    taken, endless = ["its dataset"], isinstance(loader.dataset, IterableDataset)
    if loader.collate_fn is not default_collate:
        taken.append("collate_fn")
    sampler = getattr(loader.batch_sampler, "sampler", None)
    if not endless and not _each_once(sampler):
        taken.append(f"sampler ({type(sampler).__name__}, with random numbers of the study's seed)")
    if loader.num_workers and not endless and role == "train":
        taken.append(f"{loader.num_workers} workers")
    size = getattr(loader.batch_sampler, "batch_size", loader.batch_size)
    left = [f"batch_size={size}", "shuffle", "drop_last"]
    left += ["num_workers"] if loader.num_workers and (endless or role != "train") else []
    left += ["pin_memory"] if loader.pin_memory else []
    return f"{role} is a DataLoader: used are {_listed(taken)}; not used are {_listed(left)}, which are the study's"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def split(batch: Any, target: str | None) -> Pair:
    """Inputs and targets of a batch: a pair as it is; of a dict the target, and the rest.

    Raises:
        WorkloadError: If it is neither, or the dict has no target that one could tell.
    """
    if isinstance(batch, Mapping):
        name = target if target is not None else _obvious(batch)
        if name not in batch:
            raise WorkloadError(
                f"items have no key {name!r}, which target names: they have {_kinds(batch)}; "
                f'write bs.Workload(target="{_likely(batch)}")'
            )
        for key, value in batch.items():
            _check(key, value)
        return {key: value for key, value in batch.items() if key != name}, batch[name]
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    got = f"{len(batch)} values" if isinstance(batch, tuple | list) else type(batch).__name__
    raise WorkloadError(
        f"an example must be a pair (input, target), or a dict with a target, got {got}; several inputs are one tuple "
        "or dict: ((first, second), target)"
    )


def _obvious(batch: Mapping[str, Any]) -> str:
    found = [name for name in TARGETS if name in batch]
    if len(found) != 1:
        raise WorkloadError(
            f"items are dicts with {_kinds(batch)}, and it must be said which of these is the target: "
            f'write bs.Workload(target="{_likely(batch)}"), say'
        )
    return found[0]


def _likely(batch: Mapping[str, Any]) -> str:
    return next((name for name in (*TARGETS, *reversed(list(batch))) if name in batch), "labels")


def _kinds(batch: Mapping[str, Any]) -> str:
    return ", ".join(f"{name!r} ({type(value).__name__})" for name, value in batch.items()) or "no keys"


def _check(key: str, value: Any) -> None:
    try:
        list(leaves(value))
    except TypeError:
        raise WorkloadError(
            f"items hold under {key!r} what is no tensor ({_sort(value)}): leave it out (of a Hugging Face dataset by "
            f'remove_columns("{key}")), or make it a tensor in the dataset or a collate_fn'
        ) from None


def _sort(value: Any) -> str:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return "text" if isinstance(value, str) else type(value).__name__


def collated(collate: Collate, items: list[Any], target: str | None) -> Pair:
    """Examples as a batch of inputs and targets; a ``WorkloadError`` if they cannot be put together."""
    try:
        return split(collate(items), target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise failed(collate, error) from None


def failed(collate: Collate, error: Exception) -> WorkloadError:
    """Says why examples could not be put together."""
    if isinstance(error, WorkloadError):
        return error
    if collate is not together:
        return WorkloadError(f"collate_fn failed: {type(error).__name__}: {error}")
    return WorkloadError(
        f"examples must be pairs (input, target), or dicts, of tensors of one shape: {error}. Where shapes differ, "
        "give a DataLoader whose collate_fn pads them"
    )


def as_tensors(data: Any, target: str | None = None) -> tuple[Tree, Tree]:
    """A pair of tensors as it is; anything else read once, its examples stacked.

    What is random in an example is drawn from a seed of its place.

    Raises:
        WorkloadError: If an example is not an ``(input, target)`` pair of one shape, or a dict.
    """
    if isinstance(data, tuple):
        return data[0], data[1]
    items = []
    if isinstance(data, Passes):
        with seeded(key("held out")):
            items = list(data(0))
    else:
        source = data if isinstance(data, Examples) else Examples(data)
        chosen = range(len(source)) if source.sampler is None else source.order(0).tolist()
        for place, index in enumerate(chosen):
            with seeded(key("held out", place)):
                items.append(source.dataset[index])
    with seeded(key("held out together")):
        inputs, targets = collated(getattr(data, "collate", together), items, target)
    counts = {int(tensor.shape[0]) if tensor.ndim else 0 for tensor in leaves((inputs, targets))}
    if counts != {len(items)} or not items:
        raise WorkloadError(
            f"{len(items)} held-out examples were put together to tensors of {', '.join(map(str, sorted(counts)))} "
            "along their first dimension; it must be the examples in each, and at least one"
        )
    return inputs, targets
