"""Norms of large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import BLOCK_SIZE, blocks, is_large
from npattn.fast.pooling import MAX_ROW
from npattn.fast.threads import parallel_for
from npattn.ops.normalisation import group_norm
from npattn.typing import Array, Backward


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

    count = shape[2] * shape[3]

    def compute(block):
        some, to = maps[block], y[block]
        mean[block] = add_up(some).sum(axis=2)[..., None, None] / count
        centred = np.subtract(some, mean[block], out=to)
        variance = add_up(centred, centred).sum(axis=2)[..., None, None] / count
        inverse[block] = 1 / np.sqrt(variance + eps)
        to *= inverse[block] * scales[block[1]][..., None]
        to += shifts[block[1]][..., None]

    parallel_for(compute, cut)

    def backward(dy):
        if not is_large(dy) or not np.isfinite(dy.sum()):
            return group_norm.definition(x, weight, bias, groups, eps=eps)[1](dy)
        given, dx = dy.reshape(shape), np.empty_like(maps)
        dweights, dbiases = np.empty_like(maps, shape=shape[:3]), np.empty_like(maps, shape=shape[:3])

        def differentiate(block):
            scale, to, steep = scales[block[1]], dx[block], inverse[block]
            centred = maps[block] - mean[block]
            dweights[block] = add_up(given[block], centred) * steep[..., 0]
            dbiases[block] = add_up(given[block])
            along, average = (
                ((scale * sums[block]).sum(axis=2) / count)[:, :, None, None] for sums in (dweights, dbiases)
            )
            np.multiply(given[block], scale[..., None], out=to)
            to -= average
            centred *= steep * along
            to -= centred
            to *= steep

        parallel_for(differentiate, cut)
        return dx.reshape(x.shape), *(sums.reshape(x.shape[:2]).sum(axis=0) for sums in (dweights, dbiases))

    return y.reshape(x.shape), backward


def add_up(a: Array, b: Array | None = None) -> Array:
    """Add up a map's channels, or their products with another's; long ones in pairs, which loses fewer digits."""
    if a.shape[-1] > MAX_ROW:
        return (a if b is None else a * b).sum(axis=-1)
    return np.einsum("bgcn->bgc", a) if b is None else np.vecdot(a, b)
