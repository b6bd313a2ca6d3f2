"""Real data: two points of the published curve of ``docs/results.md``, from the data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import batchscope as bs

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist.yaml"


@pytest.mark.slow
@pytest.mark.data
def test_fashion_mnist_reaches_its_goal_in_as_few_steps_as_the_documentation_says(
    data_dir: Path, tmp_path: Path
) -> None:
    overrides = ["batch_sizes=[128, 1024]", 'goals=["validation/error < 0.17"]', "engine.program=vmap"]
    study = bs.Study.from_yaml(EXAMPLE, overrides)
    table = bs.run(study, tmp_path / "run", data_dir=data_dir).steps_to_result().table
    assert table["steps"].to_list() == [pytest.approx(59, rel=0.15), pytest.approx(38, rel=0.15)]
    assert table["trials"].to_list() == [20, 20]
