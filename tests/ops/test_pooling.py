import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal, torch_gradients, worst_error
from tests.strategies import arrange, layouts, seeds, sizes


@given(st.tuples(sizes, sizes, sizes, sizes), layouts, seeds)
def test_average_is_the_mean_of_each_channel_in_every_layout(shape, layout, seed):
    x = arrange(normal(*shape, seed=seed), layout)
    expected = [[np.mean(channel) for channel in image] for image in x]
    np.testing.assert_allclose(ops.global_average_pool(x)[0], expected, rtol=1e-13, atol=1e-15)


def test_average_of_a_large_single_precision_map_keeps_its_digits():
    x = np.random.RandomState(0).uniform(0, 1, (1, 2, 300, 300)).astype(np.float32)
    np.testing.assert_allclose(ops.global_average_pool(x)[0], x.astype(float).mean(axis=(2, 3)), rtol=1e-6)


def test_average_gradient_agrees_with_the_complex_step():
    assert worst_error(ops.global_average_pool, normal(2, 3, 2, 4)) < 1e-14


def test_average_and_its_gradient_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    x, dp = normal(2, 3, 5, 4), normal(2, 3, seed=1)
    p, (dx,) = torch_gradients(lambda t: torch.nn.functional.adaptive_avg_pool2d(t, 1)[:, :, 0, 0], dp, x)
    value, backward = ops.global_average_pool(x)
    np.testing.assert_allclose(value, p, rtol=1e-13)
    np.testing.assert_allclose(backward(dp), dx, rtol=1e-13)
