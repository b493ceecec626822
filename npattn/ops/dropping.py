"""Dropout with the mask given from outside: nothing here draws random numbers."""

from __future__ import annotations

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["dropout"]


@primitive
def dropout(x: Array, mask: Array, rate: float) -> tuple[Array, Backward]:
    """Set to 0 what a mask drops and scale up the rest, so that the mean over masks is x: y = x ⊙ mask / (1 - rate).

    Parameters
    ----------
    x : array
        Such as (B, C, H, W).
    mask : array
        Of 1, which keeps, and 0, which drops, of any dtype. The leading axes of `x`; an axis that is missing at the
        end, or of length 1, is broadcast to that of `x`: (B, C) drops whole channels.
    rate : float
        Probability of a 0, at least 0 and below 1.

    Returns
    -------
    y : array, shape and dtype of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``; the mask is a constant.

    Notes
    -----
    Srivastava et al.: Dropout: A Simple Way to Prevent Neural Networks from Overfitting, JMLR 2014. Scaling while
    training, as in section 10 there, leaves nothing to do in inference.

    Examples
    --------
    >>> import numpy as np
    >>> y, backward = dropout(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 0.0]), rate=0.5)
    >>> y
    array([[2., 4.],
           [0., 0.]])
    >>> backward(np.ones((2, 2)))
    array([[2., 2.],
           [0., 0.]])
    """
    # A mask of integers or Booleans would otherwise make float64 of float32.
    kept = mask.astype(x.real.dtype).reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    factor = kept / (1 - rate)

    def backward(dy):
        return dy * factor

    return x * factor, backward
