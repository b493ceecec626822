import json
from pathlib import Path

import numpy as np
import pytest

from npattn.oracle import generic_values
from npattn.training import make_system
from npattn.training.steps import NUM_MAPS
from tests.benchmarks import training

REPOSITORY = Path(training.__file__).parents[2]
PAGE = (REPOSITORY / "derivations/training.md").read_text(encoding="utf-8")


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setitem(NUM_MAPS, "train", 10)
    monkeypatch.setitem(NUM_MAPS, "test", 10)
    monkeypatch.setattr(training, "NUM_KEPT", 3)
    monkeypatch.setattr(training, "NUM_FAULT_SEEDS", 1)
    monkeypatch.setattr(training, "SYSTEMS", ["none"])
    monkeypatch.setattr(training, "ESTIMATORS", ["soft"])
    cases = {name: training.CASES[name] for name in ("none", "se, map detached")}
    monkeypatch.setattr(training, "CASES", cases)


def test_the_page_shows_the_tables_of_the_kept_runs():
    assert f"```text\n{training.tables(training.read(training.RESULTS))}\n```" in PAGE


def test_a_run_that_is_kept_is_not_made_again(few, tmp_path, capsys, monkeypatch):
    path = tmp_path / "runs.jsonl"
    training.main(["--results", str(path), "--seeds", "1"])
    runs = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [(run["case"], run["seed"]) for run in runs] == [("none", 0), ("se, map detached", 0), ("soft", 0)]
    assert runs[0]["parameters"] == 11_976
    monkeypatch.setattr(training, "measure", None)
    monkeypatch.setattr(training, "measure_glimpses", None)
    first = capsys.readouterr().out
    training.main(["--results", str(path), "--seeds", "1"])
    assert capsys.readouterr().out == first
    assert len(path.read_text("utf-8").splitlines()) == 3


def test_the_table_holds_mean_and_standard_deviation_of_the_seeds():
    runs = [{"case": "none", "parameters": 7, "accuracy": v} for v in (0.5, 0.7)]
    _, row = training.table(runs, ["none", "se"], {"accuracy": "pixels"}).splitlines()
    assert row.split() == ["none", "2", "7", "60.0", "±", "14.1"]


@pytest.mark.parametrize("key", ["se", "pam"])
def test_a_detached_system_has_its_output_and_hands_back_what_does_not_read_the_map(key):
    inner = make_system(key)
    params, inputs = generic_values(inner, batch=2, height=3, width=2)
    x, dy = inputs["x"], np.random.RandomState(0).standard_normal(inputs["x"].shape)
    run, detached = inner(params, x), training.Detached(inner)(params, x)
    np.testing.assert_array_equal(detached.output, run.output)
    dx, grads = detached.backward(dy)
    np.testing.assert_array_equal(dx, dy * run.attention["channel"][:, :, None, None] if key == "se" else dy)
    for name, gradient in run.backward(dy)[1].items():
        np.testing.assert_array_equal(grads[name], gradient)


def test_the_pictures_are_small_and_drawn_from_the_kept_runs(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    drawn = tmp_path / "training.png"
    training.main(["--plot", str(drawn)])
    kept = REPOSITORY / "derivations/pictures/training.png"
    assert kept.stat().st_size < 60_000
    ours, theirs = imread(drawn), imread(kept)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 0.02  # fonts differ from one version to the next
    assert (REPOSITORY / "derivations/pictures/training_attention.png").stat().st_size < 60_000


def test_what_systems_attend_to_is_drawn_before_and_after(few, tmp_path):
    pytest.importorskip("matplotlib")
    from tests.benchmarks.training_drawing import draw_attention

    titles = [axes.get_title() for axes in draw_attention(epochs=1).axes]
    assert "pam+cam, where × looks,\nbefore training" in titles
    assert "cbam, spatial gate,\nafter training" in titles
