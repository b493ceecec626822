import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal
from tests.strategies import seeds, sizes


@st.composite
def windows(draw):
    """A map, a window and a stride no larger than it."""
    window = draw(st.integers(1, 5))
    return draw(st.tuples(sizes, sizes, sizes, sizes)), window, draw(st.integers(1, window)), draw(seeds)


@settings(max_examples=20)
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


@settings(max_examples=20)
@given(windows())
def test_every_window_is_a_piece_of_the_map(case):
    shape, window, stride, seed = case
    x = normal(*shape, seed=seed)
    cut, _ = ops.unfold_windows(x, window, stride)
    h, w = min(window, shape[2]), min(window, shape[3])
    for r, i in enumerate(ops.window_starts(shape[2], window, stride)):
        for s, j in enumerate(ops.window_starts(shape[3], window, stride)):
            np.testing.assert_array_equal(cut[:, :, r, s], x[:, :, i : i + h, j : j + w])


@settings(max_examples=20)
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


@settings(max_examples=20)
@given(windows())
def test_folding_ones_counts_the_windows_over_each_position(case):
    shape, window, stride, _ = case
    cut, _ = ops.unfold_windows(np.ones(shape), window, stride)
    count, _ = ops.fold_windows(cut, shape[2:], window, stride)
    assert count.min() >= 1
    assert count[0, 0].sum() == cut[0, 0].size


@settings(max_examples=20)
@given(windows())
def test_window_average_is_the_mean_of_every_window_cut_out(case):
    shape, window, stride, seed = case
    x = normal(*shape, seed=seed)
    cut, _ = ops.unfold_windows(x, window, stride)
    np.testing.assert_allclose(ops.window_average(x, window, stride)[0], cut.mean(axis=(4, 5)), rtol=1e-13, atol=1e-15)


@settings(max_examples=20)
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


@settings(max_examples=20)
@given(windows())
def test_averages_go_back_through_their_exact_adjoints(case):
    shape, window, stride, seed = case
    x = normal(*shape, seed=seed)
    p, back_average = ops.window_average(x, window, stride)
    z = normal(*p.shape, seed=seed + 1)
    y, back_overlap = ops.overlap_average(z, shape[2:], window, stride)
    np.testing.assert_allclose(np.sum(p * z), np.sum(x * back_average(z)), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(np.sum(y * x), np.sum(z * back_overlap(x)), rtol=1e-11, atol=1e-11)


@settings(max_examples=20)
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


def test_windows_of_a_large_map_are_averaged_to_the_last_digits():
    x = normal(1, 1, 200, 200) + 1e6
    found, expected = (ops.window_average(a, 50, 7)[0] for a in (x, x.astype(np.longdouble)))
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-14)
