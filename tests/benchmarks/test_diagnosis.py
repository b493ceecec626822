import dataclasses

import pytest

from tests.benchmarks import diagnosis, trials

ONLY = "conv1d: flipped kernel", "gate: gradient: gate detached"


@pytest.mark.parametrize("format", ["float32", "float16"])
def test_planted_mistakes_are_named_first(format):
    (module, *_) = diagnosis.modules_of("eca")
    found = diagnosis.measure(module, (2, 7, 5), format, 0, only=ONLY)
    assert [trial.name.partition(",")[0] for trial in found]
    assert all(map(trials.named, found))
    assert not any(map(trials.surely_wrong, found))
    lines = trials.report(found, 3)
    assert lines[-2].startswith("not first: 0") or "not first: 0" in lines


def test_so_many_are_planted_as_are_asked_for():
    (module, *_) = diagnosis.modules_of("eca")
    assert len(diagnosis.measure(module, (1, 3, 4), "float32", 0, only=ONLY, most=1)) == 1


def trial(rank, *, sure, alike=1):
    return trials.Trial("eca", "", "float32", "a, b, call 0", rank, sure, alike, "said")


def test_a_wrong_name_counts_as_given_with_confidence_only_if_it_was_sure():
    assert trials.surely_wrong(trial(0, sure=True))
    assert trials.surely_wrong(trial(2, sure=True))
    assert not trials.surely_wrong(trial(0, sure=False))
    assert not trials.surely_wrong(trial(2, sure=True, alike=3))
    assert trials.named(trial(1, sure=False, alike=0))
    assert "not first: 1" in trials.report([trial(2, sure=True), trial(1, sure=True)], 0)


def test_mistakes_that_others_wrote_are_read_from_a_file(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "def flipped(params, x):\n"
        "    p = x.mean((2, 3))[:, None]\n"
        "    z = torch.nn.functional.conv1d(p, params['conv.weight'].flip(-1), padding=1)[:, 0]\n"
        "    return x * torch.sigmoid(z)[:, :, None, None]\n"
        "MISTAKES = [('eca', {'channels': 8}, flipped, ('flipped kernel',))]\n"
    )
    found = diagnosis.foreign(path, [0], shapes=[(2, 3, 4)], formats=["float32"])
    assert [(one.name, one.rank, one.sure) for one in found] == [("flipped: flipped kernel", 1, True)]


def test_rates_among_those_that_the_catalogue_has_are_told_apart():
    known = dataclasses.replace(trial(1, sure=True), kind="gate: left out")
    lines = trials.report([known, trial(0, sure=True)], 0)
    assert "kind in the catalogue: 1, first 100.0 %; wrong with confidence: 50.0 % of all" in lines
