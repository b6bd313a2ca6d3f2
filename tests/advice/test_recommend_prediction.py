"""Recommendations that rest on a prediction: the law's own choices, and every word that marks them as predicted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import batchscope as bs
from advice.exact_recommendations import prediction, probe
from batchscope.cli.main import DONE, MISUSE, invoke
from batchscope.errors import AnalysisError


def test_on_idealised_hardware_the_knee_is_the_critical_batch_size() -> None:
    found = bs.recommend(prediction())
    assert found.recommended.batch_size == 64
    assert found.recommended.steps.value == pytest.approx(200)
    assert found.cheapest.batch_size == 1 and found.fastest.batch_size == 512  # beyond ten times more is wasted
    assert found.recommended.extrapolated and "not known" in found.recommended.remarks[0]
    base = next(row for row in found.options.iter_rows(named=True) if row["batch_size"] == 4)
    assert not base["extrapolated"]


def test_all_of_it_is_marked_as_predicted() -> None:
    found = bs.recommend(prediction())
    assert found.headline.sentence.startswith("Predicted: batch size 64")
    assert "not measured" in found.headline.trust and "12 trainings" in found.headline.trust
    assert "11 times" in found.notes[0]
    assert found.assumptions[0].startswith("Steps are predicted from one training at batch size 4")
    assert found.headline.caveats == ("its hyperparameters are not known: tune them there",)


def test_with_a_probe_it_is_in_seconds_and_the_interval_has_the_errors_of_the_record() -> None:
    found = bs.recommend(prediction(), probe(workload="steps"), batch_sizes=[16, 64, 256])
    assert not found.idealised and found.recommended.step_seconds is not None
    for option in found:
        steps = option.steps
        assert steps.low and steps.value and steps.high
        assert steps.high / steps.value > 1.3 and steps.value / steps.low > 1.3


def test_refusals() -> None:
    with pytest.raises(AnalysisError, match="leave out --goal"):
        bs.recommend(prediction(), goal="validation/error < 0.2")
    with pytest.raises(AnalysisError, match="any-workload"):
        bs.recommend(prediction(), probe(workload="something else"))
    with pytest.raises(AnalysisError, match="at least 1"):
        bs.recommend(prediction(), batch_sizes=[0])


def test_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.json").write_text(prediction().to_json())
    assert invoke(["recommend", "--from-prediction", "p.json"]) == DONE
    assert "Predicted: batch size 64" in " ".join(capsys.readouterr().out.split())
    assert invoke(["recommend", "--from-prediction", "p.json", "--json"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert document["recommended"]["batch_size"] == 64 and document["workload"] == "steps"
    for wrong in (["recommend"], ["recommend", "run", "--from-prediction", "p.json"]):
        assert invoke(wrong) == MISUSE
        assert "--from-prediction" in capsys.readouterr().err
    assert invoke(["recommend", "--from-prediction", "p.json", "--snippet", "yaml"]) == MISUSE
    capsys.readouterr()
