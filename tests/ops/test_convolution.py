import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from npattn import ops
from tests.ops.primitives import normal, torch_gradients, worst_error
from tests.strategies import seeds, sizes

widths = st.sampled_from([1, 3, 5, 9])


@given(sizes, sizes, widths, seeds)
def test_value_is_scipy_correlation_with_zeros_beyond_the_ends(batch, length, k, seed):
    x, weight = normal(batch, length, seed=seed), normal(1, 1, k, seed=seed + 1)
    expected = ndimage.correlate1d(x, weight[0, 0], axis=1, mode="constant")
    np.testing.assert_allclose(ops.conv1d(x, weight)[0], expected, rtol=1e-12, atol=1e-13)


@given(sizes, sizes, widths, seeds)
def test_backward_is_the_adjoint_in_both_arguments(batch, length, k, seed):
    x, weight, dz = (
        normal(batch, length, seed=seed),
        normal(1, 1, k, seed=seed + 1),
        normal(batch, length, seed=seed + 2),
    )
    z, backward = ops.conv1d(x, weight)
    dx, dweight = backward(dz)
    assert dweight.shape == weight.shape
    for gradient, argument in ((dx, x), (dweight, weight)):  # bilinear: each derivative gives the value back
        np.testing.assert_allclose(np.sum(gradient * argument), np.sum(dz * z), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_gradients_agree_with_the_complex_step(length, k):
    assert worst_error(ops.conv1d, normal(2, length), normal(1, 1, k, seed=1)) < 1e-12


def test_value_and_gradients_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    x, weight, dz = normal(3, 10), normal(1, 1, 5, seed=1), normal(3, 10, seed=2)
    expected, gradients = torch_gradients(
        lambda t, w: torch.nn.functional.conv1d(t[:, None], w, padding=2)[:, 0], dz, x, weight
    )
    z, backward = ops.conv1d(x, weight)
    np.testing.assert_allclose(z, expected, rtol=1e-12)
    for ours, theirs in zip(backward(dz), gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
