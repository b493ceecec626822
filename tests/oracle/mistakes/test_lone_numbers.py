"""A result that is one number, as a loss: its report, and what so little tells."""

import functools

import numpy as np
import pytest

from npattn import oracle
from npattn.oracle.mistakes.suspects import PRECISION
from tests.naming import for_each
from tests.own_systems import LogitLoss


@functools.cache
def loss():
    case = oracle.golden(LogitLoss(), batch=6, dtype="float32")
    return case, case.expected["output"]


@for_each("factor", [2.0, -1.0, 1.07, 0.0, np.nan, np.inf])
def test_a_wrong_one_fails_with_a_report(factor):
    case, y = loss()
    with pytest.raises(AssertionError, match="1 of 2 results WRONG"):
        case.assert_matches({"output": factor * y, "logits.grad": case.expected["logits.grad"]})
    assert case.diagnose({"output": np.array(factor * y)}).lines()


def test_one_that_is_nan_names_no_mistake_for_sure():
    case, y = loss()
    diagnosis = case.diagnose({"output": np.nan * y})
    assert diagnosis.suspects
    assert not diagnosis.sure


def test_the_size_of_one_error_is_no_sure_sign_of_an_arithmetic():
    case, y = loss()
    found = [case.diagnose({"output": factor * y}) for factor in (1.001, 1.003, 1.01, 1.03)]
    by_size = [
        one for one in found if any(mistake.way == "precision" for suspect in one for mistake in suspect.mistakes)
    ]
    assert by_size
    assert not any(PRECISION in " ".join(str(one).split()) for one in by_size)
