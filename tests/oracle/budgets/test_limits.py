import itertools

import numpy as np
import pytest
import scipy

import npattn
from npattn import oracle
from npattn.oracle.budgets import rms_limit, worst_limit
from npattn.oracle.budgets.limits import FALSE_ALARM_PROBABILITY, SLACK_FACTOR


def test_limits_are_those_of_normal_errors_with_the_stated_slack():
    for count in (1, 100, 10**6):
        quantile = -scipy.special.ndtri(FALSE_ALARM_PROBABILITY / count / 2)
        assert worst_limit(count) == pytest.approx(SLACK_FACTOR * quantile)
    assert rms_limit(1) == pytest.approx(worst_limit(1))
    assert rms_limit(1e6) == pytest.approx(SLACK_FACTOR, rel=0.01)
    random = np.random.RandomState(0)
    largest = np.abs(random.standard_normal((2000, 100))).max(axis=1)
    assert largest.max() < worst_limit(100)


def test_an_accumulator_whose_partial_sums_wander_far_is_within_the_limit():
    recipes = oracle.cases("ops.conv2d", ["float32"], kinds=["sizes"], seed=1)
    case = next(one for one in recipes if "1x127x16x8" in one.id).make()
    x, dy = (a.astype(np.float32) for a in (case.inputs["x"], case.upstream["output"]))
    _, back = npattn.ops.conv2d(x, case.params["weight"].astype(np.float32), padding=1)
    weight_grad = np.array(back(dy)[1])
    seen = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))[0, 90, :16, 2:10]  # of one weight, one by one
    total = np.float32(0)
    for a, b in zip(dy[0, 1].ravel(), seen.ravel(), strict=True):
        total = np.float32(float(a) * float(b) + float(total))
    weight_grad[1, 90, 0, 2] = total
    report = case.compare({"weight.grad": weight_grad}).judgements["weight.grad"]
    assert report.worst > worst_limit(weight_grad.size)
    assert report.passed


def test_the_worst_of_more_elements_may_be_farther_off_and_their_mean_less():
    counts = 1, 2, 10, 1000
    assert all(worst_limit(few) < worst_limit(many) for few, many in itertools.pairwise(counts))
    assert all(rms_limit(few) > rms_limit(many) for few, many in itertools.pairwise(counts))
