"""What a kernel of attention whose heads share keys and values may do on the way back alone is named."""

import functools
import math

import numpy as np
import pytest

import npattn
from npattn.oracle import golden
from tests.oracle.mistakes.searching import diagnosed

B, G, R, M, N, D = 2, 2, 2, 7, 9, 8
LAST, FIRST = np.tri(M, N, N - M) > 0, np.tri(M, N) > 0


@functools.cache
def case_of(causal):
    module = npattn.ScaledDotProductAttention(heads=G * R, key_heads=G, head_dim=D, causal=causal)
    return golden(module, batch=B, height=M, width=N, dtype="float32", certify=False)


def over_groups(g):
    return g.reshape(B, G, R, N, D).sum(2)


def in_turn(g):
    return g.reshape(B, R, G, N, D).sum(1)


def kernel(case, *, weigh=lambda z, lse: np.exp(z - lse), seen=None, factors=(1, 1), sums=(over_groups, over_groups)):
    """Attention by a backward that makes the weights again: of logits, a logsumexp, and the keys that it sees."""
    q, k, v = (np.array(case.inputs[name], float) for name in ("query", "key", "value"))
    do, scale = np.array(case.upstream["output"], float), D**-0.5
    k, v = k.repeat(R, 1), v.repeat(R, 1)
    z = scale * q @ k.swapaxes(2, 3)
    hidden = np.where(LAST if case.module.causal == "bottom-right" else FIRST, 0, -np.inf)
    lse = np.log(np.exp(z + hidden).sum(-1, keepdims=True))
    o = np.exp(z + hidden - lse) @ v
    s = weigh(z + (hidden if seen is None else np.where(seen, 0, -np.inf)), lse)
    dz = s * (do @ v.swapaxes(2, 3) - (do * o).sum(-1, keepdims=True))
    dq, dk = (scale * factor * g for factor, g in zip(factors, (dz @ k, dz.swapaxes(2, 3) @ q), strict=True))
    found = o, dq, sums[0](dk), sums[1](s.swapaxes(2, 3) @ do)
    names = "output", "query.grad", "key.grad", "value.grad"
    return {name: a.astype(np.float32) for name, a in zip(names, found, strict=True)}


WRONG = {
    "dk": ("bottom-right", {"sums": (in_turn, over_groups)}, "(1') repeat: gradient: added up over heads in turn"),
    "dv": ("bottom-right", {"sums": (over_groups, in_turn)}, "(2') repeat: gradient: added up over heads in turn"),
    "both": (
        "bottom-right",
        {"sums": (in_turn,) * 2},
        "every (1'), (2') repeat: gradient: added up over heads in turn",
    ),
    "2^(z - l log2 e)": (
        "bottom-right",
        {"weigh": lambda z, lse: np.exp2(z - lse / math.log(2))},
        "gradient: log₂ e left out of the logits where weights are made again",
    ),
    "2^(z - l)": (
        "bottom-right",
        {"weigh": lambda z, lse: np.exp2(z - lse)},
        "gradient: log₂ e left out of the logits and the logsumexp where weights are made again",
    ),
    "first": ("bottom-right", {"seen": FIRST}, "gradient: wrong alignment where weights are made again"),
    "last": ("top-left", {"seen": LAST}, "gradient: wrong alignment where weights are made again"),
    "scale twice": ("bottom-right", {"factors": (D**-0.5,) * 2}, "gradient: scale twice in dq and dk"),
    "no scale": ("bottom-right", {"factors": (D**0.5,) * 2}, "gradient: scale missing in dq and dk"),
    "scale twice in dq": ("bottom-right", {"factors": (D**-0.5, 1)}, "gradient: scale twice in dq"),
    "scale twice in dk": ("bottom-right", {"factors": (1, D**-0.5)}, "gradient: scale twice in dk"),
    "no scale in dk": ("bottom-right", {"factors": (1, D**0.5)}, "gradient: scale missing in dk"),
}


@pytest.mark.parametrize("causal", ["top-left", "bottom-right"])
def test_the_kernel_is_right_where_nothing_is_wrong(causal):
    assert case_of(causal).compare(kernel(case_of(causal))).passed


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_backward_alone_is_named_surely(what):
    causal, mistakes, name = WRONG[what]
    found = diagnosed(case_of(causal), kernel(case_of(causal), **mistakes))
    assert found.sure
    assert found.alike == 1
    assert name in found[0].name
