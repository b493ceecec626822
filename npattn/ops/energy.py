"""How far each position stands out from its channel, by the energy that would tell it from all others."""

from __future__ import annotations

import numpy as np

from npattn.ops.adding import accumulate
from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["inverse_energy"]


@primitive
def inverse_energy(x: Array, e_lambda: float = 1e-4, *, correction: int = 1) -> tuple[Array, Backward]:
    """Measure how far each position stands out from its channel: z = (x - μ)² / (4 (v + λ)) + ½.

    Parameters
    ----------
    x : array, (B, C, H, W)
    e_lambda : float, default 1e-4
        λ, added to the variance.
    correction : int, default 1
        The variance is v = Σ_n (x_n - μ)² / (N - correction): 1 for a sample's variance, 0 for the mean of the squares.

    Returns
    -------
    z : array, shape of `x`
        ½ where x is its channel's mean μ, and more the farther it is. A map of one position has no deviations: ½.
    backward : callable
        ``backward(dz, accumulate_into=None)`` returns ``dx``, added to a gradient that is given as `accumulate_into`,
        and maybe written there.

    Notes
    -----
    Yang et al.: SimAM, ICML 2021, eq. 5. ``derivations/simam.md`` derives the gradient.

    Examples
    --------
    >>> z, backward = inverse_energy(np.array([[[[1.0, 1.0, 1.0, 5.0]]]]), e_lambda=1.0)
    >>> z
    array([[[[0.55, 0.55, 0.55, 0.95]]]])
    >>> backward(np.array([[[[0.0, 0.0, 0.0, 1.0]]]]))
    array([[[[-0.015, -0.015, -0.015,  0.045]]]])
    """
    degrees = max(x.shape[2] * x.shape[3] - correction, 1)
    centred = x - x.mean(axis=(2, 3), keepdims=True)
    variance = np.einsum("bchw,bchw->bc", centred, centred)[:, :, None, None] / degrees
    scale = 0.25 / (variance + e_lambda)

    def backward(dz, accumulate_into=None):
        # A deviation counts by its own square, and by its part in the variance, which all positions share; of
        # scale = 1 / (4 (v + λ)) the slope in v is -4 scale².
        dscale = np.einsum("bchw,bchw->bc", dz * centred, centred)[:, :, None, None]
        dvariance = -4 * scale * scale * dscale
        dcentred = 2 * centred * (dz * scale + dvariance / degrees)
        return accumulate(accumulate_into, dcentred - dcentred.mean(axis=(2, 3), keepdims=True))

    return centred * centred * scale + 0.5, backward
