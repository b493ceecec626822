import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops.context import definitions
from npattn.ops.windowing import add_windows, window_sums
from tests.naming import for_each
from tests.ops.primitives import in_blocks, normal, patched, run_both, ulps, warned, way_taken
from tests.ops.test_windowing import windows
from tests.strategies import seeds, sizes


def averages(shape, window, stride):
    """The two averages and the shape that each takes."""
    counts = [len(ops.window_starts(length, window, stride)) for length in shape[2:]]
    yield lambda x: ops.window_average(x, window, stride), shape
    yield lambda z: ops.overlap_average(z, shape[2:], window, stride), (*shape[:2], *counts)


both_ways = pytest.mark.parametrize("longest", [128, 0], ids=["products", "runs"])


@both_ways
@settings(max_examples=20)
@given(windows())
def test_averages_are_those_of_the_definition(longest, case):
    shape, window, stride, seed = case
    with patched("MAX_SIDE", longest):
        for average, taken in averages(shape, window, stride):
            for found, expected in zip(*run_both(average, normal(*taken, seed=seed)), strict=True):
                assert found.shape == expected.shape
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@both_ways
@pytest.mark.parametrize(
    ("size", "window", "stride"), [((7, 9), 12, 5), ((7, 9), 8, 3), ((10, 9), 4, 3), ((9, 11), 4, 4), ((1, 1), 1, 1)]
)
def test_windows_may_be_longer_than_the_map_and_the_last_one_is_moved_inward(longest, size, window, stride):
    with patched("MAX_SIDE", longest):
        for average, taken in averages((2, 3, *size), window, stride):
            for found, expected in zip(*run_both(average, normal(*taken)), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@both_ways
@settings(max_examples=20)
@given(st.tuples(sizes, sizes, st.integers(1, 40), st.integers(1, 40)), st.integers(1, 20), st.data(), seeds)
def test_single_precision_is_within_8_ulps_of_the_largest(longest, shape, window, data, seed):
    stride = data.draw(st.integers(1, window))
    for average, taken in averages(shape, window, stride):
        x = np.abs(normal(*taken, seed=seed)).astype(np.float32)  # sums that do not cancel
        with in_blocks(), patched("MAX_SIDE", longest):
            value, backward = average(x)
            found = value, backward(value)
        exact, back = average(x.astype(float))
        for ours, theirs in zip(found, (exact, back(value.astype(float))), strict=True):
            assert ulps(ours, theirs.astype(np.float32)) <= 8


def run(average, x, dy):
    value, backward = average(x)
    return value, backward(dy)


UNUSUAL = [np.inf, -np.inf, np.nan, 3e38, -3e38]


@settings(max_examples=20)
@given(windows(), st.lists(st.sampled_from(UNUSUAL), min_size=1, max_size=4), st.booleans())
def test_products_leave_what_is_not_finite_or_nearly_so_to_the_definition(case, values, in_gradient):
    shape, window, stride, seed = case
    random = np.random.RandomState(seed)
    for average, taken in averages(shape, window, stride):
        x = normal(*taken, seed=seed).astype(np.float32)
        dy = np.ones_like(average(x)[0])
        holding = dy if in_gradient else x
        for value in values:
            holding.flat[random.randint(0, holding.size)] = value
        with definitions():
            expected, expected_warnings = warned(run, average, x, dy)
        with in_blocks():
            found, warnings = warned(run, average, x, dy)
        for ours, theirs in zip(found, expected, strict=True):
            if np.isfinite(theirs).all():
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * np.abs(theirs).max())
            else:
                np.testing.assert_array_equal(ours, theirs)
        assert warnings <= expected_warnings


@both_ways
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_windows_and_positions_without_a_warning(longest, value):
    x = np.zeros((1, 1, 5, 7), np.float32)
    x[0, 0, 0, 6] = value
    inside = np.zeros((5, 7), bool)
    inside[:3, 4:] = True
    with in_blocks(), patched("MAX_SIDE", longest):
        p, backward = ops.window_average(x, 3, 2)
        np.testing.assert_array_equal(p[0, 0], [[0, 0, value], [0, 0, 0]])
        np.testing.assert_array_equal(backward(p)[0, 0], np.where(inside, value, 0))
        y, backward = ops.overlap_average(p, (5, 7), 3, 2)
        np.testing.assert_array_equal(y[0, 0], np.where(inside, value, 0))
        np.testing.assert_array_equal(backward(x)[0, 0], p[0, 0])


def test_windows_whose_sum_overflows_where_they_overlap_leave_the_rest_as_it_is():
    z = np.array([[[[3e38, -3e38], [3e38, -3e38]]]], np.float32)  # that add up to 0
    with in_blocks(), np.errstate(over="ignore"):
        x = add_windows(z, (4, 4), 3, 1)
    np.testing.assert_array_equal(x[0, 0, :2, ::3], np.array([[3e38, -3e38], [np.inf, -np.inf]], np.float32))
    np.testing.assert_array_equal(x[0, 0, :, 1:3], 0)


@for_each(
    ("shape", "expected"),
    [
        ((2, 3, 5, 4), "by_products"),  # 120 numbers
        ((2, 3, 5, 5), "by_products"),
        ((1, 7, 4, 4), "definition"),
        ((1, 119, 1, 1), "definition"),
        ((2, 10, 6, 2), "by_runs"),  # too long a column
        ((2, 10, 2, 6), "by_runs"),  # too long a row
        ((1, 1, 6, 19), "definition"),
    ],
)
def test_products_serve_large_maps_of_short_rows_and_columns_and_runs_other_large_ones(shape, expected):
    counts = [len(ops.window_starts(length, 3, 2)) for length in shape[2:]]
    with patched("MIN_PARALLEL_SIZE", 120), patched("MAX_SIDE", 5):
        found = (
            way_taken(window_sums, np.ones(shape), 3, 2),
            way_taken(add_windows, np.ones((*shape[:2], *counts)), shape[2:], 3, 2),
        )
    assert found == tuple(
        expected if expected == "definition" else f"{p.__name__}_{expected}" for p in (window_sums, add_windows)
    )
