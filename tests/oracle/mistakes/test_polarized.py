import numpy as np
import pytest

import npattn
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes import polarized
from tests.oracle.mistakes.plain import draw, softmax

PLACES = {"parallel": "products", "sequential": "values"}


def run(module, *given):
    return named_results(module, Given(*given))


def made(name):
    return next(one for one in polarized.ADDED if one.name == f"polarized: {name}")


def given_to(form):
    module = npattn.PolarizedSelfAttention(channels=4, form=form)
    params, inputs = generic_values(module, batch=2, height=3, width=5)
    return module, params, inputs, {"output": draw(2, 4, 3, 5)}


def gate_of_positions(params, x, place):
    """The gate with its softmax in one of three places."""
    q, k = (np.einsum("oc,bcn->bon", params[f"conv_{n}_left.weight"][..., 0, 0], x.reshape(2, 4, 15)) for n in "qv")
    t = q.mean(axis=2)
    if place == "mean query":
        t = softmax(t)
    if place == "values":
        k = softmax(k)
    z = np.einsum("bd,bdn->bn", t, k)
    if place == "products":
        z = softmax(z)
    return (1 / (1 + np.exp(-z))).reshape(2, 1, 3, 5)


@pytest.mark.parametrize("form", PLACES)
@pytest.mark.parametrize("place", ["mean query", "values", "products", "nothing"])
def test_the_second_softmax_stands_where_the_name_says_or_nowhere(form, place):
    module, params, inputs, upstream = given_to(form)
    x = inputs["x"]
    one = made("second softmax left out" if place == "nothing" else f"second softmax of the {place}")
    assert one.when(module, params, inputs, upstream) == (place != PLACES[form])
    gated = x * module(params, x).attention["channel"][:, :, None, None]
    found = one.apply(run, module, params, inputs, upstream)["output"]
    if form == "parallel":
        assert np.allclose(found, gated + x * gate_of_positions(params, x, place))
    else:
        assert np.allclose(found, gated * gate_of_positions(params, gated, place))


def test_one_of_the_gates_alone_is_that_of_the_name():
    module, params, inputs, upstream = given_to("parallel")
    x, gates = inputs["x"], module(params, inputs["x"]).attention
    for name, gate in (("channels", gates["channel"][:, :, None, None]), ("positions", gates["spatial"])):
        found = made(f"{name} gated alone").apply(run, module, params, inputs, upstream)
        assert np.allclose(found["output"], x * gate)
