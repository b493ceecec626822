import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds

lengths = st.integers(1, 9)
extents = st.integers(1, 5)


@settings(max_examples=30)
@given(lengths, lengths, extents, seeds)
def test_value_and_gradient_agree_with_pytorchs_pool_that_does_not_count_padding(height, width, extent, seed):
    torch = pytest.importorskip("torch")
    x = normal(2, 3, height, width, seed=seed)
    dp = normal(2, 3, -(-height // extent), -(-width // extent), seed=seed + 1)

    def published(t):
        side = 2 * extent - 1
        return torch.nn.functional.avg_pool2d(t, side, extent, side // 2, count_include_pad=False)

    p, (dx,) = torch_gradients(published, dp, x)
    value, backward = ops.gather_average(x, extent)
    np.testing.assert_allclose(value, p, rtol=0, atol=1e-14)
    np.testing.assert_allclose(backward(dp), dx, rtol=0, atol=1e-13)


@given(lengths, lengths, extents)
def test_the_average_of_equal_numbers_is_that_number_at_edges_too(height, width, extent):
    p, backward = ops.gather_average(np.full((1, 1, height, width), 3.0), extent)
    np.testing.assert_allclose(p, 3.0, rtol=1e-15)
    np.testing.assert_allclose(backward(np.ones_like(p)).sum(), p.size, rtol=1e-13)


def test_an_extent_of_one_gathers_nothing():
    x = normal(2, 3, 4, 5)
    p, backward = ops.gather_average(x, 1)
    np.testing.assert_array_equal(p, x)
    np.testing.assert_array_equal(backward(x), x)
