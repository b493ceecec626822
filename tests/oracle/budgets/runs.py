"""What budgets are measured of in tests: errors of known sizes, and modules with what is observed of them."""

import numpy as np

import npattn
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, measure_budgets, observe, run_on
from npattn.oracle.budgets.measuring import NUM_RUNS
from npattn.oracle.budgets.near_ties import RecordedSelections
from npattn.oracle.formats import FLOAT64, FORMATS, representable
from npattn.oracle.rounding import Rounding
from npattn.oracle.threads import pass_threads

BFLOAT16 = FORMATS["bfloat16"]


def normal_errors(scale, runs=NUM_RUNS, seed=0):
    return np.random.RandomState(seed).standard_normal((runs, *scale.shape)) * scale


def prepared(module, seed=0, format=BFLOAT16, **sizes):
    """What a module is given in a format, and what is observed of it."""
    params, inputs = generic_values(module, seed=seed, **sizes)
    batch, _, height, width = next(iter(inputs.values())).shape
    random = np.random.RandomState(seed)
    upstream = {name: random.standard_normal(s) for name, s in module.output_shapes(batch, height, width).items()}
    values = Given(params, inputs, upstream).each(lambda a: representable(a, format))
    return values, observe(module, values, format, seed)


def measured(observed, module, values, format):
    with pass_threads() as threads:
        return measure_budgets(observed, module, values, format, 0, threads=threads)


def exact_margins(module, values):
    """What the exact run compares, in order."""
    margins = []
    run_on(Rounding(FLOAT64, selections=RecordedSelections(margins.append)), module, values)
    return margins


def near_a_kink(threshold):
    """A squeeze and excitation whose first hidden unit stands by so much above the rectifier's corner."""
    module = npattn.SqueezeExcitation(8, 2)
    values, _ = prepared(module)
    bias = values.params["fc1.bias"].copy()
    bias[0] -= exact_margins(module, values)[0][0, 0] - threshold
    params = values.params | {"fc1.bias": representable(bias, BFLOAT16)}
    values = Given(params, values.inputs, values.upstream)
    return module, values, observe(module, values, BFLOAT16, 0)
