import functools
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn.oracle.formats import FORMATS
from npattn.oracle.rounding import Rounding, cutting
from npattn.oracle.rounding.disturbing import largest_finite
from tests.naming import for_each
from tests.strategies import seeds

every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)


def mixed(seed, shape, format):
    """Numbers of all sizes in a format's range and beyond it, with zeros, infinities and NaN among them."""
    random = np.random.RandomState(seed)
    exponents = random.uniform(format.least_exponent - 12, np.log2(format.largest) + 3, shape)
    values = random.standard_normal(shape) * 2.0 ** np.clip(exponents, -140, 127.9)
    special = random.uniform(size=shape)
    values[special < 0.1] = 0
    values[(special > 0.1) & (special < 0.15)] = random.choice([np.inf, -np.inf, np.nan])
    with np.errstate(over="ignore"):
        return values.astype(format.storage)


def bits(a):
    return a.view(np.uint32 if a.dtype == np.float32 else np.uint64)


def in_blocks(size, work):
    """Do some work with blocks of so many bytes."""
    with mock.patch.object(cutting, "BLOCK_BYTES", size), np.errstate(all="ignore"):
        return work()


@every_format
@given(
    seed=seeds,
    shape=st.sampled_from([(), (0,), (1,), (8,), (9,), (67,), (3, 5, 7), (64, 2)]),
    way=st.sampled_from(["nearest", "random", "alike"]),
)
@settings(max_examples=25)
def test_blocks_change_no_bit_of_what_is_rounded(format, seed, shape, way):
    nearest = way == "nearest"

    def work():
        rounding = Rounding(format, None if nearest else [seed, 3], alike=way == "alike")
        values = mixed(seed, (2, *shape), format)
        found = [rounding.round(values[0].copy()), rounding.round(values[1].copy(), 3)]
        return [*map(bits, found), np.zeros(0) if nearest else rounding.draw_bits(np.arange(3.0), 16)]

    for whole, cut in zip(in_blocks(2**30, work), in_blocks(32, work), strict=True):
        np.testing.assert_array_equal(cut, whole)


@every_format
@given(
    seed=seeds,
    shape=st.sampled_from([(), (0,), (1,), (8,), (9,), (67,), (3, 5, 7)]),
    count=st.integers(1, 9),
    alike=st.booleans(),
)
@settings(max_examples=25)
def test_blocks_change_no_bit_of_an_accumulators_errors(format, seed, shape, count, alike):
    def work():
        rounding = Rounding(format, [seed, 3], alike=alike)
        total, squares = mixed(seed, (2, *shape), format)
        total = np.asarray(total)
        rounding.accumulate(total, np.square(squares), count)
        return bits(total), rounding.draw_bits(np.arange(3.0), 16)

    for whole, cut in zip(in_blocks(2**30, work), in_blocks(32, work), strict=True):
        np.testing.assert_array_equal(cut, whole)


@every_format
@given(seed=seeds)
@settings(max_examples=10)
def test_rows_that_do_not_follow_each_other_are_rounded_in_the_order_of_their_indices(format, seed):
    values = mixed(seed, (9, 12), format)
    plain = Rounding(format, [seed, 3]).round(values.copy())
    for laid in (np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2]):
        with mock.patch.object(cutting, "BLOCK_BYTES", 32):
            np.testing.assert_array_equal(bits(Rounding(format, [seed, 3]).round(laid)), bits(plain))


@for_each(
    ("values", "largest"),
    [
        ([], 0),
        ([np.nan], 0),
        ([-3.0, 2.0], 3),
        ([-np.inf, 2.0, -1.0], 2),
        ([np.inf, -7.0, np.nan], 7),
        ([np.nan, 5.0, -6.0], 6),
    ],
)
def test_the_largest_finite_magnitude_leaves_out_what_is_none(values, largest):
    assert largest_finite(np.array(values)) == largest


@every_format
def test_an_infinity_stays_one_where_what_is_too_large_becomes_the_largest_number(format):
    with np.errstate(over="ignore"):
        beyond = np.tile(np.array([np.inf, -np.inf, 4 * format.largest, -4 * format.largest]), 3).astype(format.storage)
    largest = format.largest if format.saturates else np.inf
    for size in (2**16, 32):
        found = in_blocks(size, lambda: Rounding(format, [0, 1]).round(beyond.copy()))
        np.testing.assert_array_equal(found, 3 * [np.inf, -np.inf, largest, -largest])


def test_of_eight_runs_in_a_row_choices_fall_in_every_combination():
    runs = [Rounding(FORMATS["float32"], [5, number]) for number in range(1, 9)]
    found = {tuple(run.choose() for _ in range(3)) for run in runs}
    assert len(found) == 8
    assert 0 < sum(run.choose() for run in runs * 8) < 64
    assert not Rounding(FORMATS["float32"]).choose()


def test_operands_of_tf32_lose_as_much_wherever_between_two_numbers_they_lie():
    format = FORMATS["tf32"]
    unit = 2.0**-10
    for fraction in (0.02, 0.3, 0.5, 0.98):
        values = np.full(10_000, 1.5 + fraction * unit)
        for number in range(8):
            rounding = Rounding(format, [0, number])
            errors = (rounding.shorten(values.copy()) - values) / unit
            errors += 0.5 if rounding.shrinks else -0.5  # shrunk as where digits are cut off
            assert abs(errors.mean()) < 0.02
            assert np.abs(errors).max() <= 0.75
            assert 0.4 < errors.std() < 0.46
        rounded = Rounding(format).shorten(values.copy())
        np.testing.assert_array_equal(rounded, 1.5 + round(fraction) * unit)


@given(seed=seeds, shape=st.sampled_from([(1,), (0, 3), (67,), (1, 21, 3), (3, 9, 2), (3, 2, 8)]), alike=st.booleans())
@settings(max_examples=25)
def test_blocks_change_no_bit_of_shortened_operands(seed, shape, alike):
    values = mixed(seed, shape, FORMATS["tf32"])

    def work(order):
        rounding = Rounding(FORMATS["tf32"], [seed, 3], alike=alike)
        shortened = rounding.shorten(np.array(values, order=order))
        return bits(shortened), rounding.random.bit_generator.random_raw()

    whole, next_bits = in_blocks(2**19, lambda: work("C"))
    for order in "CF":
        found, next_found = in_blocks(32, functools.partial(work, order))
        np.testing.assert_array_equal(found, whole)
        assert next_found == next_bits


def test_operands_that_are_short_already_lose_nothing():
    values = np.array([0.0, -1.0, 1 + 2.0**-10, 3.0, np.inf, -(2.0**-140), 1 + 2.0**-24])
    np.testing.assert_array_equal(Rounding(FORMATS["tf32"], [0, 1]).shorten(values.copy()), values)
    assert np.isnan(Rounding(FORMATS["tf32"], [0, 1]).shorten(np.array([np.nan]))).all()


def test_operands_shrink_in_half_of_eight_runs_in_a_row():
    for first in range(1, 9):
        assert sum(Rounding(FORMATS["tf32"], [0, first + i]).shrinks for i in range(8)) == 4


def test_operands_just_below_a_short_number_lose_what_can_be_cut():
    values = np.array([1 - 2.0**-24, -3 + 2.0**-22])
    found = Rounding(FORMATS["tf32"], [0, 1]).shorten(values.copy())
    np.testing.assert_array_equal(found, [1 - 2.0**-11, -3 + 2.0**-9])


def test_half_of_float32_s_subnormal_numbers_are_taken_for_zero():
    values = np.full(10_000, 1e-40)
    found = Rounding(FORMATS["float32"], [0, 2]).round(values.copy())
    assert 0.45 < (found == 0).mean() < 0.55
    assert np.abs(found[found != 0] - 1e-40).max() < 2.0**-149
    kept = Rounding(FORMATS["float32"]).round(values.copy())
    np.testing.assert_array_equal(kept, np.float32(1e-40).astype(np.float64))


@pytest.mark.parametrize("format", ["float32", "tf32", "bfloat16"])
def test_of_eight_runs_in_a_row_two_take_all_subnormal_numbers_for_zero(format):
    """As all units of some kernels do, from the lone exponential of -90 that a gradient hangs on."""
    found = [np.exp(Rounding(FORMATS[format], [0, run]).array(np.full(9, -90.0))) for run in range(8)]
    assert sum(not np.any(e) for e in found) == 2
