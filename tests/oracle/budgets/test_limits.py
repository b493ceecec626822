import numpy as np
import pytest
import scipy

from npattn.oracle.budgets import rms_limit, worst_limit
from npattn.oracle.budgets.limits import FALSE_ALARM_PROBABILITY, SLACK


def test_limits_are_those_of_normal_errors_with_the_stated_slack():
    for count in (1, 100, 10**6):
        quantile = -scipy.special.ndtri(FALSE_ALARM_PROBABILITY / count / 2)
        assert worst_limit(count) == pytest.approx(SLACK * quantile)
    assert rms_limit(1) == pytest.approx(worst_limit(1))
    assert rms_limit(1e6) == pytest.approx(SLACK, rel=0.01)
    random = np.random.RandomState(0)
    largest = np.abs(random.standard_normal((2000, 100))).max(axis=1)
    assert largest.max() < worst_limit(100)


@pytest.mark.parametrize("limit", [worst_limit, rms_limit])
def test_limits_grow_with_what_may_go_wrong(limit):
    found = [limit(count) for count in (1, 2, 10, 1000)]
    assert found == sorted(found, reverse=limit is rms_limit)
