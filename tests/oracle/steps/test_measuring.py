"""Steps of a case: named as in a trace, judged by budgets of the runs that gave the results theirs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import npattn
from npattn import ops
from npattn.module import Module, Pass
from npattn.oracle import golden
from npattn.oracle.budgets import limits_of, measure_budgets, observe
from npattn.oracle.steps import measuring
from npattn.oracle.steps.measuring import given_of, measure_steps
from npattn.oracle.steps.recorded import Recorded, is_judged, name_steps
from npattn.oracle.threads import pass_threads
from npattn.parameters import ones
from npattn.tracing import Step
from tests.own_systems import OWN_SYSTEMS

X = np.array([1.0, 2.0])
SIZES = {"batch": 2, "height": 3, "width": 4, "certify": False}
MODULES = {key: system.example() for key, system in npattn.CATALOGUE.items()}
MODULES |= {system.__name__: system.example() for system in OWN_SYSTEMS}
MODULES["cbam-spatial in training"] = replace(MODULES["cbam-spatial"], training=True)


@dataclass(frozen=True)
class Repeating(Module):
    """Assigns a variable several times under one number, an index, and a plain number."""

    channels: int = 3

    def forward(self, params, x):
        for _ in range(2):
            x = 2 * x  # (1)
        i = x.real.argmax(axis=1)  # (2)
        del i
        half = x.shape[0] / 4  # (3)
        y, back = ops.relu(half * x)  # (4)

        def backward(dy):
            dx = 2 * back(dy)  # (4')
            return dx, {}

        return Pass(y, backward)


@pytest.fixture(scope="module")
def eca():
    return golden(MODULES["eca"], **SIZES)


def steps_of(module, given):
    """The steps of a pass as it is, in float64, by name."""
    steps = npattn.trace(module, given.params, *given.inputs.values())
    dy = tuple(given.upstream.values())
    steps.backward(dy if isinstance(steps.run.output, tuple) else dy[0])
    return {name: step for name, step in name_steps(steps.steps).items() if is_judged(step.value)}


@pytest.mark.parametrize(
    ("key", "dtype"),
    [("eca", "bfloat16"), ("cbam-spatial in training", "bfloat16"), ("hard", "float32"), ("CausalHead", "bfloat16")],
)
def test_runs_under_a_trace_give_the_results_the_same_budgets_to_the_last_bit(key, dtype):
    case = golden(MODULES[key], **SIZES, dtype=dtype, seed=3)
    given, traced = given_of(case), Recorded(case.module, lambda steps: {})
    with pass_threads() as threads:
        observed = observe(traced, given, case.format, case.seed)
        budgets = measure_budgets(observed, traced, given, case.format, case.seed, threads=threads)
    assert budgets.keys() == case.budget.keys()
    for name, budget in budgets.items():
        np.testing.assert_array_equal(observed.expected[name], case.expected[name])
        np.testing.assert_array_equal(budget.scale, case.budget[name])
        assert limits_of(budget, wandering=case.format.is_accumulator) == case.limits[name]


def test_to_ask_for_steps_changes_nothing_else(eca):
    asked = golden(eca.module, **SIZES, steps=True)
    assert asked.measured_steps is not None
    assert eca.expected.keys() == asked.expected.keys()
    for name in eca.expected:
        np.testing.assert_array_equal(asked.budget[name], eca.budget[name])
        np.testing.assert_array_equal(asked.expected[name], eca.expected[name])
    for name, step in eca.steps().items():
        np.testing.assert_array_equal(asked.steps()[name].budget, step.budget)
        assert asked.steps()[name].limits == step.limits


@dataclass(frozen=True)
class Counting(Module):
    """Counts its passes on other than plain arrays; its first step is no number."""

    channels: int = 3
    counted: ClassVar[list[type]] = []

    def forward(self, params, x):
        if type(x) is not np.ndarray:
            self.counted.append(type(x))
        n = np.log(x - 100)  # (1)
        del n
        y, back = ops.relu(x)  # (2)

        def backward(dy):
            return back(dy), {}  # (2')

        return Pass(y, backward)


def test_the_runs_that_set_the_budgets_of_results_measure_steps_as_well():
    counts = []
    for steps in (False, True):
        Counting.counted.clear()
        case = golden(Counting(), **SIZES, steps=steps)
        counts.append(len(Counting.counted))
    assert list(case.measured_steps)[:2] == ["(1) n", "(2) y"]
    assert counts[0] > 8
    assert counts[1] <= counts[0] + 1  # one that tells which results are made from what


def test_a_step_that_is_no_number_is_no_reason_to_refuse_a_case_or_to_draw_other_inputs():
    plain, asked = (golden(Counting(), **SIZES, steps=steps) for steps in (False, True))
    np.testing.assert_array_equal(asked.inputs["x"], plain.inputs["x"])
    assert np.isinf(asked.measured_steps["(1) n"].budget).all()
    assert asked.compare({"(2) y": plain.expected["output"]}).passed


@pytest.mark.parametrize("key", ["residual", "hard", "cam", "CausalHead", "LogitLoss"])
def test_steps_are_those_of_the_trace_and_a_right_kernel_passes(key):
    case = golden(MODULES[key], **SIZES, dtype="bfloat16")
    exact, steps = steps_of(case.module, given_of(case)), case.steps()
    assert list(steps) == list(exact)
    for name, step in steps.items():
        np.testing.assert_allclose(step.expected, exact[name].value, rtol=1e-9, atol=1e-12)
        assert step.line == exact[name].line
        assert step.budget.shape == step.expected.shape
    single = {name: step.value for name, step in steps_of(case.module, given_of(case).each(np.float32)).items()}
    assert case.compare(single).passed


@pytest.mark.parametrize("key", ["eca", "residual", "CausalHead"])
def test_every_step_that_is_wrong_is_told_and_named(key):
    case = golden(MODULES[key], **SIZES)
    exact = {name: step.expected for name, step in case.steps().items()}
    assert case.compare(exact).passed
    for name, step in case.steps().items():
        signs = np.where(np.arange(step.expected.size) % 2, -1, 1).reshape(step.expected.shape)
        moved = step.expected + 20 * signs * np.where(np.isfinite(step.budget), step.budget, 0)
        assert case.compare(exact | {name: moved}).first_wrong == name


def test_a_variable_that_is_assigned_twice_has_two_names_and_indices_none():
    case = golden(Repeating(), **SIZES)
    assert list(case.steps()) == ["(1) x #1", "(1) x #2", "(3) half", "(4) y", "(4') dx"]
    x = case.inputs["x"]
    assert case.compare({"(1) x #1": 2 * x, "(1) x #2": 4 * x, "(3) half": np.float32(0.5)}).passed
    assert case.compare({"(1) x #1": 2 * x, "(1) x #2": 2 * x}).first_wrong == "(1) x #2"
    with pytest.raises(ValueError, match=r"no step '\(1\) x'; it is the name of 2: \(1\) x #1, \(1\) x #2 "):
        case.compare({"(1) x": x})
    with pytest.raises(ValueError, match=r"no step '\(2\) i'"):
        case.compare({"(2) i": x})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("(3) q", r"no step '\(3\) q'; did you mean '\(3\) a'\?"),
        ("(3') dq", r"no step \"\(3'\) dq\"; did you mean \"\(3'\) dz\"\?"),
        ("(3') of the logits", r"no step .*; of \(3'\) there are \(3'\) dz"),
        ("(3)a", r"unknown result '\(3\)a'; did you mean '\(3\) a'\?"),
        ("(3\N{PRIME}) dz", r"; did you mean \"\(3'\) dz\"\?"),
        ("dz", r"unknown result 'dz'; did you mean \"\(3'\) dz\"\?"),
        ("outptu", "unknown result 'outptu'; did you mean 'output'"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest(eca, name, words):
    with pytest.raises(ValueError, match=words):
        eca.compare({name: np.zeros(3)})


def test_whether_steps_are_measured_at_once_is_yes_or_no():
    with pytest.raises(TypeError, match="golden: steps=1 is an int; expected True or False"):
        golden(MODULES["eca"], steps=1)


def test_results_alone_measure_no_step():
    case = golden(MODULES["eca"], **SIZES)
    case.compare(case.expected)
    assert case.measured_steps is None


def test_steps_are_measured_anew_for_other_numbers(eca):
    eca.steps()
    other = replace(eca, upstream={"output": 2 * eca.upstream["output"]})
    np.testing.assert_array_equal(other.steps()["(4) y"].expected, eca.steps()["(4) y"].expected)
    np.testing.assert_array_equal(other.steps()["(3') dz"].expected, 2 * eca.steps()["(3') dz"].expected)


def test_steps_that_memory_would_not_hold_are_measured_group_by_group(eca, monkeypatch):
    monkeypatch.setattr(measuring, "MAX_RECORDED", 2 * eca.expected["output"].size)
    steps = measure_steps(eca)
    assert list(steps) == list(eca.steps())
    for name, step in steps.items():
        np.testing.assert_array_equal(step.expected, eca.steps()[name].expected)
        ratio = step.budget / eca.steps()[name].budget  # runs of fused kernels round in another order
        assert 0.9 < np.median(ratio) < 1.1


def test_a_step_that_a_run_lacks_or_has_in_another_shape_is_not_judged():
    read = measuring.reader_of({"(1) x": (2,), "(2) y": (2,), "(3) z": ()})
    steps = [Step(f"({i})", name, value, "") for i, name, value in ((1, "x", X), (2, "y", X[:1]), (4, "w", X))]
    found = read(steps)
    assert list(found) == ["(1) x", "(2) y", "(3) z"]
    assert found["(1) x"] is X
    assert np.isnan(found["(2) y"]).all()
    assert found["(3) z"].shape == ()


def test_a_step_of_which_nothing_can_be_judged_fails_no_report(eca):
    case = replace(eca)
    steps = eca.steps()
    beyond = replace(steps["(2) z"], budget=np.full_like(steps["(2) z"].budget, np.inf))
    case.keep_steps(steps | {"(2) z": beyond})
    report = case.compare({"(2) z": np.zeros_like(beyond.expected), "(3) a": steps["(3) a"].expected})
    assert report.passed
    assert "0.00% of 64 elements can be judged" in str(report)
    assert not case.compare({"(2) z": np.zeros(3)}).passed


def test_groups_hold_no_more_than_they_may_but_for_a_single_step(monkeypatch):
    monkeypatch.setattr(measuring, "MAX_RECORDED", 10)
    shapes = {"a": (2, 3), "b": (4,), "c": (), "d": (5, 5), "e": (1,)}
    assert [list(group) for group in measuring.groups_of(shapes)] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(measuring.groups_of({})) == []


def test_two_threads_measure_steps_of_different_systems_at_once():
    cases = [golden(MODULES[key], **SIZES) for key in ("eca", "CausalHead")]
    alone = [measure_steps(case) for case in cases]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(measure_steps, cases))
    for one, other in zip(alone, together, strict=True):
        assert list(one) == list(other)
        for name, step in one.items():
            np.testing.assert_array_equal(step.expected, other[name].expected)
            np.testing.assert_array_equal(step.budget, other[name].budget)


@dataclass(frozen=True)
class Lookup(Module):
    """Rows of a table, whose gradient is added up in place."""

    channels: int = 3
    without_gradient: ClassVar = ("tokens",)

    def input_shapes(self, batch, height, width):
        return {"tokens": (batch, width)}

    def output_shapes(self, batch, height, width):
        return {"output": (batch, width, self.channels)}

    def parameters(self):
        return {"weight": ones(4, self.channels)}

    def draw_input(self, name, shape, random):
        return random.randint(0, 4, shape)

    def forward(self, params, tokens):
        rows = tokens.astype(int)
        y = params["weight"][rows]  # (1)

        def backward(dy):
            dw = np.zeros_like(params["weight"])
            np.add.at(dw, rows, dy)  # (1')
            return None, {"weight": dw}

        return Pass(y, backward)


def test_a_step_that_adds_in_place_has_the_budget_of_what_it_adds():
    case = golden(Lookup(), batch=2, width=5, dtype="bfloat16")
    step = case.steps()["(1') dw"]
    np.testing.assert_array_equal(step.expected, case.expected["weight.grad"])
    np.testing.assert_allclose(step.budget, case.budget["weight.grad"], rtol=0.5)


@pytest.mark.parametrize("names", ["(3) a", b"(3) a", 3, None])
def test_names_of_steps_that_are_no_list_are_refused(eca, names):
    with pytest.raises(TypeError, match=r"with_steps: names=.*; expected a list of names"):
        eca.with_steps(names)
