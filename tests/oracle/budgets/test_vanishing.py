import numpy as np
import pytest

import npattn
from npattn.oracle import FORMATS, cases, golden
from npattn.oracle.budgets import Budget, Given, run_on
from npattn.oracle.budgets.vanishing import errors_in_float32
from npattn.oracle.progress import Passes
from npattn.oracle.rounding import Rounding

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


@pytest.mark.parametrize("format", ["float16", "bfloat16"])
def test_a_gradient_that_vanishes_has_the_budget_of_a_kernel_that_computes_in_float32(format):
    """In a saturated softmax weights are 0 and 1 in the format, and the bias's gradient cancels to the last bit."""
    module = npattn.SoftHardAttention(32, 4)
    for seed in (1, 50):
        case = golden(module, batch=2, height=7, width=5, dtype=format, values="large", seed=seed)
        given = Given(case.params, case.inputs, case.upstream)
        for run in range(5):
            found = run_on(Rounding(FORMATS["float32"], [run, 7]), module, given)
            case.assert_matches({"score.bias.grad": found["score.bias.grad"]})


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "tf32"])
def test_a_gradient_that_is_0_throughout_may_be_made_of_terms_that_are_rounded_apart(name):
    """Softmax over one position, as exponentials and their sum."""
    [recipe] = [one for one in cases("ops.softmax", [name]) if one.id.endswith("3x16x1x1")]
    case = recipe.make()
    x, dy = (np.float32(a) for a in (case.inputs["x"], case.upstream["output"]))
    e = np.exp(x)
    gradient = e * (dy / e - dy * e / (e * e))
    assert not case.expected["x.grad"].any()
    assert gradient.any()
    results = {"output": np.ones_like(x), "x.grad": gradient}
    assert case.compare(results).passed
    results["x.grad"] = dy  # without the sum
    assert not case.compare(results).passed
