"""Parts of an array that are rounded one by one are all of it, once each, however it lies in memory."""

import numpy as np
import pytest

from npattn.oracle.rounding.cutting import BLOCK_BYTES, cut_row, cut_rows, cut_slabs, is_small, square_product

LARGE = BLOCK_BYTES // 8


def laid(shape, how):
    """An array of zeros that lies in memory in one of several ways."""
    if how == "transposed":
        return np.zeros(shape[::-1]).T
    return np.zeros(shape) if how == "contiguous" else np.zeros((*shape[:-1], 2 * shape[-1]))[..., ::2]


@pytest.mark.parametrize("how", ["contiguous", "transposed", "sliced"])
@pytest.mark.parametrize("cut", [cut_row, cut_slabs])
@pytest.mark.parametrize("shape", [(), (5,), (LARGE + 3,), (3, LARGE // 2), (LARGE // 2, 3), (1, 2, 1, LARGE), (0, 4)])
def test_parts_of_an_array_hold_each_number_once_in_order(cut, shape, how):
    values = laid(shape, how) if shape else np.zeros(())
    parts = cut(values)
    start = 0
    for part in parts:
        assert part.size or not values.size
        part[...] = start + np.arange(part.size).reshape(part.shape)
        start += part.size
    np.testing.assert_array_equal(values, np.arange(values.size).reshape(shape))


def test_parts_are_small_where_numbers_are_many():
    values = np.zeros((3, LARGE))
    assert is_small(np.zeros(LARGE))
    assert not is_small(np.zeros(1), np.zeros(LARGE + 1))
    assert len(cut_row(values)) == 3
    assert all(map(is_small, cut_row(values)))
    assert all(4 * part.nbytes <= BLOCK_BYTES for part in cut_slabs(values))


@pytest.mark.parametrize("shape", [(4, 5), (3, 2000, 40), (2, 1, 300, 7), (0, 3, 4), (1000, 0)])
def test_rows_of_a_product_are_in_one_block_each(shape):
    total = np.zeros(shape)
    for block in cut_rows(total):
        total[block] += 1
    np.testing.assert_array_equal(total, 1)


@pytest.mark.parametrize("columns", [3, LARGE // 8])
def test_a_product_with_squares_is_that_of_all_columns(columns):
    random = np.random.RandomState(0)
    a, b = random.standard_normal((2, 40)), random.standard_normal((40, columns))
    np.testing.assert_allclose(square_product(a, b, squared=False), a @ b**2, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(square_product(a, b, squared=True), a @ b, rtol=1e-12, atol=1e-12)
