import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal
from tests.strategies import seeds, sizes


@st.composite
def parts(draw):
    """Arrays that are alike but for their lengths along an axis, 0 among them, and that axis."""
    shape = draw(st.lists(sizes, min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    arrays = []
    for length in draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)):
        shape[axis] = length
        arrays.append(normal(*shape, seed=draw(seeds)))
    return arrays, axis


@settings(max_examples=20)
@given(parts())
def test_each_part_stands_where_the_parts_before_it_end(case):
    arrays, axis = case
    y, _ = ops.concatenate(arrays, axis)
    start = 0
    for array in arrays:
        stretch = np.take(y, range(start, start + array.shape[axis]), axis)
        np.testing.assert_array_equal(stretch, array)
        start += array.shape[axis]
    assert y.shape[axis] == start


@settings(max_examples=20)
@given(parts())
def test_splitting_undoes_joining_and_each_carries_the_others_gradient(case):
    arrays, axis = case
    sizes = [array.shape[axis] for array in arrays]
    y, back_join = ops.concatenate(arrays, axis)
    cut, back_split = ops.split(y, sizes, axis)
    for found in (cut, back_join(y)):
        assert isinstance(found, tuple)
        assert len(found) == len(arrays)
        for part, array in zip(found, arrays, strict=True):
            np.testing.assert_array_equal(part, array)
    np.testing.assert_array_equal(back_split(arrays), y)


def test_neither_takes_a_part_twice_or_leaves_one_out():
    x = np.arange(6.0).reshape(2, 3)
    (first, second), backward = ops.split(x, (1, 2), axis=1)
    np.testing.assert_array_equal(first, [[0], [3]])
    np.testing.assert_array_equal(second, [[1, 2], [4, 5]])
    np.testing.assert_array_equal(backward((second, first)), [[1, 2, 0], [4, 5, 3]])


@given(sizes, sizes, st.integers(0, 3), seeds)
def test_channels_of_groups_are_dealt_out_in_turn_and_the_other_number_of_groups_undoes_it(groups, each, batch, seed):
    x = normal(batch, groups * each, 2, seed=seed)
    y, backward = ops.channel_shuffle(x, groups)
    for place in range(groups * each):
        turn, group = divmod(place, groups)
        np.testing.assert_array_equal(y[:, place], x[:, group * each + turn])
    np.testing.assert_array_equal(ops.channel_shuffle(y, each)[0], x)
    np.testing.assert_array_equal(backward(y), x)
