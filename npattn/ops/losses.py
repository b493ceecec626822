"""Losses: what a map of scores is trained by."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["cross_entropy"]


@primitive
def cross_entropy(logits: Array, labels: Array, *, ignore_index: int = -100) -> tuple[Array, Backward]:
    """Take the mean over the labelled pixels of minus the logarithm of the probability of each pixel's own class.

    L = -(1/M) Σ_n log p_n over the M of them, where p is the softmax over the classes.

    Parameters
    ----------
    logits : array, (B, K, H, W)
    labels : array of integers, (B, H, W)
        A class from 0 to K - 1, or `ignore_index`. Nothing is raised for another label, as its value would have to be
        awaited from a GPU: it makes the loss and the gradient of its pixel NaN.
    ignore_index : int, default -100
        The label of pixels that are not counted, whatever their logits; segmentation data often have 255.

    Returns
    -------
    value : scalar of the dtype of `logits`
        0 if no pixel is counted, where PyTorch has NaN: there is nothing to learn, and the gradient is 0 in both.
    backward : callable
        ``backward(dy)``, with a scalar `dy`, returns ``dlogits``: dy (softmax - one-hot) / count, 0 at ignored pixels.

    Examples
    --------
    >>> logits = np.log([[[[1.0, 1.0]], [[3.0, 3.0]]]])
    >>> value, backward = cross_entropy(logits, np.array([[[1, 255]]]), ignore_index=255)
    >>> print(f"{value:.6f}", f"{-np.log(3 / 4):.6f}")
    0.287682 0.287682
    >>> backward(1.0)
    array([[[[ 0.25,  0.  ]],
    <BLANKLINE>
            [[-0.25,  0.  ]]]])
    """
    classes = np.arange(logits.shape[1], like=labels).reshape(-1, 1, 1)
    own = labels[:, None] == classes
    counted = labels != ignore_index
    count = np.maximum(counted.sum(), 1).astype(logits.real.dtype)
    # The largest exponential is 1 and left out of the sum: a loss far below the unit roundoff keeps its digits.
    first = logits.real.argmax(axis=1)[:, None]
    z = logits - np.take_along_axis(logits, first, 1)
    e = np.exp(z)
    rest = np.where(classes == first, 0, e).sum(axis=1)
    losses = np.log1p(rest) - np.where(own, z, 0).sum(axis=1)
    losses = np.where(own.any(axis=1), losses, np.nan)
    value = np.where(counted, losses, 0).sum() / count

    def backward(dy):
        dy = np.full_like(value, dy)  # whatever kind of number it is
        # At the own class, 1 less than its weight is what the others have together: the difference would lose digits.
        others = np.where(own, 0, e).sum(axis=1, keepdims=True)
        dlogits = np.where(own, -others, e) * (dy / count / (1 + rest[:, None]))
        dlogits = np.where(own.any(axis=1, keepdims=True), dlogits, np.nan)
        return np.where(counted[:, None], dlogits, 0)

    return value, backward
