import numpy as np

import npattn
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.returning import results_among, watching


def test_gradients_of_parameters_are_known_as_a_call_returns_them():
    module = npattn.EfficientChannelAttention(channels=4)
    x = np.random.RandomState(0).standard_normal((2, 4, 3, 3))
    returned = []
    with watching(lambda *pair: returned.append(pair)):
        results = named_results(module, Given(module.init(), {"x": x}, {"output": x}))
    assert results_among(returned, results, ["conv.weight.grad"]) == {1: [(1, "conv.weight.grad")]}


def test_a_gradient_that_two_calls_return_is_that_of_neither():
    g = np.ones(3)
    assert results_among([(0, (g,)), (1, (g,))], {"w.grad": g}, ["w.grad"]) == {}
    assert results_among([(0, (g[::-1],))], {"w.grad": g}, ["w.grad"]) == {}
