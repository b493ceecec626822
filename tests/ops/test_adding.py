import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal
from tests.ops.test_gating import gates
from tests.strategies import arrange, layouts, seeds, sizes

shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple)


@st.composite
def summands(draw):
    """Some arrays of one shape, laid out in any way; one may be a view that repeats numbers."""
    shape, seed = draw(shapes), draw(seeds)
    arrays = [arrange(normal(*shape, seed=seed + i), draw(layouts)) for i in range(draw(st.integers(1, 5)))]
    if draw(st.booleans()):
        i = draw(st.integers(0, len(arrays) - 1))
        arrays[i] = np.broadcast_to(arrays[i][..., :1], shape)
    return arrays


@settings(max_examples=20)
@given(summands(), st.sampled_from([np.float16, np.float32, np.float64, np.longdouble, np.complex128]))
def test_sum_is_that_of_all_and_its_gradient_goes_to_each_whole(arrays, dtype):
    arrays = [a if dtype == np.float64 else a.astype(dtype) for a in arrays]
    before = [a.copy() for a in arrays]
    y, backward = ops.add(*arrays)
    expected = before[0].copy()
    for a in before[1:]:
        expected = expected + a
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected)  # to the bit: added from left to right
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
    dy = normal(*y.shape).astype(dtype)
    gradients = backward(dy)
    assert len(gradients) == len(arrays)
    assert all(gradient is dy for gradient in gradients)


@settings(max_examples=20)
@given(summands())
def test_a_sum_of_several_arrays_is_fresh_memory(arrays):
    y, _ = ops.add(*arrays)
    if len(arrays) > 1:
        assert y.flags.writeable
        assert not any(np.shares_memory(y, a) for a in arrays)


@settings(max_examples=20)
@given(gates())
def test_shift_adds_one_number_wherever_it_is_broadcast_to_and_collects_their_gradients(case):
    x, t = case
    kept = t.shape + (1,) * (x.ndim - t.ndim)
    dy = normal(*x.shape, seed=5)
    y, backward = ops.shift(x, t)
    dx, dt = backward(dy)
    np.testing.assert_array_equal(y, x + np.broadcast_to(t.reshape(kept), x.shape))
    assert dx is dy
    expected = dy
    for axis, length in enumerate(kept):
        if length == 1:
            expected = expected.sum(axis=axis, keepdims=True)
    assert dt.shape == t.shape
    np.testing.assert_allclose(dt, expected.reshape(t.shape), rtol=1e-12, atol=1e-13)
