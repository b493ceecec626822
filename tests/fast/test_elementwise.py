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
