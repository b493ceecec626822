import itertools

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


def test_the_worst_of_more_elements_may_be_farther_off_and_their_mean_less():
    counts = 1, 2, 10, 1000
    assert all(worst_limit(few) < worst_limit(many) for few, many in itertools.pairwise(counts))
    assert all(rms_limit(few) > rms_limit(many) for few, many in itertools.pairwise(counts))
