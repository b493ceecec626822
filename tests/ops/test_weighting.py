import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npattn import ops
from tests.ops.primitives import normal, torch_gradients

finite = hnp.arrays(np.float64, hnp.array_shapes(max_dims=4, max_side=5), elements=st.floats(-1e4, 1e4))


@settings(max_examples=20)
@given(finite, st.data())
def test_softmax_agrees_with_scipy_along_any_axis(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    y = ops.softmax(x, axis)[0]
    np.testing.assert_allclose(y, scipy.special.softmax(x, axis), rtol=1e-14, atol=np.finfo(float).tiny)
    np.testing.assert_allclose(y.sum(axis), 1, rtol=1e-14)


@settings(max_examples=20)
@given(finite, st.data())
def test_softmin_is_the_softmax_of_the_negative_forward_and_backward(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    dy = np.random.RandomState(0).standard_normal(x.shape)
    (y, backward), (negative, back_negative) = ops.softmin(x, axis), ops.softmax(-x, axis)
    np.testing.assert_array_equal(y, negative)
    np.testing.assert_array_equal(backward(dy), -back_negative(dy))


@settings(max_examples=20)
@given(finite, st.floats(-1e4, 1e4))
def test_softmax_ignores_a_constant_added_to_a_row(x, constant):
    np.testing.assert_allclose(ops.softmax(x + constant)[0], ops.softmax(x)[0], rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_softmax_of_huge_logits_neither_overflows_nor_leaves_its_dtype(dtype):
    x = np.array([[1e4, 1e4, -1e4], [-1e4, -1e4 - 1, -1e4], [np.finfo(dtype).max, 0, 0]], dtype)
    y, backward = ops.softmax(x)
    e = np.exp(dtype(-1))
    expected = np.array([[0.5, 0.5, 0], [1 / (2 + e), e / (2 + e), 1 / (2 + e)], [1, 0, 0]], dtype)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(dtype).eps)
    dx = backward(np.array([[1, 0, 0]] * 3, dtype))
    assert dx.dtype == dtype
    np.testing.assert_allclose(dx[0], np.array([0.25, -0.25, 0], dtype), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(dx[2], 0)


def test_minus_infinity_has_no_weight_and_what_has_no_softmax_is_nan():
    rows = [[-np.inf, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0], [-np.inf, -np.inf, -np.inf], [0, 0, 0]]
    with np.errstate(invalid="ignore"):
        y, backward = ops.softmax(np.array(rows))
        expected = scipy.special.softmax(np.array(rows), -1)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(y[0], [0, 0.5, 0.5])
    assert np.isnan(y[1:4]).all()
    np.testing.assert_array_equal(backward(np.eye(3)[[1] * 5])[0], [0, 0.25, -0.25])


@settings(max_examples=20)
@given(finite)
def test_a_gradient_that_is_the_same_for_all_weights_moves_no_logit(x):
    """The weights add up to 1, whatever the logits."""
    np.testing.assert_allclose(ops.softmax(x)[1](np.full_like(x, 3.0)), 0, atol=1e-14)


@pytest.mark.parametrize("gap", [1, 20, 40, 300])
def test_gradient_keeps_its_digits_where_one_weight_is_nearly_all(gap):
    x, dy = np.array([0.0, -gap, -gap - 1]), np.array([0.7, -0.2, 0.1])
    e = np.exp(x.astype(np.longdouble))
    expected = [e[i] * sum(e[k] * (dy[i] - dy[k]) for k in range(3)) / e.sum() ** 2 for i in range(3)]
    np.testing.assert_allclose(ops.softmax(x)[1](dy), np.array(expected, float), rtol=1e-14)
    lifted = ops.softmax(x + 1e-100j * dy)[0].imag / 1e-100  # the Jacobian is symmetric
    np.testing.assert_allclose(lifted, np.array(expected, float), rtol=1e-14)


def test_softmax_value_and_gradient_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    x = np.concatenate([normal(4, 6), 1e4 * normal(4, 6, seed=1), np.zeros((1, 6))])
    dy = normal(9, 6, seed=2)
    y, (dx,) = torch_gradients(lambda t: torch.softmax(t, -1), dy, x)
    value, backward = ops.softmax(x)
    np.testing.assert_allclose(value, y, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(backward(dy), dx, rtol=1e-12, atol=1e-15)


def test_softmax_writes_to_nothing_it_was_given():
    x, dy = normal(2, 3), normal(2, 3, seed=1)
    before = x.copy(), dy.copy()
    y, backward = ops.softmax(x)
    dx = backward(dy)
    np.testing.assert_array_equal((x, dy), before)
    assert not np.shares_memory(dx, dy)
    assert not np.shares_memory(y, x)
