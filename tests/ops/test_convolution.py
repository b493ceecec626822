import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from npattn import ops
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds, sizes

widths = st.sampled_from([1, 3, 5, 9])


@settings(max_examples=20)
@given(sizes, sizes, widths, seeds)
def test_value_is_scipy_correlation_with_zeros_beyond_the_ends(batch, length, k, seed):
    x, weight = normal(batch, length, seed=seed), normal(1, 1, k, seed=seed + 1)
    expected = ndimage.correlate1d(x, weight[0, 0], axis=1, mode="constant")
    np.testing.assert_allclose(ops.conv1d(x, weight)[0], expected, rtol=1e-12, atol=1e-13)


@settings(max_examples=20)
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


@st.composite
def planes(draw):
    """A map, a kernel, a bias or none, and how the one slides over the other."""
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding, dilation = (
        draw(st.tuples(st.integers(low, high), st.integers(low, high))) for low, high in ((0, 3), (1, 3))
    )
    stride = draw(st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    smallest = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    size = [n + draw(st.integers(0, 4)) for n in smallest]
    seed = draw(seeds)
    x = normal(draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), *size, seed=seed)
    weight = normal(groups * draw(st.integers(1, 2)), x.shape[1] // groups, *kernel, seed=seed + 1)
    bias = normal(weight.shape[0], seed=seed + 2) if draw(st.booleans()) else None
    return x, weight, bias, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@settings(max_examples=20)
@given(planes())
def test_conv2d_and_its_gradients_agree_with_pytorch(plane):
    torch = pytest.importorskip("torch")
    x, weight, bias, options = plane
    y, backward = ops.conv2d(x, weight, bias, **options)
    dy = normal(*y.shape, seed=3)
    arrays = [x, weight] if bias is None else [x, weight, bias]
    expected, gradients = torch_gradients(lambda *t: torch.nn.functional.conv2d(*t, **options), dy, *arrays)
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)
    found = backward(dy)
    assert (found[2] is None) == (bias is None)
    for ours, theirs in zip(found, gradients, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@settings(max_examples=20)
@given(planes(), seeds)
def test_conv2d_backward_is_the_adjoint_in_both_arguments(plane, seed):
    x, weight, _, options = plane
    y, backward = ops.conv2d(x, weight, **options)
    dy = normal(*y.shape, seed=seed)
    dx, dweight, _ = backward(dy)
    terms = np.sum(np.abs(dy * y)) + 1e-3
    for gradient, argument in ((dx, x), (dweight, weight)):  # bilinear: each derivative gives the value back
        np.testing.assert_allclose(np.sum(gradient * argument), np.sum(dy * y), rtol=0, atol=1e-12 * terms)


@pytest.mark.parametrize(("channels", "out"), [(8, 3), (6, 6)])
def test_taps_that_reach_no_position_give_zeros_and_receive_none(channels, out):
    x, weight = normal(2, channels, 5, 4), normal(out, channels, 2, 2, seed=1)
    y, backward = ops.conv2d(x, weight, padding=25, dilation=50)
    dx, dweight, _ = backward(np.ones_like(y))
    for value, shape in ((y, (2, out, 5, 4)), (dx, x.shape), (dweight, weight.shape)):
        np.testing.assert_array_equal(value, np.zeros(shape))
    _, backward = ops.conv2d(x, normal(out, channels, 3, 3), padding=(1, 9), dilation=(1, 9))
    _, dweight, _ = backward(np.ones_like(y))
    assert (dweight[..., 1] != 0).all()
    assert (dweight[..., [0, 2]] == 0).all()


@settings(max_examples=20)
@given(st.integers(1, 3), seeds)
def test_conv2d_of_one_channel_is_scipy_correlation(k, seed):
    x, kernel = normal(5, 6, seed=seed), normal(k, k, seed=seed + 1)
    y, _ = ops.conv2d(x[None, None], kernel[None, None])
    inside = tuple(slice(k // 2, k // 2 + n - k + 1) for n in x.shape)  # where the whole kernel lies on the map
    np.testing.assert_allclose(y[0, 0], ndimage.correlate(x, kernel)[inside], rtol=1e-11, atol=1e-13)


def test_a_one_by_one_convolution_is_a_matrix_product_and_copies_nothing_back_wrong():
    x, weight = normal(2, 3, 4, 5), normal(6, 3, 1, 1, seed=1)
    y, backward = ops.conv2d(x, weight)
    np.testing.assert_allclose(y, np.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x), rtol=1e-12)
    dx, _, _ = backward(np.ones_like(y))
    assert not np.shares_memory(dx, x)
    assert dx.flags.writeable


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_an_empty_batch_gives_an_empty_map_and_zero_parameter_gradients(kernel, groups):
    weight = normal(6, 4 // groups, kernel, kernel)
    y, backward = ops.conv2d(np.ones((0, 4, 5, 3)), weight, normal(6), padding=kernel // 2, groups=groups)
    assert y.shape == (0, 6, 5, 3)
    dx, dweight, dbias = backward(y)
    assert dx.shape == (0, 4, 5, 3)
    np.testing.assert_array_equal(dweight, np.zeros_like(weight))
    np.testing.assert_array_equal(dbias, np.zeros(6))
