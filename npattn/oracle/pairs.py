"""Logits of all pairs of positions, kept as the two summands that they are made of; attention that is given them."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np

from npattn import ops
from npattn.attention.bottleneck import RelativeHeads
from npattn.module import Module
from npattn.ops.context import Setting
from npattn.ops.primitive import Primitive
from npattn.ops.relative import offset_logits
from npattn.oracle.systems import is_known
from npattn.typing import Array, Backward

__all__ = ["RelativeLogits", "attend_by_blocks", "keep_apart", "keeping_apart", "relative_logits", "suits"]

BYTES_OF_QUERIES = 1024
"""Of one key's logits in a block, of 256 queries of one head, or 128; a pass holds a dozen such arrays for a moment."""
MIN_PAIRS = 2**16
"""Pairs of one head below which their logits are an array as any other."""
APART: ContextVar[bool] = ContextVar("npattn.oracle.pairs", default=False)
"""Whether those of more pairs are not."""


class RelativeLogits:
    """What `ops.relative_logits` computes, or its gradient, by the rows and the columns of the keys.

    Rows of it are made where they are added to an array, and then only.

    Parameters
    ----------
    rows, columns : array, (..., M, K), (..., M, L)
        Of M queries: what each row of keys adds to the logits, and each column; or the gradients, summed up.

    Examples
    --------
    >>> logits = RelativeLogits(np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]]))
    >>> np.zeros(4) + logits
    array([[11., 21., 12., 22.]])
    """

    __array_ufunc__ = None

    def __init__(self, rows: Array, columns: Array) -> None:
        self.rows, self.columns = rows, columns

    @property
    def shape(self) -> tuple[int, ...]:
        """Those of the logits: (..., M, K L)."""
        return (*self.rows.shape[:-1], self.rows.shape[-1] * self.columns.shape[-1])

    def __getitem__(self, index: Any) -> RelativeLogits:
        """Take some heads, ``[head]``, or some queries, ``[..., m, :]``."""
        return RelativeLogits(self.rows[index], self.columns[index])

    def __radd__(self, a: Array) -> Array:
        """Add the logits to an array."""
        logits = self.rows[..., None] + self.columns[..., None, :]
        total: Array = a + logits.reshape(self.shape)
        return total

    def sums(self, gradient: Array) -> tuple[Array, Array]:
        """Add up a gradient of the logits by rows and by columns of keys."""
        by_keys = gradient.reshape(*self.rows.shape, self.columns.shape[-1])
        return by_keys.sum(axis=-1), by_keys.sum(axis=-2)


def keep_apart(
    called: Primitive, arguments: tuple[Any, ...], options: Mapping[str, Any], queries: int | None = None
) -> Any:
    """Compute logits of many pairs, and attention that is given them, so that all pairs are never held at once.

    For `npattn.ops.context.replacing`.

    Parameters
    ----------
    called : Primitive
    arguments : tuple
        Of arrays, and what else the primitive takes.
    options : mapping of str
    queries : int, optional
        Of which one block consists; by default those whose logits for one key are `BYTES_OF_QUERIES`.

    Returns
    -------
    result
        NotImplemented of another primitive, of few pairs, or of logits that are an array.
    """
    if called is ops.relative_logits and len(arguments) >= 3 and suits(*arguments[:3]):
        return relative_logits(*arguments, **options)
    if called is ops.masked_attention and isinstance(options.get("bias"), RelativeLogits):
        return attend_by_blocks(*arguments, **options, queries=queries or BYTES_OF_QUERIES // arguments[0].itemsize)
    return NotImplemented


def suits(q: Array, height_rel: Array, width_rel: Array) -> bool:
    """Tell whether there are so many pairs that their logits are to be kept as summands."""
    keys = ((len(height_rel) + 1) // 2) * ((len(width_rel) + 1) // 2)
    return APART.get() and q.shape[-2] * q.shape[-1] * keys >= MIN_PAIRS


def keeping_apart(module: Module) -> Setting[bool]:
    """Keep the logits of a system apart in this context, if it hands them to attention and does nothing else to them.

    Parameters
    ----------
    module : Module
        Of any kind; whose steps are read, or which is someone's own, has arrays.
    """
    return Setting(APART, isinstance(module, RelativeHeads) and is_known(module))


def relative_logits(
    q: Array, height_rel: Array, width_rel: Array, scale: float = 1.0
) -> tuple[RelativeLogits, Backward]:
    """Compute `ops.relative_logits`, but leave its summands apart."""
    *lead, _, h, w = q.shape
    queries = scale * np.moveaxis(q, -3, -1)
    a, back_rows = offset_logits(queries, height_rel)
    b, back_columns = offset_logits(queries.swapaxes(-2, -3), width_rel)
    b = b.swapaxes(-2, -3)
    logits = RelativeLogits(*(part.reshape(*lead, h * w, part.shape[-1]) for part in (a, b)))

    def backward(dz: RelativeLogits | Array) -> tuple[Array, ...]:
        da, db = (dz.rows, dz.columns) if isinstance(dz, RelativeLogits) else logits.sums(dz)
        drows, dheight_rel = back_rows(da.reshape(a.shape))
        dcolumns, dwidth_rel = back_columns(db.reshape(b.shape).swapaxes(-2, -3))
        return scale * np.moveaxis(drows + dcolumns.swapaxes(-2, -3), -1, -3), dheight_rel, dwidth_rel

    return logits, backward


def attend_by_blocks(
    q: Array, k: Array, v: Array, scale: float = 1.0, *, bias: RelativeLogits, queries: int
) -> tuple[tuple[Array, Array], Backward]:
    """Compute `ops.masked_attention` by its definition, for one head and so many queries at a time.

    Of the bias' gradient nothing is kept but its sums.

    Examples
    --------
    >>> q, k, v = (np.random.RandomState(seed).standard_normal((2, 3, 6)) for seed in range(3))
    >>> rows, columns = (np.random.RandomState(seed).standard_normal((2, 6, n)) for seed, n in ((3, 2), (4, 3)))
    >>> (o, _), backward = attend_by_blocks(q, k, v, bias=RelativeLogits(rows, columns), queries=4)
    >>> whole = (rows[..., None] + columns[..., None, :]).reshape(2, 6, 6)
    >>> (expected, _), backward_of_whole = ops.masked_attention(q, k, v, bias=whole)
    >>> bool(np.allclose(o, expected))
    True
    >>> found, dbias = (back(np.ones_like(o))[3] for back in (backward, backward_of_whole))
    >>> bool(np.allclose(found.rows, dbias.reshape(2, 6, 2, 3).sum(axis=-1)))
    True
    """
    blocks = [(at, slice(i, i + queries)) for at in np.ndindex(q.shape[:-2]) for i in range(0, q.shape[-1], queries)]
    o = np.empty_like(q, shape=(*q.shape[:-2], v.shape[-2], q.shape[-1]))
    log_sum_exp = np.empty_like(q, shape=(*q.shape[:-2], q.shape[-1]))
    backs = []
    for at, m in blocks:
        some = bias[at][..., m, :]
        found, back = ops.masked_attention.definition(q[at][..., m], k[at], v[at], scale, bias=some)
        o[at][..., m], log_sum_exp[at][..., m] = found
        backs.append((some, back))

    def backward(do: Array, dl: Any = 0.0) -> tuple[Any, ...]:
        dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
        dbias = RelativeLogits(np.empty_like(bias.rows), np.empty_like(bias.columns))
        for (at, m), (some, back) in zip(blocks, backs, strict=True):
            upstream = do[at][..., m], dl[at][..., m] if np.ndim(dl) else dl
            dq[at][..., m], dk_of_block, dv_of_block, dlogits, _ = back(*upstream)
            dk[at] += dk_of_block
            dv[at] += dv_of_block
            dbias.rows[at][m], dbias.columns[at][m] = some.sums(dlogits)
            del dlogits  # or those of two blocks would be held at once
        return dq, dk, dv, dbias, None

    return (o, log_sum_exp), backward
