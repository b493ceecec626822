from contextlib import nullcontext

import numpy as np
import pytest

from npattn import ops
from npattn.fast.elementwise import are_finite
from tests.ops.primitives import in_blocks, normal

SPECIAL = [-np.inf, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, np.inf, np.nan, -np.nan]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("of_gradient", [np.float32, np.float64])
def test_every_gradient_is_kept_or_dropped_as_it_is(dtype, of_gradient):
    x, dy = (a.ravel() for a in np.meshgrid(np.array(SPECIAL, dtype), np.array(SPECIAL, of_gradient)))
    with in_blocks():
        y, backward = ops.relu(x)
        dx = backward(dy)
    expected, back = ops.relu.definition(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, back(dy))
    assert y.dtype == dtype
    assert dx.dtype == of_gradient


@pytest.mark.parametrize("slope", [-0.5, 0, 1e-300, 0.3, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("of_gradient", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:invalid value")  # of 0 times infinity
def test_a_leaky_relu_of_any_slope_is_that_of_the_definition_to_the_bit(slope, dtype, of_gradient):
    x, dy = (a.ravel() for a in np.meshgrid(np.array(SPECIAL, dtype), np.array(SPECIAL, of_gradient)))
    with in_blocks():
        y, backward = ops.leaky_relu(x, slope)
        dx = backward(dy)
    expected, back = ops.leaky_relu.definition(x, slope)
    for found, one in ((y, expected), (dx, back(dy))):
        np.testing.assert_array_equal(found, one)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(one))
        assert found.dtype == one.dtype


@pytest.mark.parametrize("size", [in_blocks, nullcontext], ids=["large", "small"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_seen_wherever_it_stands(size, value):
    arrays = normal(3, 2, 4, 5), normal(2, 3)
    with size():
        assert are_finite(*arrays)
        for a in arrays:
            for place in range(a.size):
                kept, a.flat[place] = a.flat[place], value
                assert not are_finite(*arrays)
                a.flat[place] = kept


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoids_of_all_sizes_are_those_of_the_definition_to_the_rounding_of_their_argument(dtype):
    x = np.concatenate([-np.geomspace(1e-6, 200, 300), np.geomspace(1e-6, 200, 300), [0.0, -0.0]]).astype(dtype)
    for some in (x[x > -80], x, x[x < 1]):
        with in_blocks(2):
            y, backward = ops.sigmoid(some)
            dx = backward(np.ones_like(some))
        exact, back = ops.sigmoid.definition(some.astype(np.longdouble))
        tolerance = (8 + np.abs(some)) * np.finfo(dtype).eps
        for found, expected in ((y, exact), (dx, back(np.ones_like(exact)))):
            assert (np.abs(found - expected) <= tolerance * expected + np.finfo(dtype).tiny).all()
