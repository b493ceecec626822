"""Norms of large maps whose statistics are those of groups of channels."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import blocks, is_large
from npattn.fast.threads import parallel_for
from npattn.ops.normalisation import group_norm
from npattn.typing import Array, Backward

BLOCK_SIZE = 2**16
"""Numbers in a block, about, unless a group has more: it stays in the cache from one pass over it to the next."""


@group_norm.faster(suits=lambda x, weight, bias, *_, **__: is_large(x, weight, bias))
def group_norm_group_by_group(
    x: Array, weight: Array, bias: Array, groups: int, *, eps: float = 1e-5
) -> tuple[Array, Backward]:
    """Do all that a group needs while it is in the cache; backward makes the normalised group again."""
    batch, channels, height, width = x.shape
    shape = batch, groups, channels // groups, height * width
    rows = x.reshape(batch, groups, shape[2] * shape[3])
    scales, shifts = (a.reshape(groups, shape[2], 1) for a in (weight, bias))
    mean = np.empty_like(rows, order="C", shape=(batch, groups, 1))
    inverse, y = np.empty_like(mean), np.empty_like(rows, order="C", shape=shape)
    cut = blocks(rows, 1, BLOCK_SIZE)

    def compute(block):
        np.mean(rows[block], axis=2, keepdims=True, out=mean[block])
        normal = rows[block] - mean[block]
        variance = (normal * normal).mean(axis=2, keepdims=True)
        np.divide(1, np.sqrt(variance + eps), out=inverse[block])
        normal *= inverse[block]
        some = y[block]
        np.multiply(normal.reshape(some.shape), scales[block[1]], out=some)
        some += shifts[block[1]]

    parallel_for(compute, cut)

    def backward(dy):
        if not is_large(dy):
            return group_norm.definition(x, weight, bias, groups, eps=eps)[1](dy)
        given = dy.reshape(shape)
        dx = np.empty_like(rows, order="C", shape=shape)
        along, total = (np.empty_like(dx, shape=shape[:3]) for _ in range(2))

        def differentiate(block):
            some = dx[block]
            normal = rows[block] - mean[block]
            normal *= inverse[block]
            normal = normal.reshape(some.shape)
            np.multiply(given[block], normal, out=some)
            some.sum(axis=3, out=along[block])
            given[block].sum(axis=3, out=total[block])
            np.multiply(given[block], scales[block[1]], out=some)
            stretch = (some * normal).mean(axis=(2, 3), keepdims=True)
            some -= some.mean(axis=(2, 3), keepdims=True)
            normal *= stretch
            some -= normal
            some *= inverse[block][..., None]

        parallel_for(differentiate, cut)
        return dx.reshape(x.shape), along.sum(axis=0).reshape(channels), total.sum(axis=0).reshape(channels)

    return y.reshape(x.shape), backward
