import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npattn
from npattn import oracle
from npattn.oracle import golden
from npattn.oracle.budgets import rms_limit, worst_limit
from tests.strategies import SYSTEMS


@pytest.fixture(scope="module")
def case():
    return golden(npattn.SqueezeExcitation(8, 2), batch=2, height=5, width=4, dtype="bfloat16")


def off(case, name, units, where=None):
    """The exact result, moved by so many units of budget: everywhere, in alternate directions, or at one element."""
    signs = np.where(np.arange(case.expected[name].size) % 2, -1, 1).reshape(case.expected[name].shape)
    moved = case.expected[name] + units * signs * case.budget[name]
    return (
        moved if where is None else np.where(np.indices(moved.shape).sum(axis=0) == where, moved, case.expected[name])
    )


def test_exact_results_pass_without_an_error(case):
    report = case.compare(case.expected)
    assert report.passed
    assert list(report.judgements) != []
    assert all(j.worst == j.rms == j.outside == 0 for j in report.judgements.values())
    case.assert_matches(case.expected)


def test_a_comparison_is_true_if_it_passed(case):
    assert case.compare(case.expected)
    assert not case.compare({"output": -case.expected["output"]})


def test_any_subset_of_the_results_will_do(case):
    for name in case.expected:
        report = case.compare({name: case.expected[name]})
        assert list(report.judgements) == [name]
        assert report.passed


def test_the_worst_element_decides_at_its_limit(case):
    limit = worst_limit(case.expected["output"].size, case.freedom["output"])
    for units, passes in ((0.99 * limit, True), (1.01 * limit, False)):
        judgement = case.compare({"output": off(case, "output", units, where=0)}).judgements["output"]
        assert judgement.passed is passes
        assert judgement.worst == pytest.approx(units)
        assert judgement.where == (0, 0, 0, 0)
        assert judgement.expected == case.expected["output"][0, 0, 0, 0]
        assert judgement.got == pytest.approx(judgement.expected + units * judgement.unit)
        assert judgement.outside == (0 if passes else 1 / case.expected["output"].size)


def test_the_root_mean_square_decides_at_its_limit(case):
    limit = rms_limit(case.freedom["x.grad"])
    assert limit < worst_limit(case.expected["x.grad"].size)
    for units, passes in ((0.99 * limit, True), (1.01 * limit, False)):
        judgement = case.compare({"x.grad": off(case, "x.grad", units)}).judgements["x.grad"]
        assert judgement.passed is passes
        assert judgement.rms == pytest.approx(units)
        assert judgement.worst <= judgement.worst_limit


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_fail_and_are_named_first(case, value):
    wild = case.expected["output"].copy()
    wild[1, 2, 3, 0] = value
    report = case.compare({"x.grad": 2 * case.expected["x.grad"], "output": wild})
    assert list(report.judgements) == ["output", "x.grad"]
    assert not report.passed
    text = " ".join(str(report).split())
    assert "1 of 320 elements are not finite, the first at [1, 2, 3, 0]: expected " in text
    assert f"got {value}" in text


def test_a_result_of_another_shape_fails_with_both_shapes(case):
    report = case.compare({"output": case.expected["output"][:1]})
    assert not report.passed
    assert "its shape is (1, 8, 5, 4), expected (2, 8, 5, 4)" in str(report)


def test_complex_numbers_fail(case):
    report = case.compare({"output": case.expected["output"] + 0j})
    assert not report.passed
    assert "its dtype is complex128, expected real numbers" in str(report)


def test_troubles_stand_first_then_the_largest_errors(case):
    found = case.expected | {
        "fc1.bias.grad": case.expected["fc1.bias.grad"][None],
        "x.grad": off(case, "x.grad", 50),
        "output": off(case, "output", 500),
    }
    names = list(case.compare(found).judgements)
    assert names[:3] == ["fc1.bias.grad", "output", "x.grad"]


def test_elements_that_the_format_cannot_hold_are_left_out_and_counted(case):
    budget = case.budget["output"].copy()
    budget[0, 0] = np.inf
    partly = dataclasses.replace(case, budget=case.budget | {"output": budget})
    found = case.expected["output"].copy()
    found[0, 0] = np.nan
    report = partly.compare({"output": found})
    assert report.passed
    assert report.judgements["output"].unjudged == 20
    assert "20 elements not judged" in str(report)
    found[0, 1, 0, 0] = np.nan
    assert not partly.compare({"output": found}).passed


def test_assert_matches_raises_with_the_report(case):
    with pytest.raises(AssertionError) as caught:
        case.assert_matches({"output": case.expected["output"] * 1.5})
    assert str(caught.value) == str(case.compare({"output": case.expected["output"] * 1.5}))
    assert "1 of 1 results WRONG" in str(caught.value)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.key)
def test_the_report_fits_eighty_columns_and_names_what_is_wrong(system):
    case = golden(system.example(), height=3, width=3)
    for found in (
        case.expected,
        {n: 1e9 + 1e12 * v for n, v in case.expected.items()},
        {n: v * np.nan for n, v in case.expected.items()},
    ):
        text = str(case.compare(found))
        assert max(map(len, text.splitlines())) <= 80, text
        assert all(name in text for name in case.expected)
    assert repr(case)[:20] in text


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_torch_tensors_of_any_dtype_are_taken_as_they_come(case, dtype):
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(case.expected["output"]).to(getattr(torch, dtype)).requires_grad_()
    assert case.compare({"output": leaf * 1}).passed


def test_whatever_speaks_dlpack_is_taken(case):
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    assert case.compare({"output": Foreign(case.expected["output"])}).passed


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        ([], TypeError, "got a list; expected a mapping of names to arrays"),
        ({}, ValueError, "no results; expected some of output, x.grad, fc1"),
        ({"fc1.weight": 0}, ValueError, "unknown result 'fc1.weight'; did you mean 'fc1.weight.grad'"),
        ({"output": [1.0]}, TypeError, "output is a list; expected an array or tensor"),
        ({"output": np.ones((2, 8, 5, 4), int)}, TypeError, "output has dtype int64; expected floating point"),
    ],
)
def test_what_is_no_result_is_refused_with_a_reason(case, results, error, message):
    with pytest.raises(error, match=message):
        case.compare(results)


@given(st.integers(1, 10**7))
def test_the_worst_limit_allows_what_independent_normal_errors_do(count):
    from scipy.stats import norm

    assert 2 * count * norm.sf(worst_limit(count)) < 1e-9


def test_the_report_is_the_objects_text(case):
    report = oracle.Comparison("title", case.compare(case.expected).judgements)
    assert str(report).startswith("title\nevery result within its budget")
