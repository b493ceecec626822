import numpy as np
import pytest

from npattn import ops
from tests.ops.primitives import in_blocks

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
