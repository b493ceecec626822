"""Norms of large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import BLOCK_SIZE, NUM_BLOCKS, blocks, cut_axis, is_large, is_shared_out
from npattn.fast.pooling import MAX_ROW_LENGTH
from npattn.fast.threads import parallel_for
from npattn.ops.normalisation import batch_norm, group_norm
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
    maps, w, b = x.reshape(shape), weight.reshape(shape[1:3]), bias.reshape(shape[1:3])
    mean = np.empty_like(x, shape=(*shape[:2], 1, 1))
    scale, y = np.empty_like(mean), np.empty_like(maps)
    cut, count = blocks(maps, 1), shape[2] * shape[3]

    def compute(block):
        some, to = maps[block], y[block]
        mean[block] = add_up(some).sum(axis=2)[..., None, None] / count
        centred = np.subtract(some, mean[block], out=to)
        variance = add_up(centred, centred).sum(axis=2)[..., None, None] / count
        scale[block] = 1 / np.sqrt(variance + eps)
        to *= scale[block] * w[block[1]][..., None]
        to += b[block[1]][..., None]

    parallel_for(compute, cut)

    def backward(dy):
        if not is_large(dy):
            return group_norm.definition(x, weight, bias, groups, eps=eps)[1](dy)
        given, dx = dy.reshape(shape), np.empty_like(maps)
        dweights, dbiases = np.empty_like(maps, shape=shape[:3]), np.empty_like(maps, shape=shape[:3])

        def differentiate(block):
            own, to, factor = w[block[1]], dx[block], scale[block]
            centred = maps[block] - mean[block]
            dweights[block] = add_up(given[block], centred) * factor[..., 0]
            dbiases[block] = add_up(given[block])
            along, average = (
                ((own * sums[block]).sum(axis=2) / count)[:, :, None, None] for sums in (dweights, dbiases)
            )
            np.multiply(given[block], factor * own[..., None], out=to)
            centred *= factor * factor * along
            centred += factor * average
            to -= centred

        parallel_for(differentiate, cut)
        if not np.isfinite(dbiases).all():  # and so is not all of dy
            return group_norm.definition(x, weight, bias, groups, eps=eps)[1](dy)
        return dx.reshape(x.shape), *(sums.reshape(x.shape[:2]).sum(axis=0) for sums in (dweights, dbiases))

    return y.reshape(x.shape), backward


@batch_norm.faster(
    suits=lambda x, weight, bias, running_mean, running_var, **_: is_large(x, weight, bias, running_mean, running_var)
)
def batch_norm_channel_by_channel(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[tuple[Array, tuple[Array, Array]], Backward]:
    """Do all that some channels need while they are in the cache; no centred map is held for the gradients."""
    shape = *x.shape[:2], x.shape[2] * x.shape[3]
    maps, count = x.reshape(shape), len(x) * shape[2]
    mean, variance = (np.empty_like(old) if training else old for old in (running_mean, running_var))
    scale, y = np.empty_like(weight), np.empty_like(maps, order="C")
    cut = cut_axis(shape[1], max(NUM_BLOCKS, x.size // BLOCK_SIZE) if is_shared_out(x) else 1)

    def compute(some):
        to = y[:, some]
        if training:
            mean[some] = add_up(maps[:, some]).sum(axis=0) / count
        np.subtract(maps[:, some], mean[some, None], out=to)
        if training:
            variance[some] = add_up(to, to).sum(axis=0) / count
        scale[some] = 1 / np.sqrt(variance[some] + eps)
        to *= (weight[some] * scale[some])[:, None]
        to += bias[some, None]

    parallel_for(compute, cut)
    running = running_mean, running_var
    if training:
        new = mean, variance * (count / (count - 1))
        running = tuple((1 - momentum) * old + momentum * found for old, found in zip(running, new, strict=True))

    def backward(dy):
        if not is_large(dy, x):
            options = {"training": training, "momentum": momentum, "eps": eps}
            return batch_norm.definition(x, weight, bias, running_mean, running_var, **options)[1](dy)
        given, dx = dy.reshape(shape), np.empty_like(maps, order="C")
        dweight, dbias = np.empty_like(weight), np.empty_like(weight)

        def differentiate(some):
            centred, to, steep = maps[:, some] - mean[some, None], dx[:, some], weight[some] * scale[some]
            dweight[some] = scale[some] * add_up(given[:, some], centred).sum(axis=0)
            dbias[some] = add_up(given[:, some]).sum(axis=0)
            np.multiply(given[:, some], steep[:, None], out=to)
            if training:
                centred *= (steep * scale[some] * dweight[some] / count)[:, None]
                to -= centred
                to -= (steep * dbias[some] / count)[:, None]

        parallel_for(differentiate, cut)
        return dx.reshape(x.shape), dweight, dbias

    return (y.reshape(x.shape), running), backward


def add_up(a: Array, b: Array | None = None) -> Array:
    """Add up rows, or the products of two maps' rows; long ones in pairs, which loses fewer digits.

    `np.vecdot` takes half the time, but keeps the interpreter meanwhile, and so all other threads from their next step.
    """
    if a.shape[-1] > MAX_ROW_LENGTH:
        return (a if b is None else a * b).sum(axis=-1)
    return np.einsum("...n->...", a) if b is None else np.einsum("...n,...n->...", a, b)
