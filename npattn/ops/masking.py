"""Softmax attention in which each query sees some of the keys, by logits that may be changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from npattn.ops.attention import average_slope, query_blocks, transpose, validate_shapes, weigh_values
from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.typing import Array, Backward

__all__ = ["masked_attention"]


@primitive
def masked_attention(
    q: Array,
    k: Array,
    v: Array,
    scale: float = 1.0,
    *,
    softcap: float | None = None,
    bias: Array | None = None,
    sink: Array | None = None,
    band: tuple[int | None, int | None] = (None, None),
    lengths: Array | None = None,
    mask: Array | None = None,
) -> tuple[tuple[Array, Array], Backward]:
    """Attend as `dot_product_attention` does, but each query to the keys that it sees, by logits that may be changed.

    o_m = Σ_n s_mn v_n with s_mn = exp(z_mn - l_m) where query m sees key n, and 0 elsewhere. Logits are
    z_mn = scale q_m · k_n, then softcap tanh(z_mn / softcap), then z_mn + bias_mn. The logsumexp is
    l_m = log(Σ_n exp z_mn + exp sink), with the n that m sees; of a query that sees none it is -∞, with a sink too.

    Parameters
    ----------
    q, k, v : array, (..., d, M), (..., d, N), (..., e, N)
        As `dot_product_attention` has them.
    scale : float, default 1
    softcap : float, optional
        Bound of the logits.
    bias : array, optional
        (..., M, N), with leading axes that are broadcast. Added to the logits.
    sink : array, optional
        Broadcast to the leading axes. A logit that takes weight and gives no value.
    band : tuple of int or None, default (None, None)
        Query m sees the keys n with band[0] ≤ n - m ≤ band[1]; None is no bound.
    lengths : array, optional
        Broadcast to the leading axes. Keys n ≥ lengths are not seen.
    mask : array, optional
        (..., M, N), with leading axes that are broadcast. Keys are seen where it is not 0.

    Returns
    -------
    (o, l) : array, (..., e, M), and array, (..., M)
    backward : callable
        ``backward(do, dl=0.0)`` returns ``(dq, dk, dv, dbias, dsink)``, None for what was not given.

    Raises
    ------
    ValueError
        As `dot_product_attention`; or if the last two axes of `bias` or `mask` are not (M, N).

    Notes
    -----
    A pair that is not seen has weight 0 and gradients 0, whatever stands there, NaN and infinity included; of what is
    seen, NaN or infinity among values makes an output NaN. A query that sees no key, or none with a logit above -∞, has
    output 0, logsumexp -∞ and gradients 0, with a sink too. ``derivations/scaled_dot_product.md`` derives it.

    Examples
    --------
    Each of two queries sees the keys up to its own:

    >>> q, k, v = np.array([[1.0, 1.0]]), np.log([[1.0, 3.0]]), np.array([[0.0, 4.0]])
    >>> (o, l), backward = masked_attention(q, k, v, band=(None, 0))
    >>> o, np.exp(l)
    (array([[0., 3.]]), array([1., 4.]))
    >>> dq, dk, dv, *_ = backward(np.array([[1.0, 1.0]]))
    >>> dk, dv
    (array([[-0.75,  0.75]]), array([[1.25, 0.75]]))

    A sink of logit 0 takes a weight of 1 in 5, and gives nothing:

    >>> (o, l), backward = masked_attention(q, k, v, sink=np.zeros(()))
    >>> o.round(3), np.exp(l).round(3)
    (array([[2.4, 2.4]]), array([5., 5.]))
    >>> backward(np.array([[1.0, 0.0]]))[4].round(3)
    np.float64(-0.48)
    """
    validate_shapes("masked_attention", q, k, v, bias=bias, mask=mask)
    logits_of = partial(masked_logits, scale * q, k, softcap=softcap, bias=bias, band=band, lengths=lengths, mask=mask)
    o, log_sum_exp = (np.empty_like(q, shape=(*q.shape[:-2], *rows, q.shape[-1])) for rows in (v.shape[-2:-1], ()))
    for m in query_blocks(q):
        o[..., m], log_sum_exp[..., m] = average_seen(v, *logits_of(m)[:2], sink)
    dead = log_sum_exp == np.inf  # which stands for -∞ till the end: of a query that sees no key exp(z - l) is 0 then

    def backward(do, dl=0.0):
        dq, dk, dv, dbias = np.empty_like(q), np.zeros_like(k), np.zeros_like(v), []
        do = np.where(dead[..., None, :], 0, do)
        delta = np.where(dead, 0, average_slope(do, o, dl))
        for m in query_blocks(q):
            rows = do[..., m], log_sum_exp[..., m, None], delta[..., m, None]
            dq[..., m], dk_of_block, dv_of_block, dbias_of_block = block_gradients(partial(logits_of, m), v, *rows)
            dk += dk_of_block
            dv += dv_of_block
            dbias.append(dbias_of_block)
        return scale * dq, dk, dv, join_rows(dbias), sink_gradient(sink, log_sum_exp, delta)

    return (o, np.where(dead, -np.inf, log_sum_exp)), backward


def block_gradients(
    logits: Callable[[], tuple[Array, Array, Backward]], v: Array, do: Array, log_sum_exp: Array, delta: Array
) -> tuple[Array, Array, Array, Array | None]:
    """Return the gradients that a block of queries has and gives: of the queries, keys, values, and the bias."""
    z, seen, back_logits = logits()
    s = np.exp(z - log_sum_exp)
    del z  # as large as s and dz
    s = np.where(seen, s, 0)  # exp(-∞ - l) is 0 but where l is NaN
    dv = sum_seen(do, transpose(s), transpose(seen))
    dz = np.where(seen, s * (products_seen(do, v, seen) - delta), 0)
    dq, dk, dbias = back_logits(dz)
    return dq, dk, dv, dbias


def masked_logits(
    q: Array,
    k: Array,
    m: slice | list[int],
    *,
    softcap: float | None,
    bias: Array | None,
    band: tuple[int | None, int | None],
    lengths: Array | None,
    mask: Array | None,
) -> tuple[Array, Array, Backward]:
    """Make the logits of a block of queries, -∞ where a key is not seen: z, what is seen, and z's backward."""
    seen = keys_seen(q, k, m, band=band, lengths=lengths, mask=mask)
    z = products_seen(q[..., m], k, seen)
    slope = 1.0
    if softcap is not None:
        t = np.tanh(z / softcap)
        z, slope = softcap * t, 1 - t * t
    added = None if bias is None else bias[..., m, :]
    z = np.where(seen, z if added is None else z + added, -np.inf)

    def backward(dz):
        dadded = None if added is None else sum_to(dz, added.shape)
        dz = slope * dz
        return sum_seen(k, dz, seen), sum_seen(q[..., m], transpose(dz), transpose(seen)), dadded

    return z, seen, backward


def masked_weights(
    q: Array,
    k: Array,
    m: slice | list[int],
    scale: float = 1.0,
    *,
    softcap: float | None = None,
    bias: Array | None = None,
    sink: Array | None = None,
    band: tuple[int | None, int | None] = (None, None),
    lengths: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """Make the weights s_mn by which `masked_attention` averages for some of the queries, so that they can be read."""
    z, seen, _ = masked_logits(scale * q, k, m, softcap=softcap, bias=bias, band=band, lengths=lengths, mask=mask)
    e, total, _ = exponentials_of_seen(z, sink)
    return np.where(seen, e / total, 0)


def keys_seen(
    q: Array,
    k: Array,
    m: slice | list[int],
    *,
    band: tuple[int | None, int | None],
    lengths: Array | None,
    mask: Array | None,
) -> Array:
    """Tell which keys (columns) the queries of a block (rows) see."""
    queries, keys = (np.arange(a.shape[-1], like=a) for a in (q, k))
    distance = keys - queries[m, None]
    least, most = band
    seen = np.ones_like(distance, dtype=bool)
    if least is not None:
        seen = seen & (distance >= least)
    if most is not None:
        seen = seen & (distance <= most)
    if lengths is not None:
        seen = seen & (keys < lengths.real[..., None, None])
    if mask is not None:
        seen = np.where(mask[..., m, :].real == 0, False, seen)
    return seen


def average_seen(v: Array, z: Array, seen: Array, sink: Array | None) -> tuple[Array, Array]:
    """Average values by the softmax of logits: the average, and the logsumexp, +∞ for -∞ where no key is seen."""
    e, total, log_sum_exp = exponentials_of_seen(z, sink)
    return sum_seen(v, e, seen, total), log_sum_exp[..., 0]


def exponentials_of_seen(z: Array, sink: Array | None) -> tuple[Array, Array, Array]:
    """Return exponentials of logits less the largest, their sum, logsumexp; where no key is seen 0, 1, +∞ for -∞."""
    highest = z.real.max(axis=-1, keepdims=True)
    none = highest == -np.inf
    if sink is not None:
        highest = np.maximum(highest, sink.real[..., None, None])
    highest = np.where(none, np.inf, highest)
    e = np.exp(z - highest)
    total = np.where(none, 1, e.sum(axis=-1, keepdims=True))
    if sink is not None:
        total = total + np.exp(sink[..., None, None] - highest)
    return e, total, highest + np.log(total)


def sink_gradient(sink: Array | None, log_sum_exp: Array, delta: Array) -> Array | None:
    """Return the gradient of a sink: its weight, which averages nothing, so that ds is 0 in s (ds - δ)."""
    if sink is None:
        return None
    weights = np.exp(sink[..., None] - log_sum_exp)
    return sum_to(-weights * delta, (*sink.shape, 1))[..., 0]


def products_seen(a: Array, b: Array, seen: Array) -> Array:
    """Multiply all queries with all keys, (..., i, M) and (..., i, N) to (..., M, N); 0 where they do not meet."""
    with np.errstate(over="ignore", invalid="ignore"):  # whatever stands there
        return np.where(seen, product(transpose(a), b), 0)


def sum_seen(a: Array, weights: Array, seen: Array, total: Array | None = None) -> Array:
    """Add up columns by weights, Σ_n a_n w_mn over the n that are seen: (..., c, N), (..., M, N) to (..., c, M).

    The other weights are 0, but 0 times infinity is NaN: the sum is taken of finite numbers, and is NaN where a number
    that is seen is none. With a total for each m, the weights are yet to be divided by it.
    """
    finite = np.isfinite(a)
    # How many of what is seen are not finite: a product of ones and zeros counts them.
    spoilt = product((~finite).astype(np.float32), transpose(seen).astype(np.float32)) > 0
    a = np.where(finite, a, 0)
    found = product(a, transpose(weights)) if total is None else weigh_values(a, weights, total)
    return np.where(spoilt, np.nan, found)


def sum_to(a: Array, shape: tuple[int, ...]) -> Array:
    """Add up what an array of some shape was broadcast to."""
    full = (1,) * (a.ndim - len(shape)) + tuple(shape)
    axes = tuple(axis for axis, (n, m) in enumerate(zip(a.shape, full, strict=True)) if n != m)
    return (a.sum(axis=axes, keepdims=True) if axes else a).reshape(shape)


def join_rows(blocks: list[Array]) -> Array | None:
    """Lay blocks of rows below each other; None where there are none."""
    return None if blocks[0] is None else np.concatenate(blocks, axis=-2)
