import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npattn import ops
from npattn.ops.elementwise import ACTIVATIONS, GATES
from tests.naming import for_each
from tests.ops.primitives import normal, torch_gradients

finite = hnp.arrays(np.float64, hnp.array_shapes(max_dims=4, max_side=4), elements=st.floats(-1e3, 1e3))
TINY = np.finfo(np.float64).tiny


@settings(max_examples=20)
@given(finite)
def test_sigmoid_agrees_with_scipy(x):
    np.testing.assert_allclose(ops.sigmoid(x)[0], scipy.special.expit(x), rtol=1e-15, atol=TINY)


@settings(max_examples=20)
@given(finite)
def test_sigmoid_slope_keeps_its_digits_where_the_sigmoid_saturates(x):
    slope = ops.sigmoid(x)[1](np.ones_like(x))
    np.testing.assert_allclose(slope, scipy.special.expit(x) * scipy.special.expit(-x), rtol=4e-15, atol=TINY)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_sigmoid_neither_overflows_nor_leaves_its_dtype(dtype):
    extreme = np.finfo(dtype).max
    x = np.array([-np.inf, -extreme, -100, -0.0, 0, 100, extreme, np.inf, np.nan], dtype)
    y, backward = ops.sigmoid(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[[0, 1, 3, 4, 6, 7, 8]], np.array([0, 0, 0.5, 0.5, 1, 1, np.nan], dtype))
    slope = backward(np.ones_like(x))
    assert slope.dtype == dtype
    np.testing.assert_array_equal(slope[[0, 1, 3, 4, 6, 7, 8]], np.array([0, 0, 0.25, 0.25, 0, 0, np.nan], dtype))


@settings(max_examples=20)
@given(finite)
def test_tanh_is_odd_and_its_slope_keeps_its_digits_where_it_saturates(x):
    y, backward = ops.tanh(x)
    np.testing.assert_array_equal(ops.tanh(-x)[0], -y)
    with np.errstate(over="ignore"):
        slope = np.cosh(x) ** -2.0
    np.testing.assert_allclose(backward(np.ones_like(x)), slope, rtol=1e-14, atol=TINY)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_tanh_neither_overflows_nor_leaves_its_dtype(dtype):
    extreme = np.finfo(dtype).max
    x = np.array([-np.inf, -extreme, -0.0, 0, extreme, np.inf, np.nan], dtype)
    y, backward = ops.tanh(x)
    slope = backward(np.ones_like(x))
    assert y.dtype == slope.dtype == dtype
    np.testing.assert_array_equal(y, np.array([-1, -1, -0.0, 0, 1, 1, np.nan], dtype))
    np.testing.assert_array_equal(slope, np.array([0, 0, 1, 1, 0, 0, np.nan], dtype))


def test_relu_keeps_positive_numbers_and_passes_nan_and_infinity():
    x = np.array([-np.inf, -1, -0.0, 0, 1, np.inf, np.nan])
    y, backward = ops.relu(x)
    np.testing.assert_array_equal(y, [0, 0, 0, 0, 1, np.inf, np.nan])
    np.testing.assert_array_equal(backward(np.full(7, 2.0)), [0, 0, 0, 0, 2, 2, 2])


@pytest.mark.parametrize("primitive", ["relu", "sigmoid", "tanh"])
def test_value_and_gradient_agree_with_pytorch_at_kinks_too(primitive):
    torch = pytest.importorskip("torch")
    x = np.concatenate([normal(20), [0.0, -0.0, 700.0, -700.0]])
    dy = normal(24, seed=1)
    y, (dx,) = torch_gradients(getattr(torch, primitive), dy, x)
    value, backward = getattr(ops, primitive)(x)
    np.testing.assert_allclose(value, y, rtol=1e-15, atol=1e-300)
    np.testing.assert_allclose(backward(dy), dx, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ["hard_sigmoid", "hard_swish"])
def test_hard_functions_and_their_corners_agree_with_the_published_code(name):
    torch = pytest.importorskip("torch")

    def published(t):
        gate = torch.nn.functional.relu6(t + 3) / 6
        return gate if name == "hard_sigmoid" else t * gate

    x = np.concatenate([normal(50) * 4, [-3.0, 3.0, 0.0, -1e9, 1e9]])
    dy = normal(55, seed=1)
    y, (dx,) = torch_gradients(published, dy, x)
    value, backward = getattr(ops, name)(x)
    np.testing.assert_allclose(value, y, rtol=1e-15)
    np.testing.assert_allclose(backward(dy), dx, rtol=1e-14)


def test_silu_agrees_with_pytorch_and_keeps_its_digits_far_out():
    torch = pytest.importorskip("torch")
    x = np.concatenate([normal(50) * 4, [-700.0, -40.0, -0.0, 0.0, 40.0, 700.0]])
    dy = normal(56, seed=1)
    y, (dx,) = torch_gradients(torch.nn.functional.silu, dy, x)
    value, backward = ops.silu(x)
    np.testing.assert_allclose(value, y, rtol=1e-15)
    np.testing.assert_allclose(backward(dy), dx, rtol=1e-12, atol=1e-15)


def test_leaky_relu_and_its_corner_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    x = np.concatenate([normal(50), [-np.inf, -0.0, 0.0, np.inf]])
    dy = normal(54, seed=1)
    for slope in ({}, {"negative_slope": 0.3}, {"negative_slope": 2.0}):
        y, (dx,) = torch_gradients(lambda t, slope=slope: torch.nn.functional.leaky_relu(t, **slope), dy, x)
        value, backward = ops.leaky_relu(x, **slope)
        np.testing.assert_array_equal(value, y)
        np.testing.assert_array_equal(backward(dy), dx)
    assert np.isnan(ops.leaky_relu(np.array([np.nan]))[0]).all()


@pytest.mark.filterwarnings("ignore:invalid value")
def test_gelu_agrees_with_pytorch_at_infinity_too():
    torch = pytest.importorskip("torch")
    x = np.concatenate([normal(50) * 2, [-np.inf, -1e300, -40.0, -0.0, 0.0, 40.0, 1e300, np.inf, np.nan]])
    dy = normal(59, seed=1)
    y, (dx,) = torch_gradients(torch.nn.functional.gelu, dy, x)
    value, backward = ops.gelu(x)
    np.testing.assert_allclose(value, y, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(backward(dy), dx, rtol=1e-13, atol=1e-14)


@settings(max_examples=20)
@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=4, max_side=4), elements=st.floats(-37, 1e3)))
def test_gelu_and_its_slope_keep_their_digits_where_the_normal_tail_is_small(x):
    y, backward = ops.gelu(x)
    lost = 1 + x * x / 2  # digits that rounding of x² takes from its exponential
    share, density = scipy.special.ndtr(x), np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    assert (np.abs(y - x * share) <= 1e-15 * lost * np.abs(x * share) + TINY).all()
    size = share + np.abs(x) * density
    assert (np.abs(backward(np.ones_like(x)) - (share + x * density)) <= 2e-15 * lost * size + TINY).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_gelu_neither_overflows_nor_leaves_its_dtype(dtype):
    extreme = np.finfo(dtype).max
    x = np.array([-extreme, -300, -0.0, 0, 300, extreme, np.nan], dtype)
    y, backward = ops.gelu(x)
    slope = backward(np.ones_like(x))
    assert y.dtype == slope.dtype == dtype
    np.testing.assert_array_equal(y, np.array([0, 0, -0.0, 0, 300, extreme, np.nan], dtype))
    np.testing.assert_array_equal(slope, np.array([0, 0, 0.5, 0.5, 1, 1, np.nan], dtype))


def test_gelu_has_all_digits_of_longdouble():
    """With n!! = n (n - 2) … 1: x Φ(x) = x/2 + φ(x) (x² + x⁴/3!! + x⁶/5!! + …), whose terms are positive."""
    x = np.longdouble([0.25, 1.0, 2.0, 3.0])
    pi = 4 * np.arctan(np.longdouble(1))
    terms = [x * x]
    for n in range(3, 161, 2):
        terms.append(terms[-1] * x * x / n)
    density = np.exp(-x * x / 2) / np.sqrt(2 * pi)
    expected = x / 2 + density * sum(terms[::-1])
    y, backward = ops.gelu(x)
    np.testing.assert_allclose(y, expected, rtol=20 * np.finfo(np.longdouble).eps)
    np.testing.assert_allclose(
        backward(np.ones_like(x)), expected / x + x * density, rtol=20 * np.finfo(np.longdouble).eps
    )


@for_each("name", [*ACTIVATIONS, *GATES])
def test_functions_that_are_chosen_by_name_are_the_primitives_of_that_name(name):
    assert (ACTIVATIONS | GATES)[name] is getattr(ops, name)


@pytest.mark.parametrize("primitive", [ops.hard_sigmoid, ops.hard_swish])
def test_hard_functions_pass_nan(primitive):
    assert np.isnan(primitive(np.array([np.nan]))[0]).all()
