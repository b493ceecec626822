from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import polygamma
from scipy.stats import norm

import npattn
from npattn.oracle import budgets, generic_values, golden
from npattn.oracle.budgets import (
    Given,
    Recorded,
    estimate,
    independent,
    inverse_trigamma,
    measure_budgets,
    observe,
    rms_limit,
    run_on,
    steady,
    worst_limit,
)
from npattn.oracle.formats import FLOAT64, FORMATS, representable, ulp
from npattn.oracle.rounding import Rounding

BFLOAT16 = FORMATS["bfloat16"]
RUNS = budgets.RUNS


def errors_of(scale, runs=RUNS, seed=0):
    return np.random.RandomState(seed).standard_normal((runs, *scale.shape)) * scale


def test_variances_that_are_all_alike_are_drawn_to_one():
    scale = np.full((20, 30), 0.3)
    raw = np.mean(errors_of(scale) ** 2, axis=0)
    found = steady(raw, np.ones_like(scale), RUNS)
    assert np.log(found / 0.09).std() < 0.25 * np.log(raw / 0.09).std()
    assert found.min() > 0.5 * 0.09 > raw.min()
    assert found.mean() == pytest.approx(0.09, rel=0.06)


@pytest.mark.parametrize("along", ["rows", "columns", "size"])
def test_variances_that_follow_from_place_or_size_are_found_element_by_element(along):
    random = np.random.RandomState(1)
    size = np.exp(random.standard_normal((60, 50)))
    scale = {"rows": np.geomspace(0.01, 10, 60)[:, None] * np.ones(50), "size": size}.get(along)
    scale = np.ones((60, 1)) * np.geomspace(0.01, 10, 50) if scale is None else scale
    raw = np.mean(errors_of(scale) ** 2, axis=0)
    found = steady(raw, size if along == "size" else np.ones_like(scale), RUNS)
    assert np.sqrt(np.mean(np.log(found / scale**2) ** 2)) < 0.6 * np.sqrt(np.mean(np.log(raw / scale**2) ** 2))
    assert (found / scale**2).min() > 2 * (raw / scale**2).min()


def test_variances_that_follow_from_nothing_keep_most_of_their_own_estimate():
    scale = np.exp(2 * np.random.RandomState(2).standard_normal((40, 40)))
    raw = np.mean(errors_of(scale) ** 2, axis=0)
    found = steady(raw, np.ones_like(scale), RUNS)
    assert np.corrcoef(np.log(found.ravel()), np.log(scale.ravel()))[0, 1] > 0.9


def test_elements_that_all_runs_round_to_the_same_number_get_what_is_foreseen():
    """Near a number of a coarser format eight runs may all stay there; the next one need not."""
    expected = np.random.RandomState(4).uniform(1, 2, 500)
    errors = errors_of(np.full(500, 0.1))
    errors[:, :5] = 1e-3
    scale = estimate(errors, np.empty((0, 500)), expected, FORMATS["float32"]).scale
    assert scale[:5].min() > 0.05
    errors[3, :5] = 2e-3  # one that moves says how far
    assert estimate(errors, np.empty((0, 500)), expected, FORMATS["float32"]).scale[:5].max() < 0.05


def test_no_variance_is_foreseen_beyond_what_a_run_has_shown():
    random = np.random.RandomState(3)
    raw = np.exp(30 * random.standard_normal((8, 9)))
    assert steady(raw, np.ones_like(raw), RUNS).max() <= raw.max()


@given(st.floats(1e-3, 1e3))
def test_the_inverse_of_trigamma_is_one(x):
    assert inverse_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-6)


@pytest.mark.parametrize("independently", [1, 10, 1000])
def test_the_number_of_independent_errors_is_bounded_from_below(independently):
    found = []
    for seed in range(60):
        errors = np.repeat(errors_of(np.ones(independently), seed=seed), 5, axis=1)
        found.append(independent(np.mean(errors**2, axis=1), 5 * independently))
    assert np.mean(np.array(found) > independently) < 0.15
    assert np.median(found) > independently / 10


def test_no_budget_is_finer_than_the_format():
    expected = np.geomspace(1e-3, 1e3, 50)
    budget = estimate(np.zeros((RUNS, 50)) + 1e-30, np.empty((0, 50)), expected, BFLOAT16)
    np.testing.assert_allclose(budget.scale, ulp(expected, BFLOAT16) / 12**0.5)


def test_elements_that_a_run_cannot_hold_are_not_judged():
    errors = errors_of(np.ones(50))
    errors[3, 7], errors[2, 9] = np.inf, np.nan
    budget = estimate(errors, np.empty((0, 50)), np.ones(50), BFLOAT16)
    np.testing.assert_array_equal(np.flatnonzero(np.isinf(budget.scale)), [7, 9])


def test_both_having_the_same_infinity_is_no_error():
    expected = np.array([np.inf, -np.inf, 1.0, np.inf, np.nan])
    found = np.array([np.inf, -np.inf, 1.5, -np.inf, np.nan])
    errors = budgets.errors_of(found, expected)
    np.testing.assert_array_equal(errors, [0, 0, 0.5, -np.inf, np.nan])
    budget = estimate(np.array([errors] * RUNS, float), np.empty((0, 5)), expected, BFLOAT16)
    np.testing.assert_array_equal(np.isfinite(budget.scale), [True, True, True, False, False])


def test_further_runs_widen_what_they_clearly_exceed_and_nothing_else():
    budget = budgets.Budget(np.ones(3), 2.0)
    found = budgets.wider(budget, np.array([[1.5, 5.0, np.inf], [-1.5, -5.0, 1.0]]))
    np.testing.assert_allclose(found.scale, [1, 5, 1])
    assert found.freedom == 2.0


@pytest.mark.parametrize("format", ["float16", "bfloat16"])
def test_a_gradient_that_vanishes_has_the_budget_of_a_kernel_that_computes_in_float32(format):
    """In a saturated softmax weights are 0 and 1 in the format, and the bias's gradient cancels to the last bit."""
    module = npattn.SoftHardAttention(32, 4)
    for seed in (1, 50):
        case = golden(module, batch=2, height=7, width=5, dtype=format, values="large", seed=seed)
        given = Given(case.params, case.inputs, case.upstream)
        for run in range(5):
            found = run_on(Rounding(FORMATS["float32"], [run, 7]), module, given)
            case.assert_matches({"score.bias.grad": found["score.bias.grad"]})


def test_a_jump_widens_the_element_that_jumps_and_no_other():
    errors = errors_of(np.full(50, 1e-2))
    plain = estimate(errors, np.empty((0, 50)), np.ones(50), BFLOAT16).scale
    jumps = np.zeros((budgets.ROUNDS * budgets.PARTS, 50))
    jumps[4, 11] = 5.0
    widened = estimate(errors, jumps, np.ones(50), BFLOAT16).scale
    np.testing.assert_array_equal(np.flatnonzero(widened != plain), [11])
    budget = estimate(errors, jumps, np.ones(50), BFLOAT16)
    assert worst_limit(50, budget.freedom) * widened[11] == pytest.approx(budgets.JUMP * 5)


def test_an_element_may_jump_by_all_the_jumps_of_a_round():
    errors = errors_of(np.full(50, 1e-2))
    jumps = np.zeros((budgets.ROUNDS * budgets.PARTS, 50))
    jumps[:2, 11] = 5.0, -3.0
    budget = estimate(errors, jumps, np.ones(50), BFLOAT16)
    assert worst_limit(50, budget.freedom) * budget.scale[11] == pytest.approx(budgets.JUMP * 8)


def test_elements_that_nothing_touches_have_next_to_no_budget():
    errors = errors_of(np.ones(50))
    errors[:, 20:] = 0
    expected = np.where(np.arange(50) < 20, 1.0, 0.0)
    scale = estimate(errors, np.empty((0, 50)), expected, BFLOAT16).scale
    assert 0 < scale[20:].max() < 2e-3 * scale[:20].min()
    nothing = estimate(np.zeros((RUNS, 50)), np.empty((0, 50)), np.zeros(50), BFLOAT16).scale
    np.testing.assert_array_equal(nothing, BFLOAT16.smallest)


def test_limits_are_those_of_normal_errors_with_the_stated_slack():
    for count in (1, 100, 10**6):
        quantile = norm.isf(budgets.FALSE_ALARM / count / 2)
        assert worst_limit(count) == pytest.approx(budgets.SLACK * quantile)
    assert rms_limit(1) == pytest.approx(worst_limit(1))
    assert rms_limit(1e6) == pytest.approx(budgets.SLACK, rel=0.01)
    random = np.random.RandomState(0)
    largest = np.abs(random.standard_normal((2000, 100))).max(axis=1)
    assert largest.max() < worst_limit(100)


@pytest.mark.parametrize("limit", [worst_limit, rms_limit])
def test_limits_grow_with_what_may_go_wrong(limit):
    found = [limit(count) for count in (1, 2, 10, 1000)]
    assert found == sorted(found, reverse=limit is rms_limit)


def prepared(module, seed=0, format=BFLOAT16, **sizes):
    """What a module is given in a format, and what is observed of it."""
    params, inputs = generic_values(module, seed=seed, **sizes)
    batch, _, height, width = next(iter(inputs.values())).shape
    random = np.random.RandomState(seed)
    upstream = {name: random.standard_normal(s) for name, s in module.output_shapes(batch, height, width).items()}
    values = Given(params, inputs, upstream).each(lambda a: representable(a, format))
    return values, observe(module, values, format, seed)


def test_exact_results_are_those_of_float64():
    module = npattn.PositionAttention(4)
    values, observed = prepared(module)
    expected = budgets.named_results(module, values)
    for name, value in observed.expected.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_what_is_compared_is_recorded_in_order():
    recorded = Recorded()
    module = npattn.SqueezeExcitation(8, 2)
    values, _ = prepared(module)
    run_on(Rounding(FLOAT64, selections=recorded), module, values)
    (margin,) = recorded.margins
    p = values.inputs["x"].mean(axis=(2, 3))
    hidden = p @ values.params["fc1.weight"][:, :, 0, 0].T + values.params["fc1.bias"]
    np.testing.assert_allclose(margin, hidden, rtol=1e-9)


@given(st.integers(0, 30))
@settings(max_examples=10)
def test_noise_of_what_is_compared_is_of_the_size_of_its_rounding(seed):
    module = npattn.SqueezeExcitation(8, 2)
    _, observed = prepared(module, seed)
    (noise,) = observed.noise
    size = np.sqrt(np.mean(observed.margins[0] ** 2))
    assert BFLOAT16.unit / 8 < noise / size < 16 * BFLOAT16.unit


def measured(observed, module, values, format):
    with ThreadPoolExecutor(2) as pool:
        return measure_budgets(observed, module, values, format, 0, pool=pool)


def close_to_a_kink(threshold):
    """A squeeze and excitation whose first hidden unit stands by so much above the rectifier's corner."""
    module = npattn.SqueezeExcitation(8, 2)
    values, observed = prepared(module)
    bias = values.params["fc1.bias"].copy()
    bias[0] -= observed.margins[0][0, 0] - threshold
    params = values.params | {"fc1.bias": representable(bias, BFLOAT16)}
    values = Given(params, values.inputs, values.upstream)
    return module, values, observe(module, values, BFLOAT16, 0)


def test_a_decision_within_the_noise_is_close_and_one_far_off_is_not():
    assert close_to_a_kink(0.0)[2].close > 0
    assert close_to_a_kink(3.0)[2].close < close_to_a_kink(0.0)[2].close + 1
    assert prepared(npattn.EfficientChannelAttention(8))[1].close == 0


def test_a_kernel_that_decides_a_close_case_otherwise_is_within_its_budgets():
    module, values, observed = close_to_a_kink(0.0)
    margin = observed.margins[0]
    budget = measured(observed, module, values, BFLOAT16)

    class Otherwise(budgets.Selections):
        def compare(self, left, right, ordering):
            found = super().compare(left, right, ordering)
            near = np.abs(margin) < observed.noise[0]
            assert near.any()
            return found ^ near

    found = run_on(Rounding(FLOAT64, selections=Otherwise()), module, values)
    for name, value in observed.expected.items():
        assert (
            np.abs(found[name] - value) <= worst_limit(value.size, budget[name].freedom) * budget[name].scale
        ).all(), name


def test_a_kernel_that_decides_a_clear_case_otherwise_is_not():
    module, values, observed = close_to_a_kink(0.0)
    budget = measured(observed, module, values, BFLOAT16)

    class Otherwise(budgets.Selections):
        def compare(self, left, right, ordering):
            found = super().compare(left, right, ordering)
            found[np.unravel_index(np.abs(left).argmax(), left.shape)] ^= True
            return found

    found = run_on(Rounding(FLOAT64, selections=Otherwise()), module, values)
    outside = [
        (np.abs(found[name] - value) > worst_limit(value.size, budget[name].freedom) * budget[name].scale).any()
        for name, value in observed.expected.items()
    ]
    assert any(outside)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "tf32", "float8_e4m3"])
def test_budgets_are_of_the_size_of_errors_of_runs_they_were_not_estimated_from(name):
    format = FORMATS[name]
    module = npattn.PositionAttention(8)
    values, observed = prepared(module, format=format, height=8, width=9)
    budget = measured(observed, module, values, format)
    for seed in range(3):
        found = run_on(Rounding(format, [99, seed]), module, values)
        for key, value in observed.expected.items():
            units = (found[key] - value) / budget[key].scale
            assert np.sqrt(np.mean(units**2)) < rms_limit(budget[key].freedom), key
            assert np.abs(units).max() < worst_limit(value.size, budget[key].freedom), key
            if value.size > 100:
                assert np.sqrt(np.mean(units**2)) > 0.3, key


@pytest.mark.parametrize("count", [5, 64, 1000])
def test_each_close_decision_has_its_turn_in_every_round_and_no_pair_of_a_block_all_turns_together(count):
    _, observed = prepared(npattn.SqueezeExcitation(8, 2))
    turns = np.array(
        [budgets.Turned(observed, 0, number).deal(count) for number in range(budgets.ROUNDS * budgets.PARTS)]
    ).reshape(budgets.ROUNDS, budgets.PARTS, count)
    np.testing.assert_array_equal(turns.sum(axis=1), 1)
    block = turns[:, :, : budgets.PARTS**budgets.ROUNDS]
    together = np.einsum("rpi,rpj->ij", block.astype(int), block.astype(int))
    assert (together[~np.eye(len(together), dtype=bool)] < budgets.ROUNDS).all()


def test_equal_numbers_that_no_rounding_moves_are_never_turned_over():
    module = npattn.FlexibleAttention(4, 2)
    params, inputs = generic_values(module)
    inputs = {"x": np.rint(inputs["x"])}
    values = Given(params, inputs, {"output": np.ones(inputs["x"].shape)}).each(lambda a: representable(a, BFLOAT16))
    observed = observe(module, values, BFLOAT16, 0)
    turned = budgets.Turned(observed, 0, 0)
    position = next(i for i, margin in enumerate(observed.margins) if margin.ndim == 3)
    for _ in range(position):
        next(turned.events)
    flat = inputs["x"].reshape(2, 4, -1)
    np.testing.assert_array_equal(turned.winners(flat, 2)[..., 0], flat.argmax(axis=2))


def test_the_numbers_of_close_decisions_cross_over_in_their_run_and_no_others_move():
    observed = close_to_a_kink(0.0)[2]
    margin, noise = observed.margins[0], observed.noise[0]
    close = np.abs(margin) < budgets.REACH * noise
    assert close.any()
    crossed = np.zeros(margin.shape, int)
    for part in range(budgets.PARTS):
        moved = margin.copy()
        found = budgets.Turned(observed, 0, part).compare(moved, 0, np.less_equal)
        crossed += found != (margin <= 0)
        np.testing.assert_array_equal(found != (margin <= 0), moved != margin)
        assert (np.abs(moved - margin)[moved != margin] >= budgets.REACH * noise).all()
    np.testing.assert_array_equal(crossed, close)
