import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import npattn
from npattn.oracle import golden
from npattn.oracle.extended import ExtendedArray, extend, multiply

more_than_float64 = pytest.mark.skipif(
    np.finfo(np.longdouble).eps == np.finfo(np.float64).eps, reason="longdouble is float64 here"
)


def numbers(seed, shape, spread):
    """Numbers with all digits of longdouble, of sizes that differ by decades."""
    random = np.random.RandomState(seed)
    rough = random.standard_normal(shape) * np.exp(spread * random.standard_normal(shape))
    return rough.astype(np.longdouble) * (1 + random.standard_normal(shape) * np.longdouble(2) ** -57)


@more_than_float64
@given(st.integers(0, 99), st.integers(20, 60), st.integers(20, 700), st.integers(20, 40), st.sampled_from([0, 3, 30]))
@settings(max_examples=20)
def test_products_are_off_by_less_than_their_bound(seed, rows, inner, columns, spread):
    a, b = numbers(seed, (2, rows, inner), spread), numbers(seed + 1, (inner, columns), spread)
    largest = np.abs(a).max(axis=-1, keepdims=True) * np.abs(b).max(axis=-2, keepdims=True)
    error = np.abs(multiply(a, b) - a @ b)
    bits = (53 - (inner - 1).bit_length()) // 2
    own = 2.0**-62 * inner  # of the longdouble products that it is compared with
    assert (error <= inner * (4 * (inner + 3) * 2.0 ** (-53 - bits) + own) * largest).all()
    assert (error <= (2.0**-57 * np.sqrt(inner) + own) * largest).all()  # as it is, roundings not being all one way


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e300])
def test_what_float64_cant_hold_is_multiplied_as_it_stands(value):
    a = np.ones((40, 40), np.longdouble)
    a[3, 4] = value
    found = multiply(a, a)
    assert found.dtype == np.longdouble
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found, a @ a)


def test_what_is_made_of_extended_arrays_multiplies_quickly_too(monkeypatch):
    seen = []
    monkeypatch.setattr("npattn.oracle.extended.multiply", lambda a, b: seen.append(a.shape) or a @ b)
    a = extend(np.ones((30, 30)))
    total = (np.exp(a)[:, ::-1] + 1).T @ a
    total += 1
    positive = np.where(a > 0, a, 0)
    positive @ positive
    assert seen == [(30, 30)] * 2
    assert isinstance(total, ExtendedArray)
    assert total.dtype == np.longdouble


@more_than_float64
def test_digits_are_counted_in_more_than_float64():
    case = golden(npattn.PositionAttention(8), height=24, width=24)
    digits = dict(case.digits)
    assert digits.pop("key_conv.bias.grad") > 11  # 0 but for the rounding of a sum over all pairs of positions
    assert min(digits.values()) > 13


def test_a_case_without_its_certificate_is_the_same_otherwise(tmp_path):
    module = npattn.EfficientChannelAttention(4)
    with_digits, without = (golden(module, height=3, width=3, certify=certify) for certify in (True, False))
    assert all(np.isnan(digits) for digits in without.digits.values())
    assert with_digits.limits == without.limits
    for name, budget in with_digits.budget.items():
        np.testing.assert_array_equal(without.budget[name], budget)
    without.save(tmp_path / "case.npz")
    assert all(np.isnan(digits) for digits in npattn.oracle.load(tmp_path / "case.npz").digits.values())


def test_functions_without_longdouble_compute_in_float64():
    found = special.erf(extend(np.array([0.25, -3.0])))
    assert isinstance(found, ExtendedArray)
    assert found.dtype == np.longdouble
    np.testing.assert_array_equal(found.astype(np.float64), special.erf([0.25, -3.0]))
