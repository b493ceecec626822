import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import polygamma

from npattn.oracle.budgets import shrink_variances
from npattn.oracle.budgets.measuring import NUM_RUNS
from npattn.oracle.budgets.shrinkage import effective_degrees_of_freedom, inverse_trigamma
from tests.oracle.budgets.runs import normal_errors


def test_variances_that_are_all_alike_shrink_to_one():
    scale = np.full((20, 30), 0.3)
    raw = np.mean(normal_errors(scale) ** 2, axis=0)
    found = shrink_variances(raw, np.ones_like(scale), NUM_RUNS)
    assert np.log(found / 0.09).std() < 0.25 * np.log(raw / 0.09).std()
    assert found.min() > 0.5 * 0.09 > raw.min()
    assert found.mean() == pytest.approx(0.09, rel=0.06)


@pytest.mark.parametrize("along", ["rows", "columns", "size"])
def test_variances_that_follow_from_place_or_size_are_found_element_by_element(along):
    random = np.random.RandomState(1)
    size = np.exp(random.standard_normal((60, 50)))
    scale = {"rows": np.geomspace(0.01, 10, 60)[:, None] * np.ones(50), "size": size}.get(along)
    scale = np.ones((60, 1)) * np.geomspace(0.01, 10, 50) if scale is None else scale
    raw = np.mean(normal_errors(scale) ** 2, axis=0)
    found = shrink_variances(raw, size if along == "size" else np.ones_like(scale), NUM_RUNS)
    assert np.sqrt(np.mean(np.log(found / scale**2) ** 2)) < 0.6 * np.sqrt(np.mean(np.log(raw / scale**2) ** 2))
    assert (found / scale**2).min() > 2 * (raw / scale**2).min()


def test_variances_that_follow_from_nothing_keep_most_of_their_own_estimate():
    scale = np.exp(2 * np.random.RandomState(2).standard_normal((40, 40)))
    raw = np.mean(normal_errors(scale) ** 2, axis=0)
    found = shrink_variances(raw, np.ones_like(scale), NUM_RUNS)
    assert np.corrcoef(np.log(found.ravel()), np.log(scale.ravel()))[0, 1] > 0.9


def test_a_few_elements_that_err_far_more_than_their_like_keep_their_own_estimate():
    scale = np.full((40, 50), 0.1)
    scale[::10, ::10] = 1.0
    raw = np.mean(normal_errors(scale) ** 2, axis=0)
    found = shrink_variances(raw, np.ones_like(scale), NUM_RUNS)
    np.testing.assert_array_equal(found[scale == 1], raw[scale == 1])
    assert found[scale < 1].max() < 0.05


def test_no_prior_variance_is_beyond_what_a_run_has_shown():
    random = np.random.RandomState(3)
    raw = np.exp(30 * random.standard_normal((8, 9)))
    assert shrink_variances(raw, np.ones_like(raw), NUM_RUNS).max() <= raw.max()


@given(st.floats(1e-3, 1e3))
def test_the_inverse_of_trigamma_is_one(x):
    assert inverse_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-6)


@pytest.mark.parametrize("independently", [1, 10, 1000])
def test_effective_degrees_of_freedom_are_bounded_from_below(independently):
    found = []
    for seed in range(60):
        errors = np.repeat(normal_errors(np.ones(independently), seed=seed), 5, axis=1)
        found.append(effective_degrees_of_freedom(np.mean(errors**2, axis=1), 5 * independently))
    assert np.mean(np.array(found) > independently) < 0.15
    assert np.median(found) > independently / 10
