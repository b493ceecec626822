"""Functions of one number, on large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import is_large
from npattn.ops.elementwise import relu
from npattn.typing import Array, Backward


@relu.faster(suits=is_large)
def relu_without_selection(x: Array) -> tuple[Array, Backward]:
    """Rectify without a selection, whose outcome no processor can foresee: it takes ten times as long.

    The maximum passes NaN on.
    """
    on = ~(x <= 0)

    def backward(dy):
        return keep_where(on, dy)

    return np.maximum(x, 0), backward


def keep_where(on: Array, a: Array) -> Array:
    """Keep or drop each number of contiguous ones by its bits: a product with 0 would make NaN of infinity."""
    bits = f"i{a.itemsize}"
    kept = -on.view(np.int8).astype(bits)  # all bits set, or none
    kept &= a.view(bits)
    return kept.view(a.dtype)
