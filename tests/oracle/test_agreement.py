import datetime
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from npattn.oracle import same
from tests.naming import for_each

numbers = arrays(np.float64, array_shapes(max_dims=3, max_side=4), elements=st.floats(-1e6, 1e6))


@given(numbers)
def test_what_is_equal_agrees_and_nothing_is_printed_or_returned(array):
    assert same(array, array.copy()) is None
    assert same([array, array], (array, array), within=0) is None


def test_agreement_is_silent(capsys):
    same(np.ones(3), [1, 1, 1])
    assert capsys.readouterr() == ("", "")


@given(numbers.filter(lambda a: np.abs(a).max() > 1e-3), st.data())
def test_one_element_that_is_further_off_than_allowed_is_named(array, data):
    at = data.draw(st.tuples(*(st.integers(0, side - 1) for side in array.shape)))
    largest = np.abs(array).max()
    moved = array.copy()
    moved[at] += 3e-6 * largest
    same(moved, array, within=4e-6)
    with pytest.raises(AssertionError, match="differ by") as raised:
        same(moved, array, within=2e-6)
    assert f"at {list(at)}" in str(raised.value)


def test_a_difference_is_measured_against_the_largest_expected_number():
    same([1e6, 1e-7], [1e6, 0.0])
    with pytest.raises(AssertionError, match=r"at \[1\]"):
        same([1e6, 1e-5], [1e6, 0.0])


def test_where_zero_is_expected_rounding_is_allowed_by_a_scale_alone():
    same(np.zeros(2), [0, 0])
    with pytest.raises(AssertionError, match="give scale="):
        same([1e-16, 0], [0, 0])
    same([1e-16, 0], [0, 0], scale=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_agrees_with_itself_alone(value):
    same([value, 1.0], [value, 1.0])
    for other in (1.0, *({np.nan, np.inf, -np.inf} - {value})):
        if not np.array_equal(value, other, equal_nan=True):
            with pytest.raises(AssertionError, match=r"at \[0\]"):
                same([value, 1.0], [other, 1.0])
            with pytest.raises(AssertionError, match=r"at \[0\]"):
                same([other, 1.0], [value, 1.0])


def test_the_array_that_differs_is_counted():
    with pytest.raises(AssertionError, match="arrays 1 differ by 1 at"):
        same([np.ones(2), np.ones(2)], (np.ones(2), np.array([1.0, 2.0])))


@for_each(
    ("ours", "theirs", "options", "told"),
    [
        (np.ones(2), np.ones(3), {}, r"shapes \(2,\) and \(3,\)"),
        (np.ones((2, 1)), np.ones((1, 2)), {}, "expected one shape"),
        ([np.ones(2)], [np.ones(2), np.ones(2)], {}, "1 arrays beside 2"),
        (1.0, [np.ones(2), np.ones(2)], {}, "1 arrays beside 2"),
        (
            [[1.0], [1.0, 2.0]],
            1.0,
            {},
            r"same: ours=\[\[1.0\], \[1.0, 2.0\]\] is no array, but rows of several lengths",
        ),
        (1.0, 1.0, {"within": -1}, "same: within=-1; expected a number of at least 0"),
        (1.0, 1.0, {"scale": np.float32(-1)}, "same: scale=.*-1.*; expected a number of at least 0"),
        (1.0, 1.0, {"within": np.nan}, "same: within=nan; expected a finite number"),
        (1.0, 1.0, {"scale": np.inf}, "same: scale=inf; expected a finite number"),
    ],
)
def test_what_can_not_be_compared_is_refused(ours, theirs, options, told):
    with pytest.raises(ValueError, match=told):
        same(ours, theirs, **options)


def in_list(value):
    """The value among others."""
    return [np.ones(2), value]


@for_each(
    ("value", "told"),
    [
        (np.ma.array([1.0, 5.0], mask=[False, True]), " is a masked array, some of whose numbers don't count"),
        (Fraction(1, 2), " is a fractions.Fraction, Fraction(1, 2); expected floating-point numbers"),
        ([Fraction(1, 2), 2], " is a list, [Fraction(1, 2), 2]; expected floating-point numbers"),
        (None, " is a NoneType, None; expected floating-point numbers"),
        ({1.0: 2.0}, " is a dict, {1.0: 2.0}; expected floating-point numbers"),
        (np.ndarray, " is a type, <class 'numpy.ndarray'>; expected floating-point numbers"),
        (2**70, " is an int, 1180591620717411303424; expected floating-point numbers"),
        (np.array([1, None]), " has dtype object; expected floating point"),
        ("one", " holds text"),
        (np.zeros(2, "f8, i4"), " has dtype [("),
        (np.zeros(2, "M8[s]"), " has dtype datetime64[s]; expected floating point"),
        (np.timedelta64(3, "s"), " has dtype timedelta64[s]; expected floating point"),
        (datetime.datetime(2020, 1, 1), " is a datetime.datetime, datetime.dat"),
    ],
)
def test_what_holds_no_numbers_is_refused_on_either_side_by_itself_and_in_a_list(value, told):
    for wrap, at in ((lambda value: value, ""), (in_list, "[1]")):
        for name, pair in {"ours": (wrap(value), wrap(1.0)), "theirs": (wrap(1.0), wrap(value))}.items():
            with pytest.raises(TypeError) as caught:
                same(*pair)
            assert str(caught.value).startswith(f"same: {name}{at}{told}")


def test_masked_numbers_in_a_list_are_refused():
    for value in ([np.ma.masked, 1.0], [[1.0, np.ma.masked]], (np.ma.array([1.0]),)):
        with pytest.raises(TypeError, match="masked array"):
            same(value, 1.0)


@for_each("value", [True, np.bool_(True), "1e-3", [1e-3], np.array([1e-3, 1.0]), 1j, ()])
@for_each("option", ["within", "scale"])
def test_what_is_no_number_is_no_allowance(option, value):
    with pytest.raises(TypeError) as caught:
        same(1.0, 1.0, **{option: value})
    assert str(caught.value).startswith(f"same: {option}=")
    assert str(caught.value).endswith("; expected a number")


def test_allowances_are_numbers_of_any_kind():
    for within in (np.float32(0.5), np.longdouble(0.5), Fraction(1, 2)):
        for dtype in (np.float32, np.longdouble):
            same(np.ones(2, dtype), dtype(1.25), within=within)
            same(np.ones(2, dtype), dtype(1.25), within=within, scale=within)


def test_one_number_serves_all_arrays_of_a_list():
    same([np.ones(2), np.ones((2, 3))], 1)
    with pytest.raises(AssertionError, match="arrays 1 differ"):
        same([np.ones(2), np.zeros((2, 3))], 1)


def test_numbers_booleans_integers_and_complex_numbers_agree():
    same(0.5, np.float64(0.5))
    same(np.array([True, False]), [1, 0])
    same(np.arange(3), [0.0, 1.0, 2.0])
    same(np.array([1 + 1j]), np.array([1 + 1j]))
    with pytest.raises(AssertionError):
        same(np.array([1 + 1j]), np.array([1 + 1.1j]))


def test_tensors_of_torch_are_compared():
    torch = pytest.importorskip("torch")
    same(torch.ones(2, requires_grad=True), np.ones(2))
    with pytest.raises(AssertionError, match=r"at \[1\]"):
        same(torch.tensor([1.0, 2.0]), np.ones(2))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "bfloat16", "float16", "complex64"])
def test_tensors_of_torch_of_any_dtype_are_compared(dtype):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([1, 0, 1]).to(getattr(torch, dtype))
    same(tensor, [1, 0, 1])
    same([tensor, np.ones(2)], (np.array([1, 0, 1]), np.ones(2)))
    with pytest.raises(AssertionError, match=r"at \[1\]"):
        same(tensor, [1, 1, 1])
