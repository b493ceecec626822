"""A norm of single values that a system writes out errs in float32 as a line does."""

import numpy as np
import pytest

from npattn.oracle.formats import FORMATS
from npattn.oracle.rounding import Rounding


def by_a_factor(d):
    return d * (1 / np.sqrt((d * d).mean(axis=(2, 3), keepdims=True) + 1e-5))


def by_a_quotient(d):
    return d / np.sqrt((d**2).mean(axis=(2, 3), keepdims=True) + 1e-5)


def by_a_power(d):
    return ((d * d).mean(axis=(2, 3), keepdims=True) + 1e-5) ** -0.5 * d


def centre(x):
    return x - x.mean(axis=(2, 3), keepdims=True)


@pytest.mark.parametrize("norm", [by_a_factor, by_a_quotient, by_a_power])
def test_single_values_are_normed_by_a_line(norm):
    x, line = np.full((1, 400, 1, 1), 3.25), 3.25 / np.sqrt(1e-5) * 2**-24
    for format, expected in (("float32", line), ("bfloat16", 0)):
        rounding = Rounding(FORMATS[format], [0, 1])
        n = norm(centre(rounding.array(x)))
        rounding.known.begin_backward(rounding.choose)
        dn = centre(rounding.array(x))
        for found, size in ((n, expected), (dn, 3.25 * 2**-24 * (expected > 0))):
            assert size / 4 <= np.std(np.asarray(found, float)) <= size


def test_longer_rows_are_left_as_they_are_written():
    rounding = Rounding(FORMATS["float32"], [0, 1])
    x = rounding.array(np.ones((1, 3, 2, 1)))
    assert centre(x).made is None
    assert centre(x[:, :, :1]).made is not None


def test_what_is_taken_off_single_values_is_blurred_on_the_way_back_from_a_norm_alone():
    rounding = Rounding(FORMATS["float32"], [0, 1])
    x = rounding.array(np.full((1, 400, 1, 1), 3.25))
    by_a_factor(centre(x))
    assert not centre(x).any()  # in forward, after a norm
    rounding.known.end_backward()
    rounding.known.begin_backward(rounding.choose)
    assert not centre(x).any()  # on the way back, without one
