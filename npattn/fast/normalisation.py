"""Norms of large maps."""

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
    """Do all that a group needs while it is in the cache; the gradients of its weights are all sums that it needs.

    Where a weight or a gradient is infinite those sums may be NaN where others are not: the definition is followed.
    """
    if not np.isfinite(weight).all():
        return group_norm.definition(x, weight, bias, groups, eps=eps)
    shape = len(x), groups, x.shape[1] // groups, x.shape[2] * x.shape[3]
    maps, scales, shifts = x.reshape(shape), weight.reshape(shape[1:3]), bias.reshape(shape[1:3])
    mean = np.empty_like(x, shape=(*shape[:2], 1, 1))
    inverse, y = np.empty_like(mean), np.empty_like(maps)
    cut = blocks(maps, 1, BLOCK_SIZE)

    def compute(block):
        some, to = maps[block], y[block]
        np.mean(some, axis=(2, 3), keepdims=True, out=mean[block])
        centred = np.subtract(some, mean[block], out=to)
        inverse[block] = 1 / np.sqrt((centred * centred).mean(axis=(2, 3), keepdims=True) + eps)
        to *= inverse[block] * scales[block[1]][..., None]
        to += shifts[block[1]][..., None]

    parallel_for(compute, cut)

    def backward(dy):
        if not is_large(dy) or not np.isfinite(dy.sum()):
            return group_norm.definition(x, weight, bias, groups, eps=eps)[1](dy)
        given, dx = dy.reshape(shape), np.empty_like(maps)
        dweights, dbiases = np.empty_like(maps, shape=shape[:3]), np.empty_like(maps, shape=shape[:3])

        def differentiate(block):
            scale, to = scales[block[1]], dx[block]
            normal = maps[block] - mean[block]
            normal *= inverse[block]
            np.einsum("bgcn,bgcn->bgc", given[block], normal, out=dweights[block])
            np.einsum("bgcn->bgc", given[block], out=dbiases[block])
            along, average = (
                ((scale * sums[block]).sum(axis=2) / (shape[2] * shape[3]))[:, :, None, None]
                for sums in (dweights, dbiases)
            )
            np.multiply(given[block], scale[..., None], out=to)
            to -= average
            normal *= along
            to -= normal
            to *= inverse[block]

        parallel_for(differentiate, cut)
        return dx.reshape(x.shape), *(sums.reshape(x.shape[:2]).sum(axis=0) for sums in (dweights, dbiases))

    return y.reshape(x.shape), backward
