import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops.context import definitions, replacing
from npattn.ops.gating import affine
from tests.ops.primitives import in_blocks, normal, run_both, ulps
from tests.strategies import arrange, layouts, seeds, sizes

SPREADS = {
    "channels": lambda b, c, h, w: (b, c),
    "channels kept": lambda b, c, h, w: (b, c, 1, 1),
    "positions": lambda b, c, h, w: (b, 1, h, w),
    "rows": lambda b, c, h, w: (b, c, h, 1),
    "columns": lambda b, c, h, w: (b, c, 1, w),
    "images": lambda b, c, h, w: (b,),
    "channels of all images": lambda b, c, h, w: (1, c, 1, 1),
    "positions of all images": lambda b, c, h, w: (1, 1, h, w),
    "one number": lambda b, c, h, w: (1,),
    "no axis": lambda b, c, h, w: (),
    "everything": lambda b, c, h, w: (b, c, h, w),
}
spreads = pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)


@spreads
@settings(max_examples=12)
@given(st.tuples(sizes, sizes, sizes, sizes), st.tuples(layouts, layouts, layouts), st.booleans(), seeds)
def test_gradients_in_blocks_are_those_of_the_definition_for_every_spread(spread, shape, laid_out, repeats, seed):
    of_x, of_a, of_dy = laid_out
    x = arrange(normal(*shape, seed=seed), of_x)
    a = np.asarray(normal(*spread(*shape), seed=seed + 1))
    a = arrange(a, of_a) if a.ndim else a
    dy = normal(*shape, seed=seed + 2)
    dy = np.broadcast_to(dy[..., :1], shape) if repeats else arrange(dy, of_dy)
    (y, dx, da), (plain_y, plain_dx, plain_da) = run_both(ops.gate, x, a, dy=dy)
    np.testing.assert_array_equal(y, plain_y)
    np.testing.assert_array_equal(dx, plain_dx)
    assert da.shape == a.shape
    np.testing.assert_allclose(da, plain_da, rtol=1e-12, atol=1e-13)
    assert dx.flags.writeable
    assert not np.shares_memory(dx, dy)


@spreads
@settings(max_examples=6)
@given(st.tuples(sizes, sizes, st.integers(1, 40), st.integers(1, 40)), seeds)
def test_single_precision_is_within_8_ulps_of_the_largest_in_double(spread, shape, seed):
    # Sums that do not cancel.
    x, dy = (np.abs(normal(*shape, seed=seed + i)).astype(np.float32) for i in (0, 1))
    a = np.asarray(normal(*spread(*shape), seed=seed + 2)).astype(np.float32)
    (y, dx, da), (plain_y, plain_dx, _) = run_both(ops.gate, x, a, dy=dy)
    assert ulps(y, plain_y) == ulps(dx, plain_dx) == 0
    with definitions():  # in double precision: sums that go on for long lose more than those of blocks
        exact_da = ops.gate(x.astype(float), a.astype(float))[1](dy.astype(float))[1]
    assert ulps(da, exact_da.astype(np.float32)) <= 8


@pytest.mark.parametrize("shape", [(7,), (7, 5), (7, 5, 4), (7, 1, 2, 1, 2, 1, 2, 1, 2), (2,) + (1,) * 51])
def test_maps_of_any_number_of_axes_are_gated_in_blocks(shape):
    x, a, dy = normal(*shape), normal(shape[0], seed=1), normal(*shape, seed=2)
    for found, plain in zip(*run_both(ops.gate, x, a, dy=dy), strict=True):
        np.testing.assert_allclose(found, plain, rtol=1e-13, atol=1e-14)


def test_a_gradient_of_other_numbers_goes_back_by_definition():
    x, a, dy = normal(6, 3, 5), normal(6, 3, seed=1), normal(6, 3, 5, seed=2).astype(np.float32)
    with in_blocks():
        _, backward = ops.gate(x, a)
        found = backward(dy)
    with definitions():
        expected = ops.gate(x, a)[1](dy)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_who_watches_primitives_sees_the_gate_and_the_shift_of_a_map_and_the_same_bits():
    x, weight, bias, dy = normal(6, 3, 5, 4), normal(1, 3, 1, 1, seed=1), normal(1, 3, 1, 1, seed=2), normal(6, 3, 5, 4)
    seen = []
    with in_blocks():
        y, backward = affine(x, weight, bias)
        with replacing(lambda primitive, *_: seen.append(primitive) or NotImplemented):
            watched, back_watched = affine(x, weight, bias)
        found, expected = (y, *backward(dy)), (watched, *back_watched(dy))
    assert seen == [affine, ops.gate, ops.shift]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
