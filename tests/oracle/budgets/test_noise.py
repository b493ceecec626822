import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npattn.oracle.budgets import Budget, limits_of, worst_limit
from npattn.oracle.budgets.measuring import NUM_RUNS
from npattn.oracle.budgets.near_ties import FLIP_GROUPS, FLIP_ROUNDS
from npattn.oracle.budgets.noise import (
    JUMP_MARGIN,
    add_jumps,
    allow_jumps,
    cut_elements,
    errors_of,
    measure_noise,
    wider,
)
from npattn.oracle.formats import FORMATS, ulp
from tests.memory import peak_memory
from tests.naming import for_each
from tests.oracle.budgets.runs import BFLOAT16, normal_errors


def estimate(errors, jumps, expected, format):
    noise, known = measure_noise(errors, expected, format), None
    for first in range(0, len(jumps), FLIP_GROUPS):
        known = add_jumps(jumps[first : first + FLIP_GROUPS], noise, known)
    return allow_jumps(noise, known)


def test_elements_that_all_runs_round_to_the_same_number_get_the_priors_variance():
    """Near a number of a coarser format eight runs may all stay there; the next one need not."""
    expected = np.random.RandomState(4).uniform(1, 2, 500)
    errors = normal_errors(np.full(500, 0.1))
    errors[:, :5] = 1e-3
    scale = estimate(errors, np.empty((0, 500)), expected, FORMATS["float32"]).scale
    assert scale[:5].min() > 0.05
    errors[3, :5] = 2e-3  # one that moves says how far
    assert estimate(errors, np.empty((0, 500)), expected, FORMATS["float32"]).scale[:5].max() < 0.05


def test_no_budget_is_finer_than_the_format():
    expected = np.geomspace(1e-3, 1e3, 50)
    budget = estimate(np.zeros((NUM_RUNS, 50)) + 1e-30, np.empty((0, 50)), expected, BFLOAT16)
    np.testing.assert_allclose(budget.scale, ulp(expected, BFLOAT16) / 12**0.5)


def test_a_small_tensors_noise_is_measured_in_a_few_times_the_memory_of_its_errors():
    errors = normal_errors(np.ones(6000)).astype(np.float32)
    measure_noise(errors[:, :9], np.ones(9), BFLOAT16)  # what is imported once
    assert peak_memory(lambda: measure_noise(errors, np.ones(6000), BFLOAT16)) < 5 * errors.nbytes


@given(st.integers(0, 2**17))
@example(2**13 + 1)
@example(129 * 129)
def test_elements_are_looked_at_in_blocks_of_which_none_is_a_single_one(size):
    blocks = cut_elements(size)
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks)][: len(blocks)]
    assert sum(block.stop - block.start for block in blocks) == size
    assert all(block.stop - block.start > 1 for block in blocks) or size == 1


def test_elements_that_a_run_cannot_hold_are_not_judged():
    errors = normal_errors(np.ones(50))
    errors[3, 7], errors[2, 9] = np.inf, np.nan
    budget = estimate(errors, np.empty((0, 50)), np.ones(50), BFLOAT16)
    np.testing.assert_array_equal(np.flatnonzero(np.isinf(budget.scale)), [7, 9])


def test_both_having_the_same_infinity_is_no_error():
    expected = np.array([np.inf, -np.inf, 1.0, np.inf, np.nan])
    found = np.array([np.inf, -np.inf, 1.5, -np.inf, np.nan])
    errors = errors_of(found, expected)
    np.testing.assert_array_equal(errors, [0, 0, 0.5, -np.inf, np.nan])
    budget = estimate(np.array([errors] * NUM_RUNS, float), np.empty((0, 5)), expected, BFLOAT16)
    np.testing.assert_array_equal(np.isfinite(budget.scale), [True, True, True, False, False])


def test_further_runs_widen_what_they_clearly_exceed_and_nothing_else():
    budget = Budget(np.ones(3), 2.0)
    found = wider(budget, np.array([[1.5, 5.0, np.inf], [-1.5, -5.0, 1.0]]))
    np.testing.assert_allclose(found.scale, [1, 5, 1])
    assert found.freedom == 2.0


def test_a_jump_widens_the_element_that_jumps_and_no_other():
    errors = normal_errors(np.full(50, 1e-2))
    narrow = estimate(errors, np.empty((0, 50)), np.ones(50), BFLOAT16).scale
    jumps = np.zeros((FLIP_ROUNDS * FLIP_GROUPS, 50))
    jumps[4, 11] = 5.0
    widened = estimate(errors, jumps, np.ones(50), BFLOAT16).scale
    np.testing.assert_array_equal(np.flatnonzero(widened != narrow), [11])
    budget = estimate(errors, jumps, np.ones(50), BFLOAT16)
    assert worst_limit(50, budget.freedom) * widened[11] == pytest.approx(JUMP_MARGIN * 5)


@for_each("count", [1, 2, 4, 7, 9, 50])
def test_a_jump_of_one_element_passes_both_limits(count):
    errors = np.repeat(normal_errors(np.array([1e-2])), count, axis=1)  # all elements err as one
    jumps = np.zeros((FLIP_ROUNDS * FLIP_GROUPS, count))
    jumps[3, 0] = 5.0
    budget = estimate(errors, jumps, np.ones(count), BFLOAT16)
    units = jumps[3] / budget.scale
    worst, rms = limits_of(budget)
    assert units[0] <= worst / 1.2
    assert np.sqrt(np.mean(units**2)) <= rms / 1.2


@for_each("shared", [0.0, 0.7, 1.0])
@for_each("count", [3, 20, 400])
def test_a_tie_that_throws_a_whole_tensor_passes_both_limits_in_whichever_round(count, shared):
    random = np.random.RandomState(count)
    errors = (1 - shared) * normal_errors(np.ones(count)) + shared * normal_errors(np.ones(1))
    for run in (0, 6, 11):
        jumps = (1 - shared) * random.randn(FLIP_ROUNDS * FLIP_GROUPS, count)
        thrown = 100 * random.uniform(0.5, 1, count)
        jumps[run] += thrown
        budget = estimate(errors, jumps, np.ones(count), BFLOAT16)
        units = jumps[run] / budget.scale
        worst, rms = limits_of(budget)
        assert np.abs(units).max() <= worst / 1.2
        assert 0.5 * rms < np.sqrt(np.mean(units**2)) <= rms / 1.1  # and no further than they need


def test_a_tie_that_throws_an_element_out_of_range_leaves_it_unjudged_and_the_others_as_they_are():
    jumps = normal_errors(np.ones(50), FLIP_ROUNDS * FLIP_GROUPS)
    jumps[4] += 100
    without = estimate(normal_errors(np.ones(50)), jumps, np.ones(50), BFLOAT16)
    jumps[4, :3] = np.inf, -np.inf, np.nan
    budget = estimate(normal_errors(np.ones(50)), jumps, np.ones(50), BFLOAT16)
    np.testing.assert_array_equal(np.flatnonzero(np.isinf(budget.scale)), [0, 1, 2])
    np.testing.assert_allclose(budget.scale[3:], without.scale[3:], rtol=0.1)


def test_ties_that_throw_few_of_many_elements_widen_these_as_far_as_a_lone_one():
    errors = normal_errors(np.full(5000, 1e-2))
    jumps = np.zeros((FLIP_ROUNDS * FLIP_GROUPS, 5000))
    jumps[0, 7] = 5.0
    lone = estimate(errors, jumps, np.ones(5000), BFLOAT16)
    jumps[0, 7:17] = 5.0
    np.testing.assert_array_equal(estimate(errors, jumps, np.ones(5000), BFLOAT16).scale[7:17], lone.scale[7])


def test_an_element_may_jump_by_all_the_jumps_of_a_round():
    errors = normal_errors(np.full(50, 1e-2))
    jumps = np.zeros((FLIP_ROUNDS * FLIP_GROUPS, 50))
    jumps[:2, 11] = 5.0, -3.0
    budget = estimate(errors, jumps, np.ones(50), BFLOAT16)
    assert worst_limit(50, budget.freedom) * budget.scale[11] == pytest.approx(JUMP_MARGIN * 8)


def test_elements_that_nothing_touches_have_next_to_no_budget():
    errors = normal_errors(np.ones(50))
    errors[:, 20:] = 0
    expected = np.where(np.arange(50) < 20, 1.0, 0.0)
    scale = estimate(errors, np.empty((0, 50)), expected, BFLOAT16).scale
    assert 0 < scale[20:].max() < 2e-3 * scale[:20].min()
    nothing = estimate(np.zeros((NUM_RUNS, 50)), np.empty((0, 50)), np.zeros(50), BFLOAT16).scale
    np.testing.assert_array_equal(nothing, BFLOAT16.smallest)
