import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.naming import for_each
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds, sizes


@for_each("axis", [1, 2, 3, (2, 3), (1, 3)])
def test_average_pool_along_any_axis_is_the_mean(axis):
    x = normal(2, 3, 4, 5)
    np.testing.assert_allclose(ops.average_pool(x, axis)[0], x.mean(axis, keepdims=True), rtol=1e-14)


@settings(max_examples=20)
@given(st.tuples(sizes, sizes, sizes, sizes), seeds, st.sampled_from([1, 2, 3]))
def test_a_tied_maximum_sends_its_whole_gradient_to_the_first_index(shape, seed, axis):
    x = np.random.RandomState(seed).randint(0, 2, shape).astype(float)
    p, backward = ops.max_pool(x, axis)
    np.testing.assert_array_equal(p, x.max(axis=axis, keepdims=True))
    dx = backward(np.ones_like(p))
    first = np.cumsum(x == p, axis=axis) == 1
    np.testing.assert_array_equal(dx, first & (x == p))


def test_max_pool_agrees_with_pytorch_at_ties():
    torch = pytest.importorskip("torch")
    x = np.random.RandomState(0).randint(0, 3, (2, 5, 4, 3)).astype(float)
    dp = normal(2, 1, 4, 3, seed=1)
    value, backward = ops.max_pool(x, axis=1)
    p, (dx,) = torch_gradients(lambda t: torch.max(t, 1, keepdim=True)[0], dp, x)
    np.testing.assert_array_equal(value, p)
    np.testing.assert_array_equal(backward(dp), dx)
