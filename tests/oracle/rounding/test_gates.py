"""A sigmoid that a system writes out is known, and its slope is made of the gate alone or of the exponential."""

import numpy as np
import pytest

from npattn.oracle.formats import FORMATS
from npattn.oracle.rounding import Rounding
from npattn.oracle.rounding.gates import Sigmoid


def falling(x):
    e = np.exp(-x)
    return e, 1 / (1 + e)


def rising(x):
    e = np.exp(x)
    return e, e / (e + 1)


def by_reciprocal(x):
    e = np.exp(-x)
    return e, np.reciprocal(1 + e)


def by_sign(x):
    e = np.exp(np.where(x < 0, x, -x))
    return e, np.where(x < 0, e / (1 + e), 1 / (1 + e))


@pytest.mark.parametrize("squash", [falling, rising, by_reciprocal, by_sign])
def test_the_rest_of_a_gate_is_made_in_two_ways_below_1_and_cancels_beyond(squash):
    x = np.repeat([-3.0, 20.0], 1000)
    errors, rests = [], []
    for number in range(2):
        rounding = Rounding(FORMATS["float32"], [0, number])
        _, y = squash(rounding.array(x))
        assert isinstance(y.made, Sigmoid)
        rest = np.asarray(1 - y, float)
        errors.append(np.abs(rest[:1000] * (1 + np.exp(-3.0)) - 1).mean())
        rests.append(set(rest[1000:] * 2**24))
    assert errors[1] > 1.2 * errors[0]
    assert all(rest <= {0, 1, 2} for rest in rests)


def test_a_slope_by_the_exponential_may_be_that_of_the_gate_which_cancels():
    found = []
    for number in range(2):
        rounding = Rounding(FORMATS["float32"], [0, number])
        e, y = falling(rounding.array(np.array([-2.0, 20.0])))
        before = np.array(e)
        rounding.known.begin_backward(rounding.choose)
        found.append(np.asarray(e * y) - np.asarray(1 - y))
        rounding.known.end_backward()
        np.testing.assert_array_equal(e, before)
    assert np.abs(found)[:, 1].max() < 1e-12
    assert np.abs(found)[:, 0].max() < 1e-6


def test_other_quotients_are_no_gates():
    rounding = Rounding(FORMATS["float32"], [0, 1])
    x = rounding.array(np.array([0.5, 2.0]))
    e = np.exp(x)
    assert [y.made for y in (1 / (2 + e), x / (1 + e), 1 / (1 + x), 1 - 1 / x)] == [None] * 4
