"""Softmax attention of every position to those in its row and its column."""

from __future__ import annotations

import numpy as np

from npattn.ops.attention import transpose
from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.ops.weighting import softmax
from npattn.typing import Array, Backward

__all__ = ["criss_cross_attention"]


@primitive
def criss_cross_attention(q: Array, k: Array, v: Array) -> tuple[Array, Backward]:
    """Let every position average the values in its row and its column, itself once.

    o_p = Σ_n s_pn v_n with s_pn = exp(q_p · k_n) / Σ_i exp(q_p · k_i), where n and i run over the W + H - 1 positions
    that p shares its row or its column with. Weights take N (W + H) numbers, not N².

    Parameters
    ----------
    q : array, (..., d, H, W)
        A query for every position of a map.
    k : array, (..., d, H, W)
        Keys.
    v : array, (..., e, H, W)
        Values.

    Returns
    -------
    o : array, (..., e, H, W)
    backward : callable
        ``backward(do)`` returns ``(dq, dk, dv)``.

    Notes
    -----
    Huang et al.: CCNet, ICCV 2019. ``derivations/criss_cross.md`` derives the gradient.

    Examples
    --------
    Of four positions the first sees itself, the one beside it and the one below it:

    >>> q = np.array([[[1.0, 0.0], [0.0, 0.0]]])
    >>> k = np.log([[[1.0, 2.0], [5.0, 7.0]]])
    >>> o, backward = criss_cross_attention(q, k, np.array([[[0.0, 4.0], [8.0, 16.0]]]))
    >>> o
    array([[[6.        , 6.66666667],
            [8.        , 9.33333333]]])
    >>> dq, dk, dv = backward(np.array([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> dv
    array([[[0.125, 0.25 ],
            [0.625, 0.   ]]])
    """
    s, back_softmax = softmax(np.where(is_itself(q), -np.inf, products(q, k)))

    def backward(do):
        dz = back_softmax(products(do, v))
        return gather_on_lines(k, dz), scatter_on_lines(q, dz), scatter_on_lines(do, s)

    return gather_on_lines(v, s), backward


def rows(a: Array) -> Array:
    """Lay a map out as its rows, (..., c, H, W) to (..., H, c, W), and rows as a map again."""
    return a.swapaxes(-3, -2)


def columns(a: Array) -> Array:
    """Lay a map out as its columns, (..., c, H, W) to (..., W, c, H)."""
    return rows(transpose(a))


def parts(w: Array) -> tuple[Array, Array]:
    """Cut weights, or logits, (..., H, W, W + H): by rows (..., H, W, W), columns (..., W, H, H)."""
    width = w.shape[-2]
    return w[..., :width], w[..., width:].swapaxes(-3, -2)


def is_itself(a: Array) -> Array:
    """Tell where a position meets itself in its column, having met itself in its row: (H, 1, W + H)."""
    height, width = a.shape[-2:]
    return np.arange(width + height, like=a) == width + np.arange(height, like=a)[:, None, None]


def products(a: Array, b: Array) -> Array:
    """Multiply every position of a map with those in its row, and in its column, of another: (..., H, W, W + H)."""
    in_row, in_column = (product(transpose(along(a)), along(b)) for along in (rows, columns))
    return np.concatenate([in_row, in_column.swapaxes(-3, -2)], axis=-1)


def gather_on_lines(a: Array, w: Array) -> Array:
    """Add up for every position those in its row and its column, each times its weight."""
    in_row, in_column = parts(w)
    return rows(product(rows(a), transpose(in_row))) + transpose(rows(product(columns(a), transpose(in_column))))


def scatter_on_lines(a: Array, w: Array) -> Array:
    """Add every position to those in its row and its column, by the same weights: the adjoint of `gather_on_lines`."""
    in_row, in_column = parts(w)
    return rows(product(rows(a), in_row)) + transpose(rows(product(columns(a), in_column)))
