"""Weights that backward makes again of a logsumexp that is as large as the logits, and rounded so."""

import math

import numpy as np

from npattn.oracle import golden
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
