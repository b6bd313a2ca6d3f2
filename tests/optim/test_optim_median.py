"""Medians of large layers at speed are order statistics, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from batchscope.optim import median as selection
from batchscope.optim.median import median, medians, select


@given(
    arrays.arrays(np.float64, st.integers(1, 400), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])),
    st.data(),
    st.booleans(),
    st.sampled_from([8, 50, 1000]),
)
def test_select_is_an_order_statistic(values: Any, data: st.DataObject, absolute: bool, part: int) -> None:
    rank = data.draw(st.integers(0, values.size - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_PART", part)
        found = select(values, rank, absolute=absolute)
    assert found == np.sort(np.abs(values) if absolute else values)[rank]


@pytest.mark.parametrize("kind", ["normal", "ramp", "periodic", "half zero", "outliers"])
@pytest.mark.parametrize("absolute", [False, True])
def test_select_on_large_layers(kind: str, absolute: bool) -> None:
    size = 300_001
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    if kind == "ramp":
        values = np.arange(size, dtype=np.float32) - 1000
    elif kind == "periodic":  # in step with the sample: the bracket misses, the result must not
        values[:: selection._STRIDE] += 100
    elif kind == "half zero":
        values[: size // 2 + 5] = 0
    elif kind == "outliers":
        values[::7] = np.inf
    expected = np.sort(np.abs(values) if absolute else values)
    for rank in (0, 1, size // 4, size // 2, size - 1):
        assert select(values, rank, absolute=absolute) == expected[rank]
    values[12_345] = np.nan
    assert np.isnan(select(values, size // 2, absolute=absolute))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("absolute", [False, True])
def test_many_layers_measure_as_one(dtype: torch.dtype, absolute: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(300, 256), (7,), (), (64, 2048), (1,), (5, 5)]
    layers = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    layers.append(torch.randn(8, 6, generator=generator, dtype=torch.float64).to(dtype).t())
    for one, found in zip(layers, medians(layers, absolute=absolute), strict=True):
        assert torch.equal(found, median(one, absolute=absolute))


def test_the_median_is_the_lower_one() -> None:
    values = torch.tensor([4.0, -1.0, 3.0, -2.0])
    assert median(values, absolute=False).item() == -1.0
    assert median(values, absolute=True).item() == 2.0
