"""Linear maps that positions are handed, of many positions."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import MIN_PARALLEL_SIZE, NUM_BLOCKS, are_machine_floats, cut_axis
from npattn.fast.threads import parallel_for
from npattn.ops.lambdas import apply_lambdas
from npattn.typing import Array, Backward


def are_many(q: Array, lambdas: Array) -> bool:
    """Tell whether there are many numbers, of the machine's floats, for the same positions."""
    fitting = len(q) == len(lambdas) and q.shape[2:] == lambdas.shape[2:]
    return fitting and lambdas.size >= MIN_PARALLEL_SIZE and are_machine_floats(q, lambdas)


@apply_lambdas.faster(suits=are_many)
def apply_lambdas_in_blocks(q: Array, lambdas: Array) -> tuple[Array, Backward]:
    """Take some positions of an image at a time, on all cores."""
    batch, heads, _, positions = q.shape
    values = lambdas.shape[1]
    parts = cut_axis(positions, -(-NUM_BLOCKS // max(1, batch)))
    cut = [(image, slice(None), slice(None), part) for image in range(batch) for part in parts]
    y = np.empty_like(q, shape=(batch, heads, values, positions), order="C")
    parallel_for(lambda at: np.einsum("ekn,vkn->evn", q[at], lambdas[at], out=y[at]), cut)

    def backward(dy):
        dq, dlambdas = np.empty_like(q), np.empty_like(lambdas)

        def differentiate(at):
            np.einsum("evn,vkn->ekn", dy[at], lambdas[at], out=dq[at])
            np.einsum("evn,ekn->vkn", dy[at], q[at], out=dlambdas[at])

        parallel_for(differentiate, cut)
        return dq, dlambdas

    return y, backward
