import numpy as np

import npattn
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes import sum_normalize
from tests.oracle.mistakes.plain import draw, softmax


def run(module, *given):
    return named_results(module, Given(*given))


def test_external_attention_normalises_each_way_along_the_others_axis():
    module = npattn.ExternalAttention(channels=4, memory=6, block=False)
    params, inputs = generic_values(module, batch=2, height=3, width=5)
    keys, values = (params[f"linear_{i}.weight"][..., 0] for i in (0, 1))
    a = softmax(np.einsum("sc,bcn->bsn", keys, inputs["x"].reshape(2, 4, 15)), 1)
    expected = np.einsum("cs,bsn->bcn", values, a / a.sum(axis=2, keepdims=True)).reshape(2, 4, 3, 5)
    forms = [one for one in sum_normalize.ADDED if "each along the other's axis" in one.name]
    assert {one.way for one in forms} == {"forward", "carried"}
    for one in forms:
        found = one.apply(run, module, params, inputs, {"output": draw(2, 4, 3, 5)})
        assert np.allclose(found["output"], expected)
