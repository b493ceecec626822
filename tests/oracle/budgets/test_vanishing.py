import numpy as np
import pytest

from npattn.oracle import FORMATS
from npattn.oracle.budgets import Budget
from npattn.oracle.budgets.vanishing import errors_in_float32
from npattn.oracle.progress import Passes

UNIT_ERRORS = np.random.RandomState(0).standard_normal((16, 50))
RARE = np.zeros((16, 50)) + 1e-3 * (np.arange(16) == 2)[:, None]


@pytest.mark.parametrize(
    ("errors", "count"),
    [
        (1e-4 * UNIT_ERRORS, 1),  # as bfloat16's, but for the digits that float32 has more
        (1e-8 * UNIT_ERRORS, 4),  # less: it has cancelled
        (1e-1 * UNIT_ERRORS, 4),  # more: the format has
        (RARE, 16),
    ],
)
def test_there_are_as_many_runs_in_float32_as_tell_how_far_they_err(errors, count):
    budgets = {"vanishing": Budget(np.full(50, 0.5), 1.0), "other": Budget(np.full(3, 0.5), 1.0)}
    expected = {"vanishing": np.zeros(50), "other": np.ones(3)}
    passes = Passes()

    def run(first, number, names):
        assert names == ["vanishing"]
        return [{"vanishing": errors[i - 201]} for i in range(first, first + number)]

    found = errors_in_float32(budgets, expected, FORMATS["bfloat16"], run, passes)
    assert list(found) == ["vanishing"]
    np.testing.assert_array_equal(found["vanishing"], errors[:count])
    assert passes.expected == count
