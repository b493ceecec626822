"""Inverse energies of large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import BLOCK_SIZE, blocks, is_large
from npattn.fast.normalisation import add_up
from npattn.fast.threads import parallel_for
from npattn.ops.energy import inverse_energy
from npattn.typing import Array, Backward


@inverse_energy.faster(suits=lambda x, *_, **__: is_large(x))
def inverse_energy_channel_by_channel(
    x: Array, e_lambda: float = 1e-4, *, correction: int = 1
) -> tuple[Array, Backward]:
    """Do all that a channel needs while it is in the cache: so x comes from memory once."""
    rows = x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])
    count = rows.shape[2]
    degrees = max(count - correction, 1)
    mean = np.empty_like(rows, shape=(*rows.shape[:2], 1))
    scale, z = np.empty_like(mean), np.empty_like(rows)
    cut = blocks(rows, 1, BLOCK_SIZE)

    def compute(block):
        mean[block] = add_up(rows[block])[:, :, None] / count
        squares = rows[block] - mean[block]
        squares *= squares
        variance = add_up(squares)[:, :, None] / degrees
        np.divide(0.25, variance + e_lambda, out=scale[block])
        squares *= scale[block]
        np.add(squares, 0.5, out=z[block])

    parallel_for(compute, cut)

    def backward(dz, accumulate_into=None):
        others = () if accumulate_into is None else (accumulate_into,)
        if not is_large(dz, *others):
            return inverse_energy.definition(x, e_lambda, correction=correction)[1](dz, accumulate_into)
        given = dz.reshape(rows.shape)
        added = None if accumulate_into is None else accumulate_into.reshape(rows.shape)
        dx = np.empty_like(rows)

        def differentiate(block):
            centred, some = rows[block] - mean[block], dx[block]
            np.multiply(centred, given[block], out=some)
            along = add_up(some, centred)[:, :, None]
            some *= 2 * scale[block]
            centred *= 8 / degrees * scale[block] ** 2 * along
            some -= centred
            some -= add_up(some)[:, :, None] / count
            if added is not None:
                some += added[block]

        parallel_for(differentiate, cut)
        return dx.reshape(x.shape)

    return z.reshape(x.shape), backward
