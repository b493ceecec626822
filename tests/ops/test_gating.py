import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal
from tests.strategies import seeds, sizes


@st.composite
def gates(draw):
    """A map and a gate that may lack axes at the end, or have length 1 in some."""
    shape = draw(st.tuples(sizes, sizes, sizes, sizes))
    kept = shape[: draw(st.integers(1, 4))]
    broadcast = draw(st.tuples(*(st.booleans() for _ in kept)))
    seed = draw(seeds)
    return normal(*shape, seed=seed), normal(
        *(1 if s else n for s, n in zip(broadcast, kept, strict=True)), seed=seed + 1
    )


def test_a_gate_of_more_axes_than_its_map_is_refused():
    with pytest.raises(ValueError, match="zip"):
        ops.gate(np.ones(2), np.ones((2, 1)))


@settings(max_examples=20)
@given(gates())
def test_gate_multiplies_every_element_by_the_gate_that_is_broadcast_to_it(case):
    x, a = case
    full = np.broadcast_to(a.reshape(a.shape + (1,) * (x.ndim - a.ndim)), x.shape)
    dy = normal(*x.shape, seed=5)
    y, backward = ops.gate(x, a)
    dx, da = backward(dy)
    np.testing.assert_array_equal(y, x * full)
    np.testing.assert_array_equal(dx, dy * full)
    expected = np.zeros(full.shape)
    np.copyto(expected, x * dy)
    for axis, (short, long) in enumerate(zip(a.shape + (1,) * (x.ndim - a.ndim), x.shape, strict=True)):
        if short != long:
            expected = expected.sum(axis=axis, keepdims=True)
    assert da.shape == a.shape
    np.testing.assert_allclose(da, expected.reshape(a.shape), rtol=1e-12, atol=1e-13)
