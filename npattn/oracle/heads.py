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
    outputs, backs = Joined(q.shape[:-2]), []
    for at in heads:
        o, back = attend(q[at], k[at], v[at], *scale)
        outputs.put(at, (o,))
        backs.append(back)

    def backward(do: Array) -> tuple[Array, ...]:
        gradients = Joined(q.shape[:-2])
        for at, back in zip(heads, backs, strict=True):
            gradients.put(at, back(do[at]))
        return gradients.arrays

    return outputs.arrays[0], backward


class Joined:
    """Arrays of all heads, each put in place as soon as it is there.

    Parameters
    ----------
    lead : tuple of int
        Lengths of the leading axes.
    """

    def __init__(self, lead: tuple[int, ...]) -> None:
        self.lead = lead
        self.arrays: tuple[Array, ...] = ()

    def put(self, at: tuple[int, ...], found: tuple[Array, ...]) -> None:
        """Put in place what one head has."""
        self.arrays = self.arrays or tuple(np.empty_like(a, shape=(*self.lead, *a.shape)) for a in found)
        for whole, part in zip(self.arrays, found, strict=True):
            whole[at] = part
