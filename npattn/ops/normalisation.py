"""Normalisation: by statistics of the batch, of a position, of groups of channels or of a row, and to unit length."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["batch_norm", "group_norm", "l2_normalize", "layer_norm", "sum_normalize", "z_score"]


@primitive
def batch_norm(
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
    """Give every channel mean 0 and variance 1, then a learnt scale and shift: y = w (x - μ) / √(v + ε) + b.

    In training μ and v are the batch's own mean and (biased) variance, and gradients flow through them. In inference
    they are the running statistics, which are constants.

    Parameters
    ----------
    x : array, (B, C, H, W)
        In training with at least two numbers in a channel, B H W ≥ 2.
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
    axes, count = (0, 2, 3), x.shape[0] * x.shape[2] * x.shape[3]
    mean = x.mean(axis=axes) if training else running_mean
    centred = x - mean[:, None, None]
    variance = channel_products(centred, centred) / count if training else running_var
    scale = 1 / np.sqrt(variance + eps)
    y = centred * (weight * scale)[:, None, None] + bias[:, None, None]
    running = running_mean, running_var
    if training:
        new = mean, variance * (count / (count - 1))
        running = tuple((1 - momentum) * old + momentum * found for old, found in zip(running, new, strict=True))

    def backward(dy):
        dweight, dbias = scale * channel_products(dy, centred), dy.sum(axis=axes)
        dx = dy * (weight * scale)[:, None, None]
        if training:  # what every x of a channel does to its variance and to its mean
            dx = dx - centred * (weight * scale * scale * dweight / count)[:, None, None]
            dx = dx - (weight * scale * dbias / count)[:, None, None]
        return dx, dweight, dbias

    return (y, running), backward


def channel_products(a: Array, b: Array) -> Array:
    """Add up products by channel: (B, C, H, W) twice to (C,)."""
    return np.einsum("bchw,bchw->c", a, b)


@primitive
def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-5) -> tuple[Array, Backward]:
    """Give the channels of every position mean 0 and variance 1, then a learnt scale and shift: y = w x̂ + b.

    Parameters
    ----------
    x : array, (..., C)
        Channels last, as tokens have them.
    weight, bias : array, (C,)
        w and b.
    eps : float, default 1e-5
        ε, added to the (biased) variance: x̂ = (x - μ) / √(v + ε).

    Returns
    -------
    y : array, shape of `x`
    backward : callable
        ``backward(dy)`` returns ``(dx, dweight, dbias)``.

    Notes
    -----
    Ba, Kiros, Hinton: Layer Normalization, 2016, eq. 3 and 4. ``derivations/layer_norm.md`` derives the gradient.

    Examples
    --------
    >>> y, backward = layer_norm(np.array([[1.0, 2.0, 3.0]]), np.ones(3), np.zeros(3), eps=0.0)
    >>> y.round(3)
    array([[-1.225,  0.   ,  1.225]])
    >>> dx, dweight, dbias = backward(np.array([[1.0, 0.0, 0.0]]))
    >>> dx.round(3), dweight.round(3)
    (array([[ 0.204, -0.408,  0.204]]), array([-1.225,  0.   ,  0.   ]))
    """
    normal, back_standardize = standardize(x, (-1,), eps)
    others = tuple(range(x.ndim - 1))

    def backward(dy):
        return back_standardize(dy * weight), (dy * normal).sum(axis=others), dy.sum(axis=others)

    return normal * weight + bias, backward


@primitive
def group_norm(x: Array, weight: Array, bias: Array, groups: int, *, eps: float = 1e-5) -> tuple[Array, Backward]:
    """Give every group of channels of every image mean 0 and variance 1, then each channel a learnt scale and shift.

    y_bcn = w_c (x_bcn - μ_bg) / √(v_bg + ε) + b_c, with μ and v the mean and variance of the group g that c is of.

    Parameters
    ----------
    x : array, (B, C, H, W)
    weight, bias : array, (C,)
    groups : int
        How many groups there are, of C / groups channels that follow each other. With one it is layer norm over the
        whole map; with C it is instance norm.
    eps : float, default 1e-5
        ε, added to the (biased) variance.

    Returns
    -------
    y : array, shape of `x`
    backward : callable
        ``backward(dy)`` returns ``(dx, dweight, dbias)``.

    Notes
    -----
    Wu, He: Group Normalization, ECCV 2018, eq. 1, 2 and 7. ``derivations/layer_norm.md`` derives the gradient.

    Examples
    --------
    >>> x = np.array([1.0, 3.0, 10.0, 10.0]).reshape(1, 4, 1, 1)
    >>> y, backward = group_norm(x, np.ones(4), np.zeros(4), groups=2)
    >>> y.ravel().round(3)
    array([-1.,  1.,  0.,  0.])
    """
    grouped = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    normal, back_standardize = standardize(grouped, (2, 3, 4), eps)
    normal, w = normal.reshape(x.shape), weight[:, None, None]

    def backward(dy):
        dx = back_standardize((dy * w).reshape(grouped.shape)).reshape(x.shape)
        return dx, channel_products(dy, normal), dy.sum(axis=(0, 2, 3))

    return normal * w + bias[:, None, None], backward


def standardize(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Backward]:
    """Bring what stands along some axes to mean 0 and variance 1: x̂ = (x - μ) / √(v + ε)."""
    centred = x - x.mean(axis=axes, keepdims=True)
    scale = 1 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
    normal = centred * scale

    def backward(dnormal):  # less its mean and its part along x̂: x̂ changes by no shift and, but for ε, no stretch of x
        along = (dnormal * normal).mean(axis=axes, keepdims=True)
        return scale * (dnormal - dnormal.mean(axis=axes, keepdims=True) - normal * along)

    return normal, backward


@primitive
def l2_normalize(x: Array, eps: float = 1e-5) -> tuple[Array, Backward]:
    """Bring the channels of every position to unit length, nearly: u = x / (‖x‖ + ε), ‖x‖ = (Σ_c x_c²)^½.

    Parameters
    ----------
    x : array, (B, C, H, W)
    eps : float, default 1e-5
        ε, which keeps the quotient finite where all channels are 0.

    Returns
    -------
    u : array, shape of `x`
        Of length ‖x‖ / (‖x‖ + ε): below 1, and 0 where x is.
    backward : callable
        ``backward(du)`` returns ``dx``. The norm has slope 0 where all channels are 0, as in PyTorch.

    Notes
    -----
    Large channels are brought to at most 1 before they are squared, so that no square overflows; a square that
    underflows belongs to a length of no account beside ε. ``derivations/pixel_correlation.md`` derives the gradient.

    Examples
    --------
    >>> u, backward = l2_normalize(np.array([3e200, -4e200]).reshape(1, 2, 1, 1))
    >>> u.ravel()
    array([ 0.6, -0.8])
    >>> u, backward = l2_normalize(np.array([3.0, 4.0]).reshape(1, 2, 1, 1), eps=0.0)
    >>> backward(np.array([1.0, 0.0]).reshape(1, 2, 1, 1)).ravel().round(3)
    array([ 0.128, -0.096])
    """
    largest = np.maximum(x.real.max(axis=1, keepdims=True), -x.real.min(axis=1, keepdims=True))
    scale = 1 / np.maximum(largest, 1)
    scaled = x * scale
    norm = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    length = norm + eps * scale

    def backward(du):
        unit = np.where(norm == 0, 0, scaled / np.where(norm == 0, 1, norm))
        along = (unit * du).sum(axis=1, keepdims=True)
        # Across x by the quotient; along x, where all but a trace of that cancels, by the slope of ‖x‖ / (‖x‖ + ε).
        across = (du - along * unit) / length
        return (across + (eps * scale / length**2 * along) * unit) * scale

    return scaled / length, backward


@primitive
def sum_normalize(x: Array, axis: int = -1, eps: float = 1e-9) -> tuple[Array, Backward]:
    """Divide by the sum along an axis, nearly: y_i = x_i / (Σ_k x_k + ε).

    Parameters
    ----------
    x : array, any shape
        Weights, which are not negative: those of a softmax over another axis, say.
    axis : int, default -1
    eps : float, default 1e-9
        ε, which keeps the quotient finite where all are 0.

    Returns
    -------
    y : array, shape of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``: (dy - Σ_k y_k dy_k) / (Σ_k x_k + ε).

    Notes
    -----
    Guo et al.: Beyond Self-attention: External Attention, 2021, normalise this way. ``derivations/external.md`` derives
    the gradient.

    Examples
    --------
    >>> y, backward = sum_normalize(np.array([0.0, 1.0, 3.0]))
    >>> y.round(8)
    array([0.  , 0.25, 0.75])
    >>> backward(np.array([0.0, 0.0, 1.0])).round(4)
    array([-0.1875, -0.1875,  0.0625])
    """
    total = x.sum(axis=axis, keepdims=True) + eps
    y = x / total

    def backward(dy):
        return (dy - (y * dy).sum(axis=axis, keepdims=True)) / total

    return y, backward


@primitive
def z_score(x: Array, eps: float = 1e-5, *, correction: int = 1) -> tuple[Array, Backward]:
    """Measure every number of a row by its distance from the mean, in standard deviations: z = (x - μ) / (s + ε).

    Parameters
    ----------
    x : array, (..., N)
    eps : float, default 1e-5
        ε, added to the standard deviation, where norms add theirs to the variance.
    correction : int, default 1
        s² = Σ_n (x_n - μ)² / (N - correction): 1 for a sample's variance, 0 for the mean of the squares.

    Returns
    -------
    z : array, shape of `x`
        0 in a row of one number, and where all numbers are the same.
    backward : callable
        ``backward(dz)`` returns ``dx``. The deviation has slope 0 where it is 0, as in PyTorch.

    Notes
    -----
    Li, Hu, Yang: Spatial Group-wise Enhance, 2019, normalise this way. ``derivations/spatial_group.md`` derives the
    gradient.

    Examples
    --------
    >>> z, backward = z_score(np.array([1.0, 2.0, 3.0]), eps=0.0)
    >>> z
    array([-1.,  0.,  1.])
    >>> backward(np.array([0.0, 3.0, 0.0]))
    array([-1.,  2., -1.])
    """
    degrees = max(x.shape[-1] - correction, 1)
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).sum(axis=-1, keepdims=True) / degrees)
    unit = deviation + eps  # divided by, not multiplied by its inverse: float16 has no 1 / 1e-5
    z = centred / unit

    def backward(dz):
        # What a number does to the deviation, and the deviation to all.
        slope = centred / (degrees * np.where(deviation == 0, 1, deviation))
        ddeviation = -(dz * z).sum(axis=-1, keepdims=True) / unit
        dcentred = dz / unit + slope * ddeviation
        return dcentred - dcentred.mean(axis=-1, keepdims=True)

    return z, backward
