import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import ops
from npattn.ops import windowing
from tests.ops.primitives import definitions, in_blocks, normal, patched, run_both, ulps, warned, worst_error
from tests.strategies import seeds, sizes


@st.composite
def windows(draw):
    """A map, a window and a stride no larger than it."""
    window = draw(st.integers(1, 5))
    return draw(st.tuples(sizes, sizes, sizes, sizes)), window, draw(st.integers(1, window)), draw(seeds)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_windows_lie_on_the_axis_and_cover_it(length, window, stride):
    stride = min(stride, window)
    starts = ops.window_starts(length, window, stride)
    size = min(window, length)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] + size == length
    assert all(b - a <= stride for a, b in itertools.pairwise(starts))
    assert all(start % stride == 0 for start in starts[:-1])


@given(windows())
def test_every_window_is_a_piece_of_the_map(case):
    shape, window, stride, seed = case
    x = normal(*shape, seed=seed)
    cut, _ = ops.unfold_windows(x, window, stride)
    h, w = min(window, shape[2]), min(window, shape[3])
    for r, i in enumerate(ops.window_starts(shape[2], window, stride)):
        for s, j in enumerate(ops.window_starts(shape[3], window, stride)):
            np.testing.assert_array_equal(cut[:, :, r, s], x[:, :, i : i + h, j : j + w])


@given(windows())
def test_cutting_out_and_laying_back_are_adjoint(case):
    shape, window, stride, seed = case
    x = normal(*shape, seed=seed)
    cut, back_unfold = ops.unfold_windows(x, window, stride)
    pieces = normal(*cut.shape, seed=seed + 1)
    folded, back_fold = ops.fold_windows(pieces, shape[2:], window, stride)
    np.testing.assert_allclose(np.sum(cut * pieces), np.sum(x * folded), rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(back_unfold(pieces), folded)
    np.testing.assert_array_equal(back_fold(x), cut)


@given(windows())
def test_folding_ones_counts_the_windows_over_each_position(case):
    shape, window, stride, _ = case
    cut, _ = ops.unfold_windows(np.ones(shape), window, stride)
    count, _ = ops.fold_windows(cut, shape[2:], window, stride)
    assert count.min() >= 1
    assert count[0, 0].sum() == cut[0, 0].size


def test_gradients_agree_with_the_complex_step():
    assert worst_error(lambda x: ops.unfold_windows(x, 3, 2), normal(1, 2, 4, 6)) < 1e-14
    assert worst_error(lambda w: ops.fold_windows(w, (4, 6), 3, 2), normal(1, 2, 2, 3, 3, 3)) < 1e-14


@given(windows())
def test_window_average_is_the_mean_of_every_window_cut_out(case):
    shape, window, stride, seed = case
    x = normal(*shape, seed=seed)
    cut, _ = ops.unfold_windows(x, window, stride)
    np.testing.assert_allclose(ops.window_average(x, window, stride)[0], cut.mean(axis=(4, 5)), rtol=1e-13, atol=1e-15)


@given(windows())
def test_overlap_average_is_the_mean_over_the_windows_that_hold_a_position(case):
    shape, window, stride, seed = case
    cut, _ = ops.unfold_windows(np.ones(shape), window, stride)
    z = normal(*cut.shape[:4], seed=seed)
    y, _ = ops.overlap_average(z, shape[2:], window, stride)
    h, w = cut.shape[4:]
    rows, columns = (ops.window_starts(length, window, stride) for length in shape[2:])
    for i, j in itertools.product(*map(range, shape[2:])):
        holding = [
            z[:, :, r, s]
            for r, top in enumerate(rows)
            for s, left in enumerate(columns)
            if top <= i < top + h and left <= j < left + w
        ]
        np.testing.assert_allclose(y[:, :, i, j], np.mean(holding, axis=0), rtol=1e-13, atol=1e-14)


@given(windows())
def test_averages_go_back_through_their_exact_adjoints(case):
    shape, window, stride, seed = case
    x = normal(*shape, seed=seed)
    p, back_average = ops.window_average(x, window, stride)
    z = normal(*p.shape, seed=seed + 1)
    y, back_overlap = ops.overlap_average(z, shape[2:], window, stride)
    np.testing.assert_allclose(np.sum(p * z), np.sum(x * back_average(z)), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(np.sum(y * x), np.sum(z * back_overlap(x)), rtol=1e-11, atol=1e-11)


@given(windows())
def test_averages_of_a_constant_are_that_constant(case):
    shape, window, stride, _ = case
    p, _ = ops.window_average(np.full(shape, 3.0), window, stride)
    y, _ = ops.overlap_average(p, shape[2:], window, stride)
    np.testing.assert_array_equal(p, 3.0)
    np.testing.assert_array_equal(y, 3.0)


def test_a_number_that_is_not_finite_reaches_its_own_windows_and_no_other():
    x = np.zeros((1, 1, 5, 7))
    x[0, 0, 0, 6] = np.inf
    p, _ = ops.window_average(x, 3, 2)
    np.testing.assert_array_equal(p[0, 0], [[0, 0, np.inf], [0, 0, 0]])
    y, _ = ops.overlap_average(p, (5, 7), 3, 2)
    expected = np.zeros((5, 7))
    expected[:3, 4:] = np.inf
    np.testing.assert_array_equal(y[0, 0], expected)


def test_average_gradients_agree_with_the_complex_step():
    assert worst_error(lambda x: ops.window_average(x, 3, 2), normal(1, 2, 4, 6)) < 1e-14
    assert worst_error(lambda z: ops.overlap_average(z, (4, 6), 3, 2), normal(1, 2, 2, 3)) < 1e-14


def test_windows_of_a_large_map_are_averaged_to_the_last_digits():
    x = normal(1, 1, 200, 200) + 1e6
    found, expected = (ops.window_average(a, 50, 7)[0] for a in (x, x.astype(np.longdouble)))
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-14)


# By products with matrices of ones and zeros


def averages(shape, window, stride):
    """The two averages and the shape that each takes."""
    counts = [len(ops.window_starts(length, window, stride)) for length in shape[2:]]
    yield lambda x: ops.window_average(x, window, stride), shape
    yield lambda z: ops.overlap_average(z, shape[2:], window, stride), (*shape[:2], *counts)


@given(windows())
def test_products_give_the_sums_by_pieces(case):
    shape, window, stride, seed = case
    for average, taken in averages(shape, window, stride):
        for found, expected in zip(*run_both(average, normal(*taken, seed=seed)), strict=True):
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "window", "stride"), [((7, 9), 12, 5), ((7, 9), 8, 3), ((10, 9), 4, 3), ((9, 11), 4, 4), ((1, 1), 1, 1)]
)
def test_products_serve_windows_longer_than_the_map_and_a_last_one_moved_inward(size, window, stride):
    for average, taken in averages((2, 3, *size), window, stride):
        for found, expected in zip(*run_both(average, normal(*taken)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(st.tuples(sizes, sizes, st.integers(1, 40), st.integers(1, 40)), st.integers(1, 20), st.data(), seeds)
def test_products_in_single_precision_are_within_8_ulps_of_the_largest(shape, window, data, seed):
    stride = data.draw(st.integers(1, window))
    for average, taken in averages(shape, window, stride):
        x = np.abs(normal(*taken, seed=seed)).astype(np.float32)  # sums that do not cancel
        with in_blocks():
            value, backward = average(x)
            found = value, backward(value)
        exact, back = average(x.astype(float))
        for ours, theirs in zip(found, (exact, back(value.astype(float))), strict=True):
            assert ulps(ours, theirs.astype(np.float32)) <= 8


def run(average, x, dy):
    value, backward = average(x)
    return value, backward(dy)


UNUSUAL = [np.inf, -np.inf, np.nan, 3e38, -3e38]


@given(windows(), st.lists(st.sampled_from(UNUSUAL), min_size=1, max_size=4), st.booleans())
def test_what_is_not_finite_or_nearly_so_is_added_up_by_pieces(case, values, in_gradient):
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


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_windows_and_positions_without_a_warning(value):
    x = np.zeros((1, 1, 5, 7), np.float32)
    x[0, 0, 0, 6] = value
    inside = np.zeros((5, 7), bool)
    inside[:3, 4:] = True
    with patched("MIN_PARALLEL_SIZE", 1):
        p, backward = ops.window_average(x, 3, 2)
        np.testing.assert_array_equal(p[0, 0], [[0, 0, value], [0, 0, 0]])
        np.testing.assert_array_equal(backward(p)[0, 0], np.where(inside, value, 0))
        y, backward = ops.overlap_average(p, (5, 7), 3, 2)
        np.testing.assert_array_equal(y[0, 0], np.where(inside, value, 0))
        np.testing.assert_array_equal(backward(x)[0, 0], p[0, 0])


def test_windows_whose_sum_overflows_where_they_overlap_leave_the_rest_as_it_is():
    z = np.array([[[[3e38, -3e38], [3e38, -3e38]]]], np.float32)  # that add up to 0
    with patched("MIN_PARALLEL_SIZE", 1), np.errstate(over="ignore"):
        x = windowing.spread(z, (4, 4), 3, 1)
    np.testing.assert_array_equal(x[0, 0, :2, ::3], np.array([[3e38, -3e38], [np.inf, -np.inf]], np.float32))
    np.testing.assert_array_equal(x[0, 0, :, 1:3], 0)


class Other(np.ndarray):
    """Another kind of array."""


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((2, 3, 5, 4), np.float32, True),
        ((2, 3, 5, 4), np.float64, True),
        ((2, 3, 5, 4), np.float16, False),
        ((2, 3, 5, 4), np.longdouble, False),
        ((2, 3, 5, 4), complex, False),
        ((2, 3, 5, 4), Other, False),
        ((2, 3, 5, 5), float, True),
        ((2, 10, 6, 2), float, False),  # too long a column
        ((2, 10, 2, 6), float, False),  # too long a row
        ((1, 7, 4, 4), float, False),  # too small a map
        ((1, 8, 3, 5), float, True),
    ],
)
def test_products_serve_large_plain_maps_of_short_rows_and_columns(shape, kind, expected, monkeypatch):
    made, membership = [], windowing.membership
    monkeypatch.setattr(windowing, "membership", lambda *arguments: made.append(arguments) or membership(*arguments))
    monkeypatch.setattr(windowing, "ENOUGH", 120)
    monkeypatch.setattr(windowing, "SHORT", 5)
    for average, taken in averages(shape, 3, 2):
        x, dy = normal(*taken), np.ones(average(normal(*taken))[0].shape)
        x, dy = (a.view(Other) if kind is Other else a.astype(kind) for a in (x, dy))
        made.clear()
        _, backward = average(x)
        assert bool(made) is expected
        made.clear()
        backward(dy)
        assert bool(made) is expected
