import numpy as np
import pytest

import npattn
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.regrouping import ADDED


def run(module, *given):
    return named_results(module, Given(*given))


def drawn(key):
    module = npattn.CATALOGUE[key].example()
    params, inputs = generic_values(module, batch=2, height=3, width=4)
    dy = np.random.RandomState(0).standard_normal(module(params, *inputs.values()).output.shape)
    return module, params, inputs, {"output": dy}


def named(words, way="carried"):
    return next(one for one in ADDED if one.name.startswith(words) and one.way == way)


@pytest.mark.parametrize("mistake", ADDED, ids=lambda one: f"{one}, {one.way}")
def test_every_mistake_makes_a_difference_where_it_applies(mistake):
    tried = [given for given in map(drawn, ("shuffle", "linear", "triplet", "lambda")) if mistake.when(*given)]
    assert len(tried) == 1
    right, wrong = run(*tried[0]), mistake.apply(run, *tried[0])
    assert any(not np.allclose(wrong[name], right[name]) for name in right)


def test_heads_that_are_interleaved_are_those_of_layers_in_that_order():
    module, params, inputs, upstream = drawn("linear")
    found = named("heads interleaved").apply(run, module, params, inputs, upstream)
    other = dict(params)
    for name in ("keys", "queries", "values"):
        order = np.arange(len(params[f"{name}.bias"])).reshape(-1, module.heads).T.ravel()
        other |= {f"{name}.{part}": params[f"{name}.{part}"][order] for part in ("weight", "bias")}
    other["reprojection.weight"] = params["reprojection.weight"][:, order]
    expected = run(module, other, inputs, upstream)
    assert np.allclose(found["output"], expected["output"])
    assert np.allclose(found["x.grad"], expected["x.grad"])


def test_halves_that_are_exchanged_have_each_others_gates():
    """A group whose halves stand in the other order has its result in that order too."""
    module, params, inputs, upstream = drawn("shuffle")
    x = inputs["x"]

    def turned(a):
        halves = a.reshape(len(a), module.groups, 2, -1, *a.shape[2:])
        return halves[:, :, ::-1].reshape(a.shape)

    found = named("halves of a group").apply(run, module, params, inputs, upstream)
    y = module(params, turned(x)).output  # dealt out in two piles: gather them in, turn, and deal again
    piles = y.reshape(len(y), -1, 2, *y.shape[2:]).swapaxes(1, 2).reshape(y.shape)
    again = turned(piles).reshape(len(y), 2, -1, *y.shape[2:]).swapaxes(1, 2).reshape(y.shape)
    assert np.allclose(found["output"], again)


def test_a_map_turned_by_a_reshape_is_gated_along_memory():
    module, params, inputs, upstream = drawn("triplet")
    found = named("map turned").apply(run, module, params, inputs, upstream)
    x, total = inputs["x"], 0
    for name, axis in (("cw", 2), ("hc", 3), ("hw", 1)):
        shape = list(x.shape)
        shape[1], shape[axis] = shape[axis], shape[1]
        names = {n.replace(name, "hw", 1): a for n, a in params.items() if n.startswith(name)}
        total = total + by_position(module, names, x.reshape(shape)).reshape(x.shape)
    assert np.allclose(found["output"], total / 3)


def by_position(module, params, t):
    """The gate by position alone, of a map that was turned."""
    planes = np.stack([t.max(axis=1), t.mean(axis=1)], axis=1)
    z, _ = npattn.layers.conv(planes, params, "hw.conv.conv", padding=module.kernel_size // 2)
    (n, _), _ = npattn.layers.batch_norm(z, params, "hw.conv.bn", training=False)
    return t / (1 + np.exp(-n))
