import numpy as np
import pytest

import npattn
from npattn.oracle.budgets import Given, rms_limit, run_on, worst_limit
from npattn.oracle.formats import FORMATS
from npattn.oracle.rounding import Rounding
from tests.oracle.budgets.runs import measured, prepared


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "tf32", "float8_e4m3"])
def test_budgets_are_of_the_size_of_errors_of_runs_they_were_not_estimated_from(name):
    format = FORMATS[name]
    module = npattn.PositionAttention(8)
    values, observed = prepared(module, format=format, height=8, width=9)
    budget = measured(observed, module, values, format)
    for seed in range(3):
        found = run_on(Rounding(format, [99, seed]), module, values)
        for key, value in observed.expected.items():
            units = (found[key] - value) / budget[key].scale
            assert np.sqrt(np.mean(units**2)) < rms_limit(budget[key].freedom), key
            assert np.abs(units).max() < worst_limit(value.size, budget[key].freedom), key
            if value.size > 100:
                assert np.sqrt(np.mean(units**2)) > 0.3, key


def test_a_layer_norm_that_rounds_every_operation_passes_in_a_format_of_few_digits():
    """A row's deviation takes one of two values there, and so do all errors of the row."""
    recipes = npattn.oracle.cases("ops.layer_norm", ["float8_e4m3"], kinds=["sizes"])
    case = next(one for one in recipes if one.id.endswith("2x16x17x1")).make()
    found = run_on(Rounding(case.format), case.module, Given(case.params, case.inputs, case.upstream))
    assert case.compare({name: np.asarray(a) for name, a in found.items()}).passed
