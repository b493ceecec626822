"""Normalisation by statistics of the batch."""

from __future__ import annotations

import numpy as np

__all__ = ["batch_norm"]


def batch_norm(x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    """Give every channel mean 0 and variance 1, then a learnt scale and shift: y = w (x - μ) / √(v + ε) + b.

    In training μ and v are the batch's own mean and (biased) variance, and gradients flow through them. In inference
    they are the running statistics, which are constants.

    Parameters
    ----------
    x : array, (B, C, H, W)
    weight, bias : array, (C,)
        w and b.
    running_mean, running_var : array, (C,)
    training : bool
    momentum : float, default 0.1
        Weight of the batch in the new running statistics.
    eps : float, default 1e-5
        ε, added to the variance.

    Returns
    -------
    (y, running) : array, shape of `x`, and tuple of two arrays, (C,)
        `running` holds the new running mean and variance; in inference, the old ones. What is remembered is the
        unbiased variance, v B H W / (B H W - 1).
    backward : callable
        ``backward(dy)`` returns ``(dx, dweight, dbias)``.

    Notes
    -----
    Ioffe, Szegedy: Batch Normalization, ICML 2015, algorithms 1 and 2. ``derivations/batch_norm.md`` derives the
    gradient through mean and variance.

    Examples
    --------
    >>> x = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> one, zero = np.ones(1), np.zeros(1)
    >>> (y, running), backward = batch_norm(x, one, zero, zero, one, training=True, eps=0.0)
    >>> y.ravel(), running
    (array([-1.,  1.]), (array([0.2]), array([1.1])))
    """
    axes = (0, 2, 3)
    count = x.shape[0] * x.shape[2] * x.shape[3]
    running = running_mean, running_var
    if training:
        mean = x.mean(axis=axes)
        centred = x - mean[:, None, None]
        variance = (centred * centred).mean(axis=axes)
        unbiased = variance * (count / (count - 1))
        running = tuple(
            (1 - momentum) * old + momentum * new for old, new in zip(running, (mean, unbiased), strict=True)
        )
    else:
        centred = x - running_mean[:, None, None]
        variance = running_var
    scale = 1 / np.sqrt(variance + eps)
    normal = centred
    normal *= scale[:, None, None]
    y = normal * weight[:, None, None]
    y += bias[:, None, None]

    def backward(dy):
        dweight, dbias = (dy * normal).sum(axis=axes), dy.sum(axis=axes)
        dx = dy * (weight * scale)[:, None, None]
        if training:
            # What every x of a channel does to its mean and to its variance.
            dx -= (weight * scale * dbias / count)[:, None, None]
            dx -= normal * (weight * scale * dweight / count)[:, None, None]
        return dx, dweight, dbias

    return (y, running), backward
