"""Softmax attention, exact, block by block of queries."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.typing import Array, Backward

__all__ = ["dot_product_attention"]

BLOCK_QUERIES = 256
"""Queries in a block: no more weights than theirs are ever materialised."""


@primitive
def dot_product_attention(q: Array, k: Array, v: Array, scale: float = 1.0) -> tuple[Array, Backward]:
    """Let every query average the values, weighted by the softmax of its products with the keys.

    o_m = Σ_n s_mn v_n with s_mn = exp(scale q_m · k_n) / Σ_i exp(scale q_m · k_i). The M × N weights are never
    materialised: forward and backward compute them block by block of queries, so memory grows as M + N.

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

    Raises
    ------
    ValueError
        If there are no keys, if leading axes differ, or if keys and values differ in number.

    Notes
    -----
    Of the forward pass one number is kept for each query, the logsumexp l_m of its logits; a weight is
    exp(z_mn - l_m). This is the scheme of Dao et al., FlashAttention, NeurIPS 2022, with whole rows.
    ``derivations/dot_product_attention.md`` derives it. Masks, a bias, a softcap and sinks are `masked_attention`'s;
    heads that share keys and values have these repeated before, by `repeat`.

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
    validate_shapes("dot_product_attention", q, k, v)
    scaled = scale * q
    o = np.empty_like(q, shape=(*q.shape[:-2], v.shape[-2], q.shape[-1]))
    log_sum_exp = np.empty_like(q, shape=(*q.shape[:-2], q.shape[-1], 1))
    for m in query_blocks(q):
        o[..., m], log_sum_exp[..., m, :] = average_values(product(transpose(scaled[..., m]), k), v)

    def backward(do):
        dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
        delta = average_slope(do, o)[..., None]
        for m in query_blocks(q):
            s = np.exp(product(transpose(scaled[..., m]), k) - log_sum_exp[..., m, :])
            dv += product(do[..., m], s)
            dz = s * (product(transpose(do[..., m]), v) - delta[..., m, :])
            dq[..., m] = scale * product(k, transpose(dz))
            dk += product(scaled[..., m], dz)
            del s, dz  # or those of two blocks would be held at once
        return dq, dk, dv

    return o, backward


def average_values(z: Array, v: Array) -> tuple[Array, Array]:
    """Average values by the softmax of logits; return the logsumexp too."""
    e, highest = exponentials(z)
    total = e.sum(axis=-1, keepdims=True)
    return weigh_values(v, e, total), highest + np.log(total)


@primitive
def weigh_values(v: Array, e: Array, total: Array) -> Array:
    """Average values by exponentials, which are yet to be divided by a total: o_cm = Σ_n v_cn e_mn / t_m.

    Parameters
    ----------
    v : array, (..., c, N)
    e : array, (..., M, N)
    total : array, (..., M, 1)

    Returns
    -------
    array, (..., c, M)

    Examples
    --------
    >>> weigh_values(np.array([[2.0, 4.0]]), np.array([[1.0, 0.5]]), np.array([[1.5]])).round(2)
    array([[2.67]])
    """
    return product(v, transpose(e)) / transpose(total)


@primitive
def average_slope(do: Array, o: Array, dl: Array | float = 0.0) -> Array:
    """Average the gradients of a query's weights by the weights: δ_m = Σ_n s_mn ds_mn - dl_m = Σ_c do_cm o_cm - dl_m.

    A logit receives s_mn (ds_mn - Σ_i s_mi ds_mi) through the softmax, and s_mn dl_m through the logsumexp.
    FlashAttention-2 (Dao 2023, algorithm 2) calls the first term D = rowsum(dO ∘ O).

    Parameters
    ----------
    do, o : array, (..., e, M)
        The gradient of what is gathered, and that itself.
    dl : array, (..., M), optional
        Gradient of the logsumexp, which is taken off.

    Returns
    -------
    array, (..., M)

    Examples
    --------
    >>> average_slope(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]))
    array([11.])
    """
    return (do * o).sum(axis=-2) - dl


def validate_shapes(name: str, q: Array, k: Array, v: Array, **pairs: Array | None) -> None:
    """Refuse arrays whose shapes do not go together.

    Raises
    ------
    ValueError
    """
    for key, a in (("k", k), ("v", v)):
        if a.shape[:-2] != q.shape[:-2]:
            raise ValueError(
                f"{name}: {key} has shape {a.shape} but q {q.shape}; expected the same leading axes, {q.shape[:-2]}: "
                "np.broadcast_to or np.repeat makes them so"
            )
    if k.shape[-1] == 0:
        raise ValueError(f"{name}: k has shape {k.shape}; expected at least one key: there is nothing to average")
    if v.shape[-1] != k.shape[-1]:
        raise ValueError(f"{name}: v has shape {v.shape} but k {k.shape}; expected as many values as keys")
    for key, pair in pairs.items():
        if pair is not None and pair.shape[-2:] != (q.shape[-1], k.shape[-1]):
            raise ValueError(
                f"{name}: {key} has shape {pair.shape}; expected its last axes to be queries and keys, "
                f"{(q.shape[-1], k.shape[-1])}"
            )


def query_blocks(q: Array) -> list[slice]:
    """Cut the queries into blocks, at least one."""
    return [slice(m, m + BLOCK_QUERIES) for m in range(0, max(1, q.shape[-1]), BLOCK_QUERIES)]


def exponentials(z: Array) -> tuple[Array, Array]:
    """Return exp(z - max z) and max z, by rows: the largest logit taken off, no exponential overflows."""
    highest = z.real.max(axis=-1, keepdims=True)
    return np.exp(z - highest), highest


def transpose(a: Array) -> Array:
    """Swap the last two axes."""
    return a.swapaxes(-1, -2)


def flatten_positions(a: Array) -> Array:
    """Lay the positions of maps in a row: (..., H, W) to (..., N)."""
    *lead, height, width = a.shape
    return a.reshape(*lead, height * width)
