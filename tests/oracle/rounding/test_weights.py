"""Weights of a softmax as kernels have them: made again of its logsumexp, their gradient's average made apart."""

import math

import numpy as np
import pytest

from npattn import ops
from npattn.oracle import golden
from npattn.oracle.formats import FORMATS
from npattn.oracle.rounding import Rounding
from tests.own_systems import CausalHead

CHANNELS = 16


def attend(case, *, remembers_sums):
    """Causal attention in float32, whose backward has the weights again of the logsumexp, or has kept them."""
    q, k, v = (case.inputs[name].astype(np.float32) for name in "qkv")
    dy = case.upstream["output"].astype(np.float32)
    scale = np.float32(1 / math.sqrt(CHANNELS))
    z = np.where(case.inputs["mask"], scale * (q @ k.swapaxes(-1, -2)), -np.inf)
    largest = z.max(axis=-1, keepdims=True)
    e = np.exp(z - largest)
    total = e.sum(axis=-1, keepdims=True)
    y = e / total @ v
    a = np.exp(z - (largest + np.log(total))) if remembers_sums else e / total
    dz = scale * a * (dy @ v.swapaxes(-1, -2) - (dy * y).sum(axis=-1, keepdims=True))
    gradients = {"q.grad": dz @ k, "k.grad": dz.swapaxes(-1, -2) @ q, "v.grad": a.swapaxes(-1, -2) @ dy}
    return {"output": y, "weights": e / total} | gradients, a


def test_backward_may_make_weights_again_of_a_rounded_logsumexp_where_forward_may_not():
    """One weight is nearly 1 in most rows: what its logsumexp loses is many roundings of it."""
    for seed in (3, 4, 5):
        case = golden(CausalHead(CHANNELS), batch=2, height=12, width=12, dtype="float32", values="large", seed=seed)
        for remembers_sums in (False, True):
            found, a = attend(case, remembers_sums=remembers_sums)
            case.assert_matches(found)
        assert not case.compare({"weights": a}).passed
        assert not case.compare({"v.grad": found["v.grad"] * np.float32(1 + 1e-4)}).passed


def by_rows(a, v):
    return a @ v, lambda do: do @ v.swapaxes(-1, -2)


def by_rows_turned(a, v):
    return a @ v, lambda do: (v @ do.swapaxes(-1, -2)).swapaxes(-1, -2)


def by_columns(a, v):
    maps = v.swapaxes(-1, -2)
    return (maps @ a.swapaxes(-1, -2)).swapaxes(-1, -2), lambda do: do @ maps


def by_columns_turned(a, v):
    maps = v.swapaxes(-1, -2)
    return (maps @ a.swapaxes(-1, -2)).swapaxes(-1, -2), lambda do: (
        maps.swapaxes(-1, -2) @ do.swapaxes(-1, -2)
    ).swapaxes(-1, -2)


def by_letters(a, v):
    return np.einsum("bhmn,bhnc->bhmc", a, v), lambda do: np.einsum("xymc,xync->xymn", do, v)


def by_other_letters(a, v):
    return np.einsum("bhnc,bhmn->bhmc", v, a), lambda do: np.einsum("bhkc,bhqc->bhqk", v, do)


@pytest.mark.parametrize(
    "gather", [by_rows, by_rows_turned, by_columns, by_columns_turned, by_letters, by_other_letters]
)
def test_products_that_are_written_out_tell_a_softmax_what_its_gradient_averages_to(gather):
    """As those by `ops.matmul` do."""
    random, rounding = np.random.RandomState(0), Rounding(FORMATS["float16"], [0, 1])
    z, v, do = (random.standard_normal((2, 3, *shape)) for shape in ((4, 6), (6, 5), (4, 5)))
    a, _ = ops.softmax(rounding.array(z))
    o, back_weights = gather(a, rounding.array(v))
    average, _ = back_weights(rounding.array(do)).average()
    np.testing.assert_allclose(average.ravel(), (np.asarray(o) * do).sum(axis=-1).ravel(), atol=0.02)


def test_a_product_with_other_values_tells_nothing():
    rounding = Rounding(FORMATS["float16"], [0, 0])
    a, _ = ops.softmax(rounding.array(np.zeros((4, 4))))
    v, others = (rounding.array(np.ones((4, 4))) for _ in range(2))
    o = a @ v
    assert (o @ others.T).average is None
    assert (o @ v).average is None
    assert (o @ v.T).average is not None
