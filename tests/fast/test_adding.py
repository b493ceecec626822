import functools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import in_blocks, normal, way_taken
from tests.ops.test_adding import summands
from tests.strategies import arrange


@settings(max_examples=20)
@given(summands(), st.sampled_from([np.float32, np.float64]))
def test_several_maps_are_added_from_left_to_right_into_fresh_memory(arrays, dtype):
    arrays = [a.astype(dtype) if a.dtype != dtype else a for a in arrays]
    with in_blocks():
        y, _ = ops.add(*arrays)
    np.testing.assert_array_equal(y, functools.reduce(operator.add, arrays))
    if len(arrays) > 1:
        assert y.flags.writeable
        assert not any(np.shares_memory(y, a) for a in arrays)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 1), (1, 4, 1), (3, 1, 5), (1, 1, 1)])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
def test_a_gradient_is_added_where_the_others_stand(shape, layout):
    total, gradient = arrange(normal(3, 4, 5), layout).copy(order="K"), normal(*shape, seed=1)
    expected = total + gradient
    with in_blocks():
        assert ops.accumulate(total, gradient) is total
    np.testing.assert_array_equal(total, expected)


def test_where_no_one_may_write_the_sum_is_another_map():
    total = np.broadcast_to(normal(3, 4, 1), (3, 4, 5))
    before = total.copy()
    with in_blocks():
        assert way_taken(ops.accumulate, total, before) == "definition"
        np.testing.assert_array_equal(ops.accumulate(total, before), 2 * before)
        assert ops.accumulate(None, before) is before
    np.testing.assert_array_equal(total, before)


def test_one_map_is_its_own_sum():
    x = normal(3, 4)
    with in_blocks():
        assert ops.add(x)[0] is x
