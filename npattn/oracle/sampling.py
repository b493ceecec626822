"""Attention in longdouble for a sample of the queries, where all of them would take long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npattn import ops
from npattn.module import as_tuple
from npattn.ops.attention import transpose
from npattn.ops.primitive import Primitive
from npattn.oracle.dividing import ATTENTION, options_of_queries
from npattn.oracle.extended import extend
from npattn.oracle.pairs import RelativeLogits
from npattn.typing import Array

__all__ = ["STRIDE", "sample_queries"]

STRIDE = 16
"""One of so many queries is computed in longdouble."""
SAMPLE = slice(STRIDE // 2, None, STRIDE)
MIN_QUERIES = 8 * STRIDE
"""Queries below which all are."""


def sample_queries(called: Primitive, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Compute attention in longdouble for one query in `STRIDE`, and in float64 for the others.

    For `npattn.ops.context.replacing`. Both are computed by the definition, and not by faster ways, so that the sums
    over all queries, as the gradients of keys and values are, are those of another computation as well.

    Parameters
    ----------
    called : Primitive
    arguments : tuple
        Of extended arrays, and what else the primitive takes.
    options : mapping of str

    Returns
    -------
    result
        Of extended arrays; NotImplemented of another primitive, or of few queries.

    Examples
    --------
    >>> from npattn.ops.context import replacing
    >>> q, k, v = (extend(np.random.RandomState(seed).standard_normal((4, 256))) for seed in range(3))
    >>> exact, _ = ops.dot_product_attention(q, k, v)
    >>> with replacing(sample_queries):
    ...     found, _ = ops.dot_product_attention(q, k, v)
    >>> error = np.abs(found - exact)
    >>> bool(error[:, SAMPLE].max() == 0), bool(error.max() < 1e-14)
    (True, True)
    """
    if called not in ATTENTION or len(arguments) < 3 or arguments[0].shape[-1] < MIN_QUERIES:
        return NotImplemented
    q, k, v, *scale = arguments
    others, back_others = called.definition(
        *map(single, (q, k, v)), *scale, **{n: single(a) for n, a in options.items()}
    )
    few = options_of_queries(q, k, SAMPLE, options) if called is ops.masked_attention else options
    sample, back_sample = called.definition(q[..., SAMPLE], k, v, *scale, **few)
    outputs = tuple(with_sample(a, b) for a, b in zip(as_tuple(others), as_tuple(sample), strict=True))

    def backward(*upstream: Any) -> tuple[Array | None, ...]:
        dq, dk, dv, *rest = back_others(*(single(without_sample(dy)) for dy in upstream))
        dq_few, dk_few, dv_few, *rest_few = back_sample(*(of_sample(dy) for dy in upstream))
        found = [with_sample(dq, dq_few), dk + dk_few, dv + dv_few]
        if rest:
            (dbias, dsink), (dbias_few, dsink_few) = rest, rest_few
            found.append(None if dbias is None else transpose(with_sample(transpose(dbias), transpose(dbias_few))))
            found.append(None if dsink is None else dsink + dsink_few)
        return tuple(found)

    return outputs if isinstance(others, tuple) else outputs[0], backward


def single(a: Any) -> Any:
    """Return an extended array in float64; all else as it is."""
    if isinstance(a, RelativeLogits):
        return RelativeLogits(single(a.rows), single(a.columns))
    return np.asarray(a, np.float64) if isinstance(a, np.ndarray) else a


def with_sample(others: Array, sample: Array) -> Array:
    """Put the queries of the sample in their places, along the last axis."""
    found = extend(others)
    found[..., SAMPLE] = sample
    return found


def of_sample(dy: Any) -> Any:
    """Take what reaches the queries of the sample; a number reaches all."""
    return dy[..., SAMPLE] if np.ndim(dy) else dy


def without_sample(dy: Any) -> Any:
    """Set what reaches the queries of the sample to 0: nothing else of their gradients is left then."""
    if not np.ndim(dy):
        return dy
    rest = dy.copy()
    rest[..., SAMPLE] = 0
    return rest
