"""Attention computed for one image and head at a time, where the weights of all would take much memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npattn.typing import Array, Backward

__all__ = ["attend_by_heads"]


def attend_by_heads(
    attend: Callable[..., tuple[Array, Backward]], q: Array, k: Array, v: Array, *scale: float
) -> tuple[Array, Backward]:
    """Call an attention once for each index of the leading axes, which q, k and v share.

    Examples
    --------
    >>> from npattn import ops
    >>> q, k, v = (np.random.RandomState(seed).standard_normal((2, 3, 4, 5)) for seed in range(3))
    >>> found, _ = attend_by_heads(ops.dot_product_attention, q, k, v)
    >>> bool(np.allclose(found, ops.dot_product_attention(q, k, v)[0]))
    True
    """
    heads = list(np.ndindex(q.shape[:-2]))
    parts = [attend(q[at], k[at], v[at], *scale) for at in heads]

    def join(each: tuple[Array, ...]) -> Array:
        found = np.empty_like(each[0], shape=(*q.shape[:-2], *each[0].shape))
        for at, part in zip(heads, each, strict=True):
            found[at] = part
        return found

    def backward(do: Array) -> tuple[Array, ...]:
        gradients = [back(do[at]) for at, (_, back) in zip(heads, parts, strict=True)]
        return tuple(join(each) for each in zip(*gradients, strict=True))

    return join(tuple(o for o, _ in parts)), backward
