import threading

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import npattn
from npattn.oracle import cases, golden
from npattn.oracle.budgets import Budget, Given, limits_of, measure_budgets, measuring, rms_limit, run_on, worst_limit
from npattn.oracle.budgets.measuring import (
    JUMP_MARGIN,
    NUM_RUNS,
    allow_jumps,
    cut_elements,
    errors_of,
    largest_jumps,
    measure_noise,
    wider,
)
from npattn.oracle.budgets.near_ties import FLIP_GROUPS, FLIP_ROUNDS
from npattn.oracle.formats import FORMATS, ulp
from npattn.oracle.rounding import Rounding
from npattn.oracle.threads import PassThreads
from tests.memory import peak_memory
from tests.naming import for_each
from tests.oracle.budgets.runs import BFLOAT16, measured, normal_errors, prepared


def estimate(errors, jumps, expected, format):
    farthest = None
    for first in range(0, len(jumps), FLIP_GROUPS):
        farthest = largest_jumps(jumps[first : first + FLIP_GROUPS], farthest)
    return allow_jumps(measure_noise(errors, expected, format), farthest)


def test_elements_that_all_runs_round_to_the_same_number_get_the_priors_variance():
    """Near a number of a coarser format eight runs may all stay there; the next one need not."""
    expected = np.random.RandomState(4).uniform(1, 2, 500)
    errors = normal_errors(np.full(500, 0.1))
    errors[:, :5] = 1e-3
    scale = estimate(errors, np.empty((0, 500)), expected, FORMATS["float32"]).scale
    assert scale[:5].min() > 0.05
    errors[3, :5] = 2e-3  # one that moves says how far
    assert estimate(errors, np.empty((0, 500)), expected, FORMATS["float32"]).scale[:5].max() < 0.05


@pytest.mark.parametrize(
    ("memory", "array", "at_once"), [(0, 2**20, 2), (10**6, 2**20, 8), (10**6, 2**17, 2), (10**6, 100, 1)]
)
def test_as_many_runs_are_made_at_once_as_fit_into_memory_and_are_worth_it(memory, array, at_once, monkeypatch):
    monkeypatch.setattr(measuring, "MAX_MEMORY", memory)
    monkeypatch.setattr(measuring, "MIN_MEMORY", 0)
    lock, meeting, running, most = threading.Lock(), threading.Barrier(at_once, timeout=300), 0, 0

    def run(*arguments, **options):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait()
        found = run_on(*arguments, **options)
        with lock:
            running -= 1
        return found

    module = npattn.ChannelAttention(4)
    values, observed = prepared(module, format=FORMATS["float32"])
    monkeypatch.setattr(measuring, "run_on", run)
    observed = observed._replace(mean_array=array)
    assert measure_budgets(observed, module, values, FORMATS["float32"], 0, threads=PassThreads(8))
    assert most == at_once


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


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "tf32"])
def test_a_gradient_that_is_0_throughout_may_be_made_of_terms_that_are_rounded_apart(name):
    """Softmax over one position, as exponentials and their sum."""
    [recipe] = [one for one in cases("ops.softmax", [name]) if one.id.endswith("3x16x1x1")]
    case = recipe.make()
    x, dy = (np.float32(a) for a in (case.inputs["x"], case.upstream["output"]))
    e = np.exp(x)
    gradient = e * (dy / e - dy * e / (e * e))
    assert not case.expected["x.grad"].any()
    assert gradient.any()
    results = {"output": np.ones_like(x), "x.grad": gradient}
    assert case.compare(results).passed
    results["x.grad"] = dy  # without the sum
    assert not case.compare(results).passed
