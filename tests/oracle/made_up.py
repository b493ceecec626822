"""Golden cases with budgets that nobody measured, for tests of what is done with cases."""

import numpy as np

from npattn.oracle import Case, generic_values
from npattn.oracle.budgets import Budget, Given, limits_of, named_results


def made_up(module, dtype="float16", seed=0):
    """Make a case without measuring its budgets, which takes longer than all else; some are infinite."""
    batch, height, width = 2, 4, 5
    random = np.random.RandomState(seed)
    params, inputs = generic_values(module, batch=batch, height=height, width=width, seed=seed)
    outputs = module.output_shapes(batch, height, width)
    upstream = {name: random.standard_normal(shape) for name, shape in outputs.items()}
    given = Given(params, inputs, upstream)
    expected = named_results(module, given)
    single = given.each(np.float32)
    budget = {name: np.asarray(np.exp(random.standard_normal(y.shape))) for name, y in expected.items()}
    for array in budget.values():
        array[random.uniform(size=array.shape) < 0.1] = np.inf
    freedom = {name: float(random.uniform(1, 9)) for name in expected}
    digits = {name: [np.nan, 15.0, float(random.uniform(9, 15))][random.randint(3)] for name in expected}
    limits = {name: limits_of(Budget(budget[name], freedom[name])) for name in expected}
    arrays = single.inputs, single.params, single.upstream, expected, budget
    return Case(module, dtype, seed, "generic", *arrays, limits, freedom, digits)
