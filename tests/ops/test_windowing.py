import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal, worst_error
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
