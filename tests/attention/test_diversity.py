import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn import diversity_penalty, ops
from npattn.oracle import generic_values
from tests.naming import for_each
from tests.ops.primitives import normal, torch_gradients, worst_error
from tests.strategies import arrange, layouts, seeds, sizes

leads = st.sampled_from([(), (1,), (3,), (0,), (2, 3)])


def weights(*shape, seed=0):
    """Rows of a softmax."""
    return ops.softmax(normal(*shape, seed=seed))[0]


@given(leads, sizes, sizes, seeds)
@settings(max_examples=50)
def test_value_and_gradient_agree_with_pytorch(lead, heads, positions, seed):
    torch = pytest.importorskip("torch")
    a, dp = normal(*lead, heads, positions, seed=seed), normal(*lead, 1, seed=seed + 1)[..., 0]

    def published(a):
        return ((a @ a.transpose(-1, -2) - torch.eye(heads, dtype=a.dtype)) ** 2).sum(dim=(-2, -1))

    p, backward = diversity_penalty(a)
    expected, (da,) = torch_gradients(published, np.asarray(dp), a)
    np.testing.assert_allclose(p, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(backward(dp[...]), da, rtol=0, atol=1e-12 * np.abs(da).max(initial=1e-3))


@for_each("shape", [(3, 5), (5, 3), (2, 3, 4), (2, 1, 2, 3), (1, 1)])
def test_gradient_agrees_with_the_complex_step(shape):
    assert worst_error(diversity_penalty, normal(*shape)) < 1e-12
    assert worst_error(diversity_penalty, weights(*shape)) < 1e-12


@given(leads, sizes, sizes, seeds)
def test_value_and_gradient_are_what_the_formula_says(lead, heads, positions, seed):
    a = normal(*lead, heads, positions, seed=seed)
    p, backward = diversity_penalty(a)
    assert type(p) is np.ndarray
    assert p.shape == lead
    e = np.einsum("...in,...jn->...ij", a, a) - np.eye(heads)
    np.testing.assert_allclose(p, np.sum(e**2, axis=(-2, -1)), rtol=1e-12)
    np.testing.assert_allclose(backward(np.ones_like(p)), 4 * e @ a, rtol=1e-11, atol=1e-11)


@given(st.integers(1, 5), st.integers(0, 4), seeds)
def test_orthonormal_rows_have_no_penalty_and_no_gradient(heads, more, seed):
    a = np.linalg.qr(normal(heads + more, heads, seed=seed))[0].T
    p, backward = diversity_penalty(a)
    assert p < 1e-28
    np.testing.assert_allclose(backward(np.ones_like(p)), 0, atol=1e-13)


@given(st.integers(1, 5), st.integers(0, 4), st.randoms(use_true_random=False))
def test_rows_of_weights_have_no_penalty_exactly_when_each_has_a_position_of_its_own(heads, more, random):
    positions = random.sample(range(heads + more), heads)
    a = np.eye(heads + more)[positions]
    assert diversity_penalty(a)[0] == 0
    if heads + more > 1:
        blurred = 0.9 * a + 0.1 / (heads + more)
        assert diversity_penalty(blurred)[0] > 1e-3
    if heads > 1:
        shared = a.copy()
        shared[0] = shared[1]
        assert diversity_penalty(shared)[0] == 2  # both entries off the diagonal


@given(st.integers(1, 6), st.integers(1, 6), seeds)
def test_more_heads_than_positions_leave_at_least_their_difference(heads, positions, seed):
    least = max(0, heads - positions)
    assert diversity_penalty(normal(heads, positions, seed=seed))[0] >= least * (1 - 1e-12)
    if heads >= positions:
        columns = np.linalg.qr(normal(heads, positions, seed=seed))[0]  # singular values all 1
        p, backward = diversity_penalty(columns)
        np.testing.assert_allclose(p, least, rtol=1e-12, atol=1e-28)
        np.testing.assert_allclose(backward(np.ones_like(p)), 0, atol=1e-13)


@for_each(("heads", "positions"), [(1, 1), (1, 4), (6, 1), (2, 5), (4, 4), (6, 3)])
def test_following_the_gradient_leads_to_the_least_penalty_from_anywhere(heads, positions):
    shape = 5, heads, positions  # five starts at once
    a = 0.5 * weights(*shape) + 0.1 * normal(*shape)
    for _ in range(2000):
        p, backward = diversity_penalty(a)
        a = a - 0.05 * backward(np.ones_like(p))
    np.testing.assert_allclose(p, max(0, heads - positions), rtol=0, atol=1e-6)


@given(leads, sizes, sizes, seeds)
def test_order_of_heads_and_of_positions_does_not_matter_and_examples_do_not_see_each_other(
    lead, heads, positions, seed
):
    a = weights(*lead, heads, positions, seed=seed)
    p, backward = diversity_penalty(a)
    da = backward(np.ones_like(p))
    turned, back_turned = diversity_penalty(a[..., ::-1, ::-1])
    np.testing.assert_allclose(turned, p, rtol=1e-12)
    np.testing.assert_allclose(back_turned(np.ones_like(p))[..., ::-1, ::-1], da, rtol=1e-11, atol=1e-12)
    for index in np.ndindex(lead):
        alone, back_alone = diversity_penalty(a[index])
        np.testing.assert_allclose(alone, p[index], rtol=1e-12)
        np.testing.assert_allclose(back_alone(np.ones_like(alone)), da[index], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble, np.complex128])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_other_numbers_keep_their_dtype_and_agree_with_float64(dtype, lead):
    a = weights(*lead, 3, 5)
    expected, back = diversity_penalty(a)
    p, backward = diversity_penalty(a.astype(dtype))
    da = backward(np.ones_like(p))
    assert p.dtype == da.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(p, expected, rtol=tolerance)
    np.testing.assert_allclose(da, back(np.ones_like(expected)), rtol=tolerance, atol=tolerance)


def test_the_product_is_with_the_transpose_and_not_with_the_conjugate():
    a = normal(2, 3) + 1j * normal(2, 3, seed=1)
    e = a @ a.T - np.eye(2)
    np.testing.assert_allclose(diversity_penalty(a)[0], np.sum(e * e), rtol=1e-13)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_runs_on_a_device_array_and_gives_the_same_bits(lead):
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    a, dp = weights(*lead, 3, 5), np.array(normal(*lead, 1)[..., 0])
    p, backward = diversity_penalty(a)
    found, back = diversity_penalty(DeviceArray(a))
    np.testing.assert_array_equal(found.get(), p)
    np.testing.assert_array_equal(back(DeviceArray(dp)).get(), backward(dp))


@given(layouts)
def test_arguments_of_any_layout_are_read_as_they_are_and_never_written_to(layout):
    a, dp = weights(2, 3, 4), normal(2)
    expected, back = diversity_penalty(a)
    arranged = arrange(a, layout)
    arranged.flags.writeable = False
    upstream = arrange(dp, layout)
    upstream.flags.writeable = False
    p, backward = diversity_penalty(arranged)
    np.testing.assert_allclose(p, expected, rtol=1e-13)
    for _ in range(2):  # the second time, what the first call kept is still as it was
        da = backward(upstream)
        np.testing.assert_allclose(da, back(dp), rtol=1e-12, atol=1e-14)
        assert da.flags.writeable
    assert not np.shares_memory(da, arranged)


def test_it_takes_the_maps_of_multi_head_attention():
    module = npattn.MultiHeadSelfAttention.example()
    params, inputs = generic_values(module, batch=2, height=3, width=4)
    rows = [0, 5, 11]
    s = module.attention_map(params, inputs["x"], rows).swapaxes(1, 2)
    p, backward = diversity_penalty(s)
    assert p.shape == (2, len(rows))
    assert (p > 0).all()
    assert backward(np.ones_like(p)).shape == (2, len(rows), module.heads, 12)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([[1.0]], TypeError, "a is a list; expected an array"),
        (np.ones((2, 3), int), TypeError, "a has dtype int64; expected floating point"),
        (np.ones(3), ValueError, "a has shape (3,); expected at least 2 axes, (heads, positions); a single head needs"),
        (np.array(1.0), ValueError, "a has shape (); expected at least 2 axes, (heads, positions)"),
    ],
)
def test_weights_that_cannot_be_penalised_are_refused_with_a_reason(value, error, message):
    with pytest.raises(error, match=f"^diversity_penalty: {re.escape(message)}"):
        diversity_penalty(value)


@pytest.mark.parametrize(
    ("dp", "error", "message"),
    [
        (np.ones(3), ValueError, "dp has shape (3,); expected the penalty's, (2,)"),
        (np.array(1.0), ValueError, "dp has shape (); expected the penalty's, (2,)"),
        (1.0, TypeError, "dp is a float; expected an array"),
        (np.ones(2, np.float32), TypeError, "dp has dtype float32 but the penalty has float64"),
    ],
)
def test_an_upstream_gradient_that_does_not_fit_is_refused_with_a_reason(dp, error, message):
    _, backward = diversity_penalty(weights(2, 3, 4))
    with pytest.raises(error, match=f"^diversity_penalty: {re.escape(message)}"):
        backward(dp)


def test_no_number_and_infinity_pass_through():
    a = weights(2, 3, 4)
    a[0, 1, 2] = np.nan
    p, _ = diversity_penalty(a)
    np.testing.assert_array_equal(np.isnan(p), [True, False])
    a[0, 1, 2] = np.inf
    assert diversity_penalty(a)[0][0] == np.inf
