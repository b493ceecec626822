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
        (1.0, 1.0, {"within": -1}, "within is -1"),
        (1.0, 1.0, {"within": np.nan}, "within is nan"),
        (1.0, 1.0, {"scale": np.inf}, "scale is inf"),
    ],
)
def test_what_can_not_be_compared_is_refused(ours, theirs, options, told):
    with pytest.raises(ValueError, match=told):
        same(ours, theirs, **options)


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
