"""The program that plants faults and asks where a failing case points: it finds their steps, and counts right."""

import pytest

import npattn
from npattn.oracle import golden
from npattn.oracle import mistakes as faults
from npattn.oracle.steps.measuring import given_of
from npattn.oracle.steps.upstream import number_of
from tests.benchmarks.localising import Trial, exceptions, run_with_steps, table, try_case
from tests.own_systems import CausalHead

SIZES = {"batch": 2, "height": 3, "width": 5, "certify": False}
MODULES = {key: npattn.CATALOGUE[key].example() for key in ("eca", "sdpa", "residual")}
MODULES["own"] = CausalHead()


def trial(**changes):
    found = {
        "key": "eca",
        "case": "case",
        "fault": "fault",
        "place": "(3) a",
        "visible": True,
        "failed": True,
        "named": "(3) a",
        "near": False,
        "clear": ("(3)",),
        "hidden": (),
    }
    return Trial(**found | changes)


@pytest.mark.parametrize("key", MODULES)
def test_a_visible_fault_is_named_at_its_step_and_never_pointed_away_from(key):
    trials = list(try_case(golden(MODULES[key], **SIZES, dtype="bfloat16"), most=5))
    assert sum(trial.visible for trial in trials) > 3
    for trial in trials:
        if trial.visible:
            assert trial.named == trial.place, trial
        if trial.failed and trial.place:
            assert number_of(trial.place) in set.union(*trial.candidates), trial


@pytest.mark.parametrize(
    ("primitive", "name", "place"),
    [
        ("sigmoid", "hard sigmoid", "(3) a"),
        ("sigmoid", "gradient: left out", "(3') dz"),
        ("gate", "left out", "(4) y"),
        ("gate", "gradient: gate detached", "(4') da"),
        ("global_average_pool", "sum for mean", "(1) p"),
    ],
)
def test_a_fault_stands_at_the_step_whose_line_calls_its_primitive(primitive, name, place):
    planted = [fault for fault in faults.FAULTS if (fault.primitive, fault.name) == (primitive, name)]
    trials = list(try_case(golden(MODULES["eca"], **SIZES), planted=planted))
    assert {trial.place for trial in trials} == {place}
    assert all(trial.visible and trial.right for trial in trials)


def test_a_run_has_all_results_and_steps_of_a_case():
    case = golden(MODULES["eca"], **SIZES)
    assert run_with_steps(case.module, *given_of(case)).keys() == {*case.expected, *case.steps()} - {*case.maps}


def test_the_table_counts_what_is_named_where():
    trials = [
        trial(),
        trial(named="(4) y"),
        trial(visible=False, named="(4) y", near=True),
        trial(clear=("(4)",), hidden=("(3) with (3')",)),
        trial(clear=("(4)", "(4')"), key="se"),
        trial(place=None, named=None),
        trial(place=None, named=None, failed=False),
    ]
    cells = [line.split() for line in table(trials)]
    assert cells[2] == ["eca", "3", "2", "1", "4", "3", "1", "0", "1.0"]
    assert cells[3] == ["se", "1", "1", "0", "1", "0", "0", "1", "2.0"]
    assert cells[4] == ["all", "4", "3", "1", "5", "3", "1", "1", "1.2"]
    listed = [line for line in exceptions(trials, 9) if not line.startswith("  ")]
    assert listed == [
        "visible at its step, and named elsewhere: 1",
        "not among what results point to: 1",
        "not visible at its step, and another named: 1",
        "of these, its own not named as nearly off: 0",
        "seen in results, and in no step: 1",
        "changes nothing: 1",
    ]
