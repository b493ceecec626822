import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds

lengths, sides = st.integers(1, 7), st.integers(1, 4)
sizes, windows = st.tuples(lengths, lengths), st.tuples(sides, sides)
every = settings(max_examples=20)


@every
@given(sizes, st.tuples(st.integers(-9, 9), st.integers(-9, 9)), seeds)
def test_a_shift_is_pytorchs_roll_the_other_way(size, shift, seed):
    torch = pytest.importorskip("torch")
    x, dy = normal(2, 3, *size, seed=seed), normal(2, 3, *size, seed=seed + 1)
    back = tuple(-s for s in shift)
    expected, (dx,) = torch_gradients(lambda t: torch.roll(t, back, (2, 3)), dy, x)
    y, backward = ops.cyclic_shift(x, shift)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(backward(dy), dx)
    np.testing.assert_array_equal(ops.cyclic_shift(y, back)[0], x)


@every
@given(sizes, windows, seeds)
def test_every_window_is_a_piece_of_the_map_and_zeros(size, window, seed):
    x, (h, w) = normal(2, 3, *size, seed=seed), window
    found, _ = ops.window_partition(x, window)
    expected = []
    for i in range(0, size[0], h):
        for j in range(0, size[1], w):
            piece = np.zeros((2, 3, h, w))
            inside = x[:, :, i : i + h, j : j + w]
            piece[:, :, : inside.shape[2], : inside.shape[3]] = inside
            expected.append(piece.reshape(2, 3, h * w))
    np.testing.assert_array_equal(found, np.stack(expected, axis=2))


@every
@given(sizes, windows, seeds)
def test_cutting_and_laying_out_are_adjoint_and_inverse(size, window, seed):
    x = normal(2, 3, *size, seed=seed)
    cut, back_cut = ops.window_partition(x, window)
    pieces = normal(*cut.shape, seed=seed + 1)
    laid, back_layout = ops.window_reverse(pieces, window, size)
    np.testing.assert_allclose((cut * pieces).sum(), (x * laid).sum(), rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(back_cut(pieces), laid)
    np.testing.assert_array_equal(back_layout(x), cut)
    np.testing.assert_array_equal(ops.window_reverse(cut, window, size)[0], x)


@every
@given(windows, st.integers(1, 3), st.booleans(), seeds)
def test_pairs_that_are_as_far_apart_share_a_number_and_its_gradient(size, count, flat, seed):
    (h, w), n = size, size[0] * size[1]
    shape = ((2 * h - 1) * (2 * w - 1), count) if flat else (2 * h - 1, 2 * w - 1, count)
    table, dg = normal(*shape, seed=seed), normal(count, n, n, seed=seed + 1)
    g, backward = ops.gather_relative(table, size)
    laid_out, expected = table.reshape(2 * h - 1, 2 * w - 1, count), np.zeros((2 * h - 1, 2 * w - 1, count))
    for i, j in np.ndindex(n, n):
        at = i // w - j // w + h - 1, i % w - j % w + w - 1
        np.testing.assert_array_equal(g[:, i, j], laid_out[at])
        expected[at] += dg[:, i, j]
    np.testing.assert_allclose(backward(dg), expected.reshape(shape), rtol=0, atol=1e-13)


def test_a_gradient_that_is_not_finite_reaches_its_own_entry_of_the_table_alone():
    _, backward = ops.gather_relative(np.zeros((3, 5, 1)), (2, 3))
    dg = np.zeros((1, 6, 6))
    dg[0, 0, 5] = np.nan
    expected = np.zeros((3, 5, 1), bool)
    expected[0, 0] = True
    np.testing.assert_array_equal(np.isnan(backward(dg)), expected)
