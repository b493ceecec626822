import numpy as np
import pytest

from npattn.oracle.measurement import right_digits


def test_right_digits_are_counted_from_the_largest_error():
    exact, budget = np.full(10, 2, np.longdouble), np.full(10, 1e-3)
    found = np.full(10, 2.0)
    assert right_digits(found, exact, budget) == 15
    found[3] += 2e-9
    assert right_digits(found, exact, budget) == pytest.approx(9)
    budget[3] = np.inf
    assert right_digits(found, exact, budget) == 15
    assert right_digits(np.full(10, 1e-9), 0 * exact, np.full(10, 1e-3)) == pytest.approx(6)
