"""Averages of overlapping neighbourhoods."""

from __future__ import annotations

import numpy as np

from npattn.ops.convolution import im2col
from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["gather_average"]


@primitive
def gather_average(x: Array, extent: int) -> tuple[Array, Backward]:
    """Average each channel over neighbourhoods that are nearly twice as wide as they are apart.

    p_kl = (1/n) Σ_ij x_ij over the n positions of the map with |i - e k| < e and |j - e l| < e: squares of 2e - 1 rows
    and columns round every e-th position. Beyond the edges nothing is counted: there an average is that of fewer
    numbers.

    Parameters
    ----------
    x : array, (B, C, H, W)
    extent : int
        e, at least 1.

    Returns
    -------
    p : array, (B, C, H', W'), with H' = ⌈H / e⌉
    backward : callable
        ``backward(dp)`` returns ``dx``: a number gets its share of every average that counts it.

    Notes
    -----
    Hu et al.: Gather-Excite, NeurIPS 2018, section 3. ``derivations/gather_excite.md`` derives the gradient.

    Examples
    --------
    >>> p, backward = gather_average(np.array([[[[1.0, 3.0, 5.0, 7.0]]]]), extent=2)
    >>> p
    array([[[[2., 5.]]]])
    >>> backward(np.array([[[[2.0, 3.0]]]]))
    array([[[[1., 2., 1., 1.]]]])
    """
    side, margin = 2 * extent - 1, extent - 1
    # A square of ones is a column times a row: sums along one axis, then along the other.
    down, back_down = im2col(x, (side, 1), (extent, 1), (margin, 0), (1, 1))
    sums = down.sum(axis=2)
    across, back_across = im2col(sums, (1, side), (1, extent), (0, margin), (1, 1))
    ones, _ = im2col(np.ones_like(x.real[:1, :1]), (side, side), (extent, extent), (margin, margin), (1, 1))
    count = ones.sum(axis=2)

    def backward(dp):
        dsums = back_across(np.broadcast_to((dp / count)[:, :, None], across.shape))
        return back_down(np.broadcast_to(dsums[:, :, None], down.shape))

    return across.sum(axis=2) / count, backward
