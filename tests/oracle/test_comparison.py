import dataclasses

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import npattn
from npattn import oracle
from npattn.oracle import golden
from npattn.oracle.budgets import rms_limit, worst_limit
from tests.foreign_arrays import OnlyDLPack
from tests.naming import for_each
from tests.oracle.made_up import made_up
from tests.strategies import SYSTEMS, small_example


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
    assert "of the others" not in text


def test_beside_numbers_that_are_not_finite_the_share_of_the_others_that_are_outside_is_said(case):
    wild = case.expected["output"].copy()
    wild[0, 0, 0, 0] = np.nan
    wild[1] += 1000 * case.budget["output"][1]
    text = " ".join(str(case.compare({"output": wild})).split())
    assert "1 of 320 elements are not finite" in text
    assert "; of the others 50.16% are outside" in text  # 160 of 319


def test_a_result_of_another_shape_fails_with_both_shapes(case):
    report = case.compare({"output": case.expected["output"][:1]})
    assert not report.passed
    assert "its shape is (1, 8, 5, 4), expected (2, 8, 5, 4)" in str(report)


class Unreadable:
    """An array of a library that fails in a way of its own."""

    def __init__(self, y):
        self.shape = y.shape

    def __array__(self, dtype=None, copy=None):
        raise KeyError("lost")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda y: None, "it is None; expected an array or tensor"),
        (lambda y: y + 0j, "its dtype is complex128, expected real numbers"),
        (lambda y: y > 0, "it has dtype bool; expected floating point"),
        (lambda y: y.astype(int), "it has dtype int64; expected floating point"),
        (lambda y: y.astype(object), "it has dtype object; expected floating point"),
        (lambda y: y.astype(str), "it holds text, of dtype <U32; expected numbers"),
        (lambda y: y.astype("S8"), "it holds text, of dtype |S8; expected numbers"),
        (lambda y: y.astype(str).astype(object), "it holds text, of dtype object; expected numbers"),
        (lambda y: y[:0], "its shape is (0, 8, 5, 4), expected (2, 8, 5, 4)"),
        (lambda y: y.tolist(), "it is a list; expected an array or tensor: numpy.array(...) makes one"),
        (Unreadable, "it is a tests.oracle.test_comparison.Unreadable that can't be read as a NumPy array: 'lost'"),
        (lambda y: np.ma.masked_array(y, np.ones(y.shape, bool)), "it is a masked array"),
        (np.ma.masked_array, "it is a masked array"),
        (lambda y: y + np.longdouble("1e4000"), "320 of 320 elements are not finite"),
    ],
)
def test_what_cannot_be_judged_fails_with_its_line_beside_the_others(case, change, reason):
    report = case.compare({"output": change(case.expected["output"]), "x.grad": case.expected["x.grad"]})
    assert not report.passed
    assert not report.judgements["output"].passed
    assert report.judgements["x.grad"].passed
    assert reason in " ".join(str(report).split())


def test_a_gradient_that_is_none_has_not_been_reached_and_is_told_beside_the_others(case):
    report = case.compare({"fc1.bias.grad": None, "x.grad": case.expected["x.grad"]})
    assert not report.passed
    assert [name for name, judgement in report.judgements.items() if not judgement.passed] == ["fc1.bias.grad"]
    assert "fc1.bias.grad - - - WRONG no gradient reached it: it is None" in " ".join(str(report).split())
    with pytest.raises(AssertionError, match="no gradient reached it"):
        case.assert_matches(case.expected | {"fc1.bias.grad": None}, require="all")


def test_what_has_no_numbers_to_tell_stands_in_the_columns_of_the_others(case):
    wrong = {"output": case.expected["output"][:1], "x.grad": 2 * case.expected["x.grad"], "fc1.bias.grad": None}
    lines = [line for line in str(case.compare(wrong)).splitlines() if line.endswith(" WRONG")]
    assert len(lines) == 3
    assert len({line.index("WRONG") for line in lines}) == 1


@pytest.mark.parametrize("worst", [False, True])
def test_many_small_errors_are_told_from_one_large_one(case, worst):
    """Which is the largest is told either way: a tensor of one number has no others."""
    exact, budget = case.expected["output"], case.budget["output"]
    limit, rms_limit = case.limits["output"]
    errors = np.full(exact.shape, 1.1 * rms_limit)
    errors.flat[7] = 2 * limit if worst else errors.flat[7]
    report = case.compare({"output": exact + errors * budget})
    judgement, text = report.judgements["output"], str(report)
    assert not judgement.within
    assert (judgement.worst > limit) == worst
    small = "no element is beyond its limit, the root mean square of all is; the worst:"
    assert (small in text) != worst
    assert "\n  at [" in text


def test_an_input_without_a_gradient_may_be_given_none_and_nothing_else():
    case = golden(npattn.HardAttention(channels=3), height=3, width=4, dtype="float32")
    assert "noise.grad" not in case.expected
    case.assert_matches(case.expected | {"noise.grad": None}, require="all")
    with pytest.raises(ValueError, match=r"unknown result 'noise.grad': noise has no gradient, leave it"):
        case.compare(case.expected | {"noise.grad": np.zeros(3)})
    with pytest.raises(ValueError, match=r"unknown result 'nose.grad'"):
        case.compare(case.expected | {"nose.grad": None})
    with pytest.raises(ValueError, match="no results; expected some of output"):
        case.compare({"noise.grad": None})


@for_each(
    ("name", "meant"),
    [
        ("dx", "'x.grad'"),
        ("d_x", "'x.grad'"),
        ("gx", "'x.grad'"),
        ("grad_x", "'x.grad'"),
        ("x_grad", "'x.grad'"),
        ("dL/dx", "'x.grad'"),
        ("\N{PARTIAL DIFFERENTIAL}L/\N{PARTIAL DIFFERENTIAL}x", "'x.grad'"),
        ("expected/x.grad", "'x.grad'"),
        ("expected/output", "'output'"),
        ("Output", "'output'"),
        ("fc1/weight.grad", "'fc1.weight.grad'"),
        ("dfc1_weight", "'fc1.weight.grad'"),
        ("d_fc2.bias", "'fc2.bias.grad'"),
        ("grads/fc2/weight", "'fc2.weight.grad'"),
        ("dfc2_w", "'fc2.weight.grad'"),
    ],
)
def test_a_result_is_known_by_other_customs_of_naming_it(name, meant):
    case = made_up(npattn.SqueezeExcitation(channels=4, reduction=2))
    with pytest.raises(ValueError) as caught:
        case.compare({name: np.zeros(3)})
    assert f"unknown result {name!r}; did you mean {meant}" in str(caught.value)


def test_a_gradients_first_letters_name_it_where_they_are_those_of_one_alone():
    case = made_up(npattn.ScaledDotProductAttention(heads=2, head_dim=4, sink=True))
    for name, meant in {"dq": "query", "dk": "key", "dv": "value"}.items():
        with pytest.raises(ValueError, match=f"did you mean '{meant}.grad'"):
            case.compare({name: np.zeros(3)})
    two = made_up(npattn.SqueezeExcitation(channels=4, reduction=2))
    for unknown in ("df", "d", "dz9"):
        with pytest.raises(ValueError, match=rf"unknown result '{unknown}' \(expected"):
            two.compare({unknown: np.zeros(3)})


@pytest.mark.parametrize("require", [None, "all"])
def test_the_report_names_what_is_not_given_and_fails_if_all_is_required(case, require):
    given = {name: case.expected[name] for name in ("output", "fc1.weight.grad")}
    report = case.compare(given, require=require)
    assert report.passed is bool(report) is (require is None)
    assert report.missing == tuple(name for name in case.expected if name not in (*given, *case.maps))
    text = str(report)
    assert text.endswith("not given: x.grad, fc1.bias.grad, fc2.weight.grad, fc2.bias.grad")
    assert ("4 results NOT GIVEN" in text) is (require == "all")
    if require:
        with pytest.raises(AssertionError, match="4 results NOT GIVEN"):
            case.assert_matches(given, require=require)
    else:
        case.assert_matches(given, require=require)


def test_all_results_are_enough_where_all_are_required(case):
    report = case.compare(case.expected, require="all")
    assert report.passed
    assert report.missing == ()
    assert "not given" not in str(report).lower()
    wrong = case.compare({"output": 2 * case.expected["output"]}, require="all")
    assert "1 of 1 results WRONG, 5 results NOT GIVEN; errors" in str(wrong)
    one = {name: value for name, value in case.expected.items() if name != "x.grad"}
    assert "1 result NOT GIVEN; errors" in str(case.compare(one, require="all"))


@pytest.mark.parametrize(
    ("require", "error", "words"),
    [("everything", ValueError, "require='everything'"), (True, TypeError, "require=True is a bool; expected 'all'")],
)
def test_what_is_required_is_all_or_nothing(case, require, error, words):
    with pytest.raises(error, match=words):
        case.compare(case.expected, require=require)


@pytest.mark.parametrize("number", [1e308, -1e308, np.finfo(np.float64).max])
def test_numbers_that_overflow_when_they_are_measured_fail_without_a_warning(case, number):
    judgement = case.compare({"output": np.full((2, 8, 5, 4), number)}).judgements["output"]
    assert not judgement.passed
    assert judgement.got == number


@pytest.mark.parametrize("change", [lambda y: y.to_sparse(), lambda y: y.to("meta")], ids=["sparse", "meta"])
def test_tensors_that_have_no_numbers_to_read_fail_with_their_line(case, change):
    torch = pytest.importorskip("torch")
    value = change(torch.tensor(case.expected["output"]))
    report = case.compare({"output": value})
    assert not report.passed
    assert "can't be read as a NumPy array" in " ".join(str(report).split())


def with_unjudged(case, name, share, expected=None):
    """The case with infinite budgets for the first elements of a result, where the exact result may be another."""
    budget, exact = case.budget[name].copy(), case.expected[name].copy()
    first = slice(0, round(share * budget.size))
    budget.flat[first] = np.inf
    if expected is not None:
        exact.flat[first] = expected
    return dataclasses.replace(
        case, budget=case.budget | {name: budget}, expected=case.expected | {name: exact}, limits=case.limits
    )


@pytest.mark.parametrize(("share", "passes"), [(0.25, True), (0.5, True), (0.75, False), (1.0, False)])
def test_a_result_of_which_most_cannot_be_judged_does_not_pass_and_says_why(case, share, passes):
    partly = with_unjudged(case, "x.grad", share)
    garbage = case.expected["x.grad"].copy()
    garbage.flat[: round(share * garbage.size)] = 1e6
    report = partly.compare({"x.grad": garbage, "output": case.expected["output"]})
    assert report.passed is passes
    text = " ".join(str(report).split())
    assert f"{1 - share:.2%} of 320 elements can be judged" in text
    assert f"not of {round(320 * share)} because bfloat16 can't hold what leads to them" in text
    assert ("all that can be judged is within its budget" in text) is passes
    assert "every result within its budget" not in text
    lenient = partly.compare({"x.grad": garbage}, least_judged=0.1)
    assert lenient.passed is (share < 0.9)
    if not lenient.passed:
        with pytest.raises(AssertionError, match=r"x\.grad"):
            partly.assert_matches({"x.grad": garbage}, least_judged=0.0)


def test_exact_results_that_are_nan_are_told_from_those_that_overflow(case):
    partly = with_unjudged(with_unjudged(case, "x.grad", 0.4), "x.grad", 0.1, np.nan)
    text = " ".join(str(partly.compare({"x.grad": case.expected["x.grad"]})).split())
    assert "not of 96 because bfloat16 can't hold" in text
    assert "and not of 32 because the exact result is NaN" in text


@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_an_exact_infinity_is_met_by_itself_alone(case, infinity):
    expected = case.expected["output"].copy()
    expected[0, 1, 2, 3] = infinity
    other = dataclasses.replace(case, expected=case.expected | {"output": expected})
    assert other.compare({"output": expected}).passed
    for wrong in (-infinity, 1e30, np.nan):
        got = expected.copy()
        got[0, 1, 2, 3] = wrong
        assert not other.compare({"output": got}).passed
    assert "1 of 320 elements should be infinite and are not" in str(other.compare({"output": case.expected["output"]}))


def test_forward_stands_before_backward_and_in_each_troubles_first_then_the_largest_errors(case):
    found = case.expected | {
        "fc1.bias.grad": case.expected["fc1.bias.grad"][None],
        "x.grad": off(case, "x.grad", 50),
        "output": off(case, "output", 500),
    }
    names = list(case.compare(found).judgements)
    assert names[:3] == ["output", "fc1.bias.grad", "x.grad"]


def test_elements_that_the_format_cannot_hold_are_left_out_and_counted(case):
    budget = case.budget["output"].copy()
    budget[0, 0] = np.inf
    partly = dataclasses.replace(case, budget=case.budget | {"output": budget})
    found = case.expected["output"].copy()
    found[0, 0] = np.nan
    report = partly.compare({"output": found})
    assert report.passed
    assert report.judgements["output"].unjudged == 20
    assert "93.75% of 320 elements can be judged" in str(report)
    found[0, 1, 0, 0] = np.nan
    assert not partly.compare({"output": found}).passed


def test_assert_matches_raises_with_the_report(case):
    wrong = case.module(case.params, case.inputs["x"]).attention["channel"][..., None, None] + case.inputs["x"]
    results = {"output": 0.94 * wrong + 0.06 * case.expected["output"]}  # near a mistake, and not that of it
    with pytest.raises(AssertionError) as caught:
        case.assert_matches(results)
    report = str(case.compare(results))
    assert str(caught.value).startswith(report)
    diagnosis = str(caught.value)[len(report) :].split("\n")
    assert diagnosis[1] == "no known mistake gives these results"
    assert diagnosis[2].startswith("the nearest is (6) gate: added, not multiplied")
    assert "1 of 1 results WRONG" in str(caught.value)


@for_each(("turn", "system"), enumerate(SYSTEMS))
def test_the_report_fits_eighty_columns_and_names_what_is_wrong(turn, system):
    case = made_up(small_example(system))
    wrong = {name: v * np.nan for name, v in case.expected.items()}
    for name in list(wrong)[turn % 6 :: 6]:  # few: what large numbers look like is tried at length
        wrong[name] = 1e9 + 1e12 * case.expected[name]
    for found in (case.expected, wrong):
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
    assert case.compare({"output": OnlyDLPack(case.expected["output"])}).passed


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        ([], TypeError, "got a list; expected a mapping of names to arrays"),
        ({}, ValueError, "no results; expected some of output, x.grad, fc1"),
        ({"fc1.weight": 0}, ValueError, "unknown result 'fc1.weight'; did you mean 'fc1.weight.grad'"),
        ({"x": 0}, ValueError, "unknown result 'x'; did you mean 'x.grad'"),
        ({"o" * 999: 0}, ValueError, "unknown result 'o+[.]{3}o+' [(]"),
    ],
)
@pytest.mark.parametrize("call", ["compare", "diagnose"])
def test_what_is_no_result_is_refused_with_a_reason(case, call, results, error, message):
    with pytest.raises(error, match=rf"\.{call}: {message}"):
        getattr(case, call)(results)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_the_least_share_that_is_judged_is_a_share(case, share):
    with pytest.raises(ValueError, match=r"least_judged=.*; expected a share, from 0 to 1"):
        case.compare(case.expected, least_judged=share)


@given(st.integers(1, 10**7))
def test_the_worst_limit_allows_what_independent_normal_errors_do(count):
    assert 2 * count * scipy.special.ndtr(-worst_limit(count)) < 1e-9


def test_the_report_is_the_objects_text(case):
    report = oracle.Comparison("title", case.compare(case.expected).judgements)
    assert str(report).startswith("title\nevery result within its budget")


@pytest.fixture(scope="module", params=["float8_e4m3", "float8_e5m2"])
def beyond(request):
    """A case of which some of an output is beyond an 8-bit format."""
    largest = oracle.FORMATS[request.param].largest
    (recipe,) = oracle.cases("ops.linear", [request.param], shapes=[(1, 16, 4, 4)])
    inputs = recipe.make().inputs["x"]
    factor = 1.5 * largest / np.abs(recipe.make().expected["output"]).max()
    return golden(recipe.module, inputs=factor * inputs, dtype=request.param, seed=1)


def test_what_is_beyond_an_8_bit_format_may_be_the_largest_number_an_infinity_or_without_one_nan(beyond):
    largest, exact = beyond.format.largest, beyond.expected["output"]
    outside = np.abs(exact) > 1.2 * largest
    assert 0 < outside.sum() < outside.size
    for number, passes in ((largest, True), (np.inf, True), (np.nan, not beyond.format.infinite), (-np.inf, False)):
        written = np.where(outside, np.copysign(1, exact) * number, np.clip(exact, -largest, largest))
        assert beyond.compare({"output": written}).passed is passes
    for number in (np.inf, np.nan):
        assert not beyond.compare({"output": np.where(np.abs(exact) < largest / 4, number, exact)}).passed


def test_an_exact_infinity_may_be_written_as_the_largest_number_of_an_8_bit_format(beyond):
    expected = np.where(beyond.expected["output"] > 0, np.inf, -np.inf)
    case = dataclasses.replace(beyond, expected=beyond.expected | {"output": expected})
    for number, passes in ((beyond.format.largest, True), (np.inf, True), (1.0, False), (-np.inf, False)):
        assert case.compare({"output": np.copysign(1, expected) * number}).passed is passes
    assert case.compare({"output": np.full(expected.shape, np.nan)}).passed is not beyond.format.infinite


def test_a_result_for_which_zeros_would_pass_is_told_and_counts_as_no_right_one(case):
    """Budgets are widened until zeros are just within them: then what is right of a pass is no longer known."""
    name, wrong = "output", {"x.grad": 2 * case.expected["x.grad"]}
    zeros = case.compare({name: np.zeros_like(case.expected[name])}).judgements[name]
    needed = max(zeros.worst / zeros.worst_limit, zeros.rms / zeros.rms_limit)
    reports = {}
    for factor in 0.99 * needed, 1.01 * needed:
        wide = dataclasses.replace(case, budget={**case.budget, name: factor * case.budget[name]})
        report = wide.compare({name: case.expected[name], **wrong})
        told = "\nzeros would pass too, as rounding may err by as much as the result is: output" in str(report)
        right = "output is right: the forward pass is; the fault is in backward" in str(report)
        reports[wide.compare({name: np.zeros_like(case.expected[name])}).passed] = told, right
    assert reports == {True: (True, False), False: (False, True)}


def test_zeros_are_no_news_where_the_result_is_zero_throughout(case):
    nothing = {name: np.zeros_like(expected) for name, expected in case.expected.items()}
    blank = dataclasses.replace(case, expected=nothing)
    assert "zeros would pass" not in str(blank.compare(nothing))
