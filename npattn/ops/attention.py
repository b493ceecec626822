"""Softmax attention, exact, in tiles."""

from __future__ import annotations

import functools
import math

import numpy as np

from npattn.ops.primitive import primitive
from npattn.ops.sweeping import ENOUGH, PIECES, for_pieces, plain

__all__ = ["dot_product_attention"]

LOGITS, QUERIES = 2**21, 256
"""Logits in a tile, few enough to stay in the cache from one sweep over them to the next, and queries at least."""
CORE_LOGITS, CORE_QUERIES, CORE_BLOCK = 2**19, 64, (512, 768)
"""The same where every core has a tile of its own, and queries and keys in a tile of the backward pass at most."""
NARROW = 128
"""Channels up to which products have too few rows to be quick, and sweeps over the weights count beside them."""


@primitive
def dot_product_attention(q, k, v, scale=1.0):
    """Let every query average the values, weighted by the softmax of its products with the keys.

    o_m = Σ_n s_mn v_n with s_mn = exp(scale q_m · k_n) / Σ_i exp(scale q_m · k_i). The M × N weights are never held:
    forward and backward make them anew, a tile at a time, so memory grows as M + N.

    Parameters
    ----------
    q : array, (..., d, M)
        M queries. Positions stand last, as in a map.
    k : array, (..., d, N)
        N ≥ 1 keys, with the leading axes of `q`: images, heads.
    v : array, (..., e, N)
        N values.
    scale : float, default 1
        Factor of the products, such as 1/√d.

    Returns
    -------
    o : array, (..., e, M)
    backward : callable
        ``backward(do)`` returns ``(dq, dk, dv)``.

    Notes
    -----
    Of the forward pass one number is kept for each query, the log-sum-exp l_m of its logits; a weight is
    exp(z_mn - l_m). This is the scheme of Dao et al., FlashAttention, NeurIPS 2022, with whole rows in the forward
    pass. ``derivations/dot_product_attention.md`` derives it.

    Examples
    --------
    >>> q, k, v = np.array([[1.0]]), np.log([[1.0, 3.0]]), np.array([[0.0, 4.0]])
    >>> o, backward = dot_product_attention(q, k, v)
    >>> o
    array([[3.]])
    >>> dq, dk, dv = backward(np.array([[1.0]]))
    >>> dk, dv
    (array([[-0.75,  0.75]]), array([[0.25, 0.75]]))
    """
    shapes = q.shape, k.shape, v.shape
    lead, queries, keys = q.shape[:-2] or (1,), q.shape[-1], k.shape[-1]
    q, k, v = (a.reshape(*lead, *a.shape[-2:]) for a in (q, k, v))
    parted = math.prod(lead) * queries * keys >= ENOUGH and plain(q, k, v)
    tiles, blocks = cut(lead, queries, keys, parted)
    scaled = scale * q
    o = np.empty_like(q, shape=(*lead, v.shape[-2], queries))
    log_sum_exp = np.empty_like(q, shape=(*lead, queries))

    def attend(tile):
        at, some = tile
        s = transpose(scaled[at][..., some]) @ k[at]
        highest = s.real.max(axis=-1, keepdims=True)
        s -= highest
        np.exp(s, out=s)
        total = s.sum(axis=-1)
        average = add_up(v[at], s)
        average /= total[..., None, :]  # here for e numbers a query, and not for the N weights
        o[at][..., some] = average
        log_sum_exp[at][..., some] = highest[..., 0] + np.log(total)

    for_pieces(attend, tiles, parted, products=True)

    def backward(do):
        do = do.reshape(o.shape)
        dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
        delta = (do * o).sum(axis=-2)  # Σ_n s_mn ds_mn, without the weights
        shifted_logits = product_less(scaled, k, log_sum_exp, parted)
        shifted_ds = product_less(do, v, delta, parted)

        def differentiate(tile):
            at, some, to, part = tile
            s = shifted_logits(at, some, to)
            np.exp(s, out=s)
            dv[at][..., to] += do[at][..., some] @ s
            dz = shifted_ds(at, some, to)
            dz *= s
            part[at] = add_up(k[at][..., to], dz)
            dk[at][..., to] += scaled[at][..., some] @ dz

        for some, stretches in blocks:
            parts = [np.empty_like(q[..., some]) for _ in stretches]  # of dq, to which all keys add
            each = [(at, some, to, part) for (to, ats), part in zip(stretches, parts, strict=True) for at in ats]
            for_pieces(differentiate, each, parted, products=True)
            dq[..., some] = scale * functools.reduce(np.add, parts)
        return tuple(a.reshape(shape) for a, shape in zip((dq, dk, dv), shapes, strict=True))

    return o.reshape(*shapes[0][:-2], *o.shape[-2:]), backward


def cut(lead, queries, keys, parted):
    """Cut the work into tiles: those of the forward pass, and those of the backward pass in blocks.

    A tile of the forward pass is what to take of the leading axes, and some queries, which attend to all keys; where
    that is little, those of several images or heads. The backward pass takes a block of queries after the other. Its
    tiles add to dk and dv of different keys, so that they can be made at the same time, in any order.
    """
    if parted:
        size = min(CORE_LOGITS, math.prod(lead) * queries * keys // PIECES)
        rows = stretches(queries, max(CORE_QUERIES, size // keys))
        blocks, columns = stretches(queries, CORE_BLOCK[0]), stretches(keys, CORE_BLOCK[1])
    else:
        size, columns = LOGITS, stretches(keys, keys)
        rows = blocks = stretches(queries, max(QUERIES, size // keys))

    def several(some, to):
        step = max(1, size // ((some.stop - some.start) * (to.stop - to.start)))
        return [(*outer, slice(i, i + step)) for outer in np.ndindex(lead[:-1]) for i in range(0, lead[-1], step)]

    tiles = [(at, some) for some in rows for at in several(some, slice(0, keys))]
    return tiles, [(some, [(to, several(some, to)) for to in columns]) for some in blocks]


def stretches(length, most):
    """Cut an axis into stretches of the same length, nearly; if into several, into an even number, as cores come."""
    count = -(-length // most)
    count += count > 1 and count % 2
    step = max(1, -(-length // max(1, count)))
    return [slice(i, min(i + step, length)) for i in range(0, length, step)]


def product_less(a, b, c, parted):
    """Return how to make a tile of Σ_i a_im b_in - c_m: ``compute(at, some, to)``.

    Where that is quicker, an extra channel, -c in a and 1 in b, takes c off within the product.
    """
    if parted and a.shape[-2] <= NARROW:
        a = np.concatenate([a, -c[..., None, :]], axis=-2)
        b = np.concatenate([b, np.ones_like(b[..., :1, :])], axis=-2)
        return lambda at, some, to: transpose(a[at][..., some]) @ b[at][..., to]

    def compute(at, some, to):
        tile = transpose(a[at][..., some]) @ b[at][..., to]
        tile -= c[at][..., some][..., None]
        return tile

    return compute


def add_up(a, weights):
    """Add up columns by weights: Σ_n a_n w_mn, (..., e, N) and (..., M, N) to (..., e, M).

    BLAS is quicker, up to twice, at many rows and few columns than at few rows and many columns.
    """
    if a.shape[-2] > NARROW:
        return a @ transpose(weights)
    return transpose(weights @ transpose(a))


def transpose(a):
    """Swap the last two axes."""
    return a.swapaxes(-1, -2)
