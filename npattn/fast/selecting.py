"""Scores of large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.adding import MIN_UNCACHED_SIZE
from npattn.fast.blocks import blocks, is_large
from npattn.fast.threads import parallel_for
from npattn.ops.selecting import score
from npattn.typing import Array, Backward


@score.faster(suits=lambda x, *others: is_large(x, *others) and x.size >= MIN_UNCACHED_SIZE)
def score_image_by_image(x: Array, weight: Array, bias: Array) -> tuple[Array, Backward]:
    """Score images, whole, so that equal features tie as by definition; take both gradients of a block together."""
    w = weight.reshape(weight.shape[1])
    s = np.empty_like(x, shape=(x.shape[0], x.shape[2]))

    def add_up(block):
        np.einsum("bcn,c->bn", x[block], w, out=s[block])

    parallel_for(add_up, blocks(x, axis=0))
    s += bias

    def backward(ds):
        dx, sums = np.empty_like(x), np.empty_like(x, shape=x.shape[:2])

        def differentiate(block):
            images, channels = block
            np.einsum("bcn,bn->bc", x[block], ds[images], out=sums[block])
            np.multiply(w[channels, None], ds[images, None], out=dx[block])

        parallel_for(differentiate, blocks(x, axis=1))
        return dx, sums.sum(axis=0).reshape(weight.shape), ds.sum().reshape(1)

    return s, backward
