import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import definitions, in_blocks, normal, run_both, ulps, worst_error
from tests.strategies import arrange, layouts, seeds, sizes

SPREADS = {
    "channels": lambda b, c, h, w: (b, c),
    "channels kept": lambda b, c, h, w: (b, c, 1, 1),
    "positions": lambda b, c, h, w: (b, 1, h, w),
    "rows": lambda b, c, h, w: (b, c, h, 1),
    "columns": lambda b, c, h, w: (b, c, 1, w),
    "images": lambda b, c, h, w: (b,),
    "channels of all images": lambda b, c, h, w: (1, c, 1, 1),
    "one number": lambda b, c, h, w: (1,),
    "one number kept": lambda b, c, h, w: (1, 1, 1, 1),
    "no axis": lambda b, c, h, w: (),
    "everything": lambda b, c, h, w: (b, c, h, w),
}
spreads = pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)


@st.composite
def gates(draw):
    """A map and a gate that may lack axes at the end, or have length 1 in some."""
    shape = draw(st.tuples(sizes, sizes, sizes, sizes))
    kept = shape[: draw(st.integers(1, 4))]
    spread = draw(st.tuples(*(st.booleans() for _ in kept)))
    seed = draw(seeds)
    return normal(*shape, seed=seed), normal(*(1 if s else n for s, n in zip(spread, kept, strict=True)), seed=seed + 1)


@given(gates(), st.booleans())
def test_gate_multiplies_every_element_by_the_gate_spread_over_it(case, in_parts):
    x, a = case
    full = np.broadcast_to(a.reshape(a.shape + (1,) * (x.ndim - a.ndim)), x.shape)
    dy = normal(*x.shape, seed=5)
    with in_blocks() if in_parts else definitions():
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


@spreads
@given(st.tuples(sizes, sizes, sizes, sizes), st.tuples(layouts, layouts, layouts), seeds)
def test_backward_in_parts_is_that_at_once_for_every_spread(spread, shape, laid_out, seed):
    of_x, of_a, of_dy = laid_out
    x = arrange(normal(*shape, seed=seed), of_x)
    a = np.asarray(normal(*spread(*shape), seed=seed + 1))
    a = arrange(a, of_a) if a.ndim else a
    dy = arrange(normal(*shape, seed=seed + 2), of_dy)
    (y, dx, da), (plain_y, plain_dx, plain_da) = run_both(ops.gate, x, a, dy=dy)
    np.testing.assert_array_equal(y, plain_y)
    np.testing.assert_array_equal(dx, plain_dx)
    assert da.shape == a.shape
    np.testing.assert_allclose(da, plain_da, rtol=1e-12, atol=1e-13)
    assert dx.flags.writeable
    assert not np.shares_memory(dx, dy)


@spreads
def test_a_gradient_that_repeats_numbers_is_read_and_not_written_to(spread):
    x, dy = normal(3, 4, 5, 6), np.broadcast_to(normal(3, 4, 1, 1, seed=2), (3, 4, 5, 6))
    a = np.asarray(normal(*spread(*x.shape), seed=1))
    with in_blocks():
        dx, da = ops.gate(x, a)[1](dy)
    with definitions():
        expected = ops.gate(x, a)[1](dy.copy())
    np.testing.assert_array_equal(dx, expected[0])
    np.testing.assert_allclose(da, expected[1], rtol=1e-12, atol=1e-13)


@spreads
@given(st.tuples(sizes, sizes, st.integers(1, 40), st.integers(1, 40)), seeds)
def test_single_precision_in_parts_is_within_4_ulps_of_the_largest_at_once(spread, shape, seed):
    x, dy = (normal(*shape, seed=seed + i).astype(np.float32) for i in (0, 1))
    a = np.asarray(normal(*spread(*shape), seed=seed + 2)).astype(np.float32)
    (y, dx, _), (plain_y, plain_dx, _) = run_both(ops.gate, x, a, dy=dy)
    assert ulps(y, plain_y) == ulps(dx, plain_dx) == 0
    (*_, da), (*_, plain_da) = run_both(ops.gate, np.abs(x), a, dy=np.abs(dy))  # sums that do not cancel
    assert ulps(da, plain_da) <= 4


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 4, 2), (2, 3, 4, 1), (1, 3, 1, 1), (2, 3, 4, 2)])
def test_gate_gradient_agrees_with_the_complex_step(shape):
    with in_blocks():
        assert worst_error(ops.gate, normal(2, 3, 4, 2), normal(*shape, seed=1)) < 1e-12


@pytest.mark.parametrize("shape", [(7,), (7, 5), (7, 5, 4)])
def test_maps_of_any_number_of_axes_are_gated_in_parts(shape):
    x, a, dy = normal(*shape), normal(shape[0], seed=1), normal(*shape, seed=2)
    (y, dx, da), expected = run_both(ops.gate, x, a, dy=dy)
    for found, plain in zip((y, dx, da), expected, strict=True):
        np.testing.assert_allclose(found, plain, rtol=1e-13, atol=1e-14)
