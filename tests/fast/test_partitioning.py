import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npattn import ops
from npattn.fast.partitioning import join_windows, partition, roll

SIDES = st.tuples(st.integers(1, 6), st.integers(1, 6))
SHIFTS = st.tuples(st.integers(-7, 7), st.integers(-7, 7))


def maps(height, width):
    """Two images of two channels; their rows lie apart, and the numbers of a row too."""
    numbers = np.arange(4 * height * width, dtype=np.float32)
    return numbers.reshape(2, 2, width, height).swapaxes(2, 3)


@given(SIDES, SHIFTS)
def test_a_map_rolls_by_any_number_of_rows_and_columns(size, shift):
    x = maps(*size)
    for given_map in (x, x.copy()):
        expected = np.roll(given_map, (-shift[0], -shift[1]), axis=(2, 3))
        np.testing.assert_array_equal(roll(given_map, shift), expected)


@given(SIDES, SIDES)
def test_windows_are_cut_and_laid_side_by_side_as_by_definition_wherever_numbers_lie(window, count):
    x = maps(window[0] * count[0], window[1] * count[1])
    expected, back = ops.window_partition.definition(x, window)
    np.testing.assert_array_equal(partition(x, window), expected)
    dwindows = np.ascontiguousarray(expected.swapaxes(2, 3)).swapaxes(2, 3)
    np.testing.assert_array_equal(join_windows(dwindows, window, x.shape[2:]), back(dwindows))
