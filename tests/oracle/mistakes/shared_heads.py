"""A kernel of attention whose heads share keys and values, in plain NumPy, and what may be wrong in it."""

import functools

import numpy as np

import npattn
from npattn.oracle import golden

__all__ = ["FIRST", "LAST", "B", "D", "G", "M", "N", "R", "case_of", "in_turn", "kernel", "over_groups"]

B, G, R, M, N, D = 2, 2, 2, 7, 9, 8
FIRST, LAST = np.tri(M, N) > 0, np.tri(M, N, N - M) > 0
"""Which keys a query sees, aligned with the first and with the last."""


@functools.cache
def case_of(causal, dtype="float32", values="generic", seed=0):
    module = npattn.ScaledDotProductAttention(heads=G * R, key_heads=G, head_dim=D, causal=causal)
    given = {"batch": B, "height": M, "width": N, "dtype": dtype, "values": values, "seed": seed}
    return golden(module, **given, certify=False)


def over_groups(g):
    return g.reshape(B, G, R, N, D).sum(2)


def in_turn(g):
    return g.reshape(B, R, G, N, D).sum(1)


def kernel(
    case,
    *,
    seen=None,
    seen_again=None,
    weigh=lambda z, lse: np.exp(z - lse),
    factors=(1, 1),
    sums=(over_groups, over_groups),
    rounded=lambda a: a,
):
    """Attention by a backward that makes the weights again: of logits, a logsumexp, and the keys that it sees.

    The output that δ is made of, and the weights, are `rounded`.
    """
    q, k, v = (np.array(case.inputs[name], float) for name in ("query", "key", "value"))
    do, scale = np.array(case.upstream["output"], float), D**-0.5
    k, v = k.repeat(R, 1), v.repeat(R, 1)
    z = scale * q @ k.swapaxes(2, 3)
    seen = (LAST if case.module.causal == "bottom-right" else FIRST) if seen is None else seen
    visible = np.where(seen, z, -np.inf)
    most = visible.max(-1, keepdims=True)
    lse = most + np.log(np.exp(visible - most).sum(-1, keepdims=True))
    o = rounded(rounded(np.exp(visible - lse)) @ v)
    s = rounded(weigh(visible if seen_again is None else np.where(seen_again, z, -np.inf), lse))
    dz = rounded(s * (do @ v.swapaxes(2, 3) - (do * o).sum(-1, keepdims=True)))
    dq, dk = (scale * factor * g for factor, g in zip(factors, (dz @ k, dz.swapaxes(2, 3) @ q), strict=True))
    found = o, dq, sums[0](dk), sums[1](s.swapaxes(2, 3) @ do)
    names = "output", "query.grad", "key.grad", "value.grad"
    return {name: a.astype(np.float32) for name, a in zip(names, found, strict=True)}
