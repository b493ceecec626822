import functools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops.context import definitions
from tests.fast.test_gating import spreads
from tests.ops.primitives import in_blocks, normal, run_both, ulps, way_taken
from tests.ops.test_adding import summands
from tests.strategies import arrange, layouts, seeds, sizes


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


@spreads
@settings(max_examples=12)
@given(st.tuples(sizes, sizes, sizes, sizes), st.tuples(layouts, layouts, layouts), seeds)
def test_shifts_in_blocks_are_those_of_the_definition_for_every_spread(spread, shape, laid_out, seed):
    of_x, of_t, of_dy = laid_out
    x, dy = (arrange(normal(*shape, seed=seed + i), layout) for i, layout in ((0, of_x), (1, of_dy)))
    t = np.asarray(normal(*spread(*shape), seed=seed + 2))
    t = arrange(t, of_t) if t.ndim else t
    (y, dx, dt), (plain_y, plain_dx, plain_dt) = run_both(ops.shift, x, t, dy=dy)
    np.testing.assert_array_equal(y, plain_y)
    np.testing.assert_array_equal(dx, plain_dx)
    assert dt.shape == t.shape
    np.testing.assert_allclose(dt, plain_dt, rtol=1e-12, atol=1e-13)


@spreads
@settings(max_examples=6)
@given(st.tuples(sizes, sizes, st.integers(1, 40), st.integers(1, 40)), seeds)
def test_shifts_in_single_precision_are_within_4_ulps_of_the_largest_by_definition(spread, shape, seed):
    # Sums that do not cancel.
    x, dy = (np.abs(normal(*shape, seed=seed + i)).astype(np.float32) for i in (0, 1))
    t = np.asarray(normal(*spread(*shape), seed=seed + 2)).astype(np.float32)
    (y, _, dt), (plain_y, _, plain_dt) = run_both(ops.shift, x, t, dy=dy)
    assert ulps(y, plain_y) == 0
    assert ulps(dt, plain_dt) <= 4


def test_a_shifts_gradient_of_other_numbers_goes_back_by_definition():
    x, t, dy = normal(6, 3, 5), normal(6, 3, seed=1), normal(6, 3, 5, seed=2).astype(np.float32)
    with in_blocks():
        _, backward = ops.shift(x, t)
        found = backward(dy)
    with definitions():
        expected = ops.shift(x, t)[1](dy)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
