"""Attention and convolution in longdouble, some queries or channels at a time: all at once would take much memory."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npattn import ops
from npattn.module import as_tuple
from npattn.ops.attention import validate_shapes
from npattn.ops.masking import keys_seen
from npattn.ops.primitive import Primitive, in_order
from npattn.oracle.heads import attend_by_heads
from npattn.oracle.pairs import keep_apart
from npattn.typing import Array

__all__ = ["ATTENTION", "divide", "options_of_queries"]

ATTENTION: tuple[Any, ...] = ops.dot_product_attention, ops.masked_attention
BLOCK_SIZE = 2**16
"""Weights of an attention, or taps of a convolution, that are computed at once."""
MIN_QUERIES, QUERIES_OF_HEAD = 16, 64
CHANNELS_A_QUERY = 4
"""Keys and values are read, and their gradients added up, once for a block. That is to take no longer than its queries:
a block has at least one for so many channels of both."""


def divide(called: Primitive, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Compute attention for some queries at a time, and a convolution for some channels, by their definitions.

    For `npattn.ops.context.replacing`.

    Parameters
    ----------
    called : Primitive
    arguments : tuple
        Of arrays, and what else the primitive takes.
    options : mapping of str

    Returns
    -------
    result
        NotImplemented of another primitive, or where all is done at once.

    Examples
    --------
    >>> from npattn.ops.context import replacing
    >>> q, k, v = (np.random.RandomState(seed).standard_normal((4, 1024)) for seed in range(3))
    >>> o, _ = ops.dot_product_attention.definition(q, k, v)
    >>> with replacing(divide):
    ...     found, _ = ops.dot_product_attention(q, k, v)
    >>> bool(np.abs(found - o).max() < 1e-14)
    True
    """
    apart = keep_apart(called, arguments, options, QUERIES_OF_HEAD)
    if apart is not NotImplemented:
        return apart
    if called in ATTENTION and len(arguments) >= 3:  # queries, keys and values are not given by name
        arguments, options = in_order(called.definition, arguments, options)
        q, k, v, *_ = arguments
        # By their whole shapes, not those of a block.
        validate_shapes(called.__name__, q, k, v, **{name: options.get(name) for name in ("bias", "mask")})
        many = math.prod(q.shape[:-2]) > 1 and q.shape[-1] * k.shape[-1] >= BLOCK_SIZE
        if called is ops.dot_product_attention and not options and many:
            # A block reads all keys and values: those of one head, for the more queries.
            return attend_by_heads(divide_head, *arguments)
        return divide_windows(called, arguments, options)
    if called is ops.conv2d and len(arguments) >= 2:
        return divide_groups(arguments, options)
    return NotImplemented


def divide_head(*arguments: Any) -> Any:
    """Compute one head's attention for some queries at a time, or for all."""
    found = divide_queries(ops.dot_product_attention, arguments, {})
    return ops.dot_product_attention.definition(*arguments) if found is NotImplemented else found


def divide_windows(called: Primitive, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Compute attention for some windows at a time, or what else leads queries, keys and values; or some queries."""
    q, k, v, *scale = arguments
    lead, bias = q.shape[:-2], options.get("bias")
    axis = max(range(len(lead)), key=lead.__getitem__, default=0)
    alike = k.shape[:-2] == v.shape[:-2] == lead and options.keys() <= {"bias"}
    blocks = blocks_along(lead[axis], max(1, lead[axis] * BLOCK_SIZE // max(1, k.size + v.size))) if lead else []
    if len(blocks) < 2 or not alike or (bias is not None and bias.shape[:-2] != lead):
        return divide_queries(called, arguments, options)
    parts, backs = [], []
    for some in blocks:
        at = (*[slice(None)] * axis, some)
        chosen = {name: a if a is None else a[at] for name, a in options.items()}
        given = (q[at], k[at], v[at], *scale)
        found = divide_queries(called, given, chosen)
        part, back = called.definition(*given, **chosen) if found is NotImplemented else found
        parts.append(part)
        backs.append((at, back))
        del found, part, back
    outputs = tuple(join(ys, axis) for ys in zip(*map(as_tuple, parts), strict=True))
    several = isinstance(parts[0], tuple)
    del parts

    def backward(*upstream: Any) -> tuple[Array | None, ...]:
        gradients: tuple[Array | None, ...] = ()
        for at, back in backs:
            found = back(*(dy[at] if np.ndim(dy) else dy for dy in upstream))
            gradients = gradients or tuple(None if a is None else empty_along(a, axis, lead[axis]) for a in found)
            for whole, part in zip(gradients, found, strict=True):
                if whole is not None:
                    whole[at] = part
        return gradients

    return outputs if several else outputs[0], backward


def divide_queries(called: Primitive, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Compute attention for some queries at a time."""
    q, k, v, *scale = arguments
    weights = max(1, math.prod(q.shape[:-2]) * k.shape[-1])  # of one query
    least = max(MIN_QUERIES, (k.shape[-2] + v.shape[-2]) // CHANNELS_A_QUERY)
    blocks = blocks_along(q.shape[-1], max(least, BLOCK_SIZE // weights))
    if len(blocks) < 2:
        return NotImplemented
    parts, backs = [], []
    for m in blocks:
        chosen = options_of_queries(q, k, m, options) if options else {}
        part, back = called.definition(q[..., m], k, v, *scale, **chosen)
        parts.append(part)
        backs.append(back)  # alone, or the parts would be held as long as they are
    outputs = tuple(join(ys, -1) for ys in zip(*map(as_tuple, parts), strict=True))

    def backward(*upstream: Any) -> tuple[Array | None, ...]:
        dqs, dbiases = [], []
        sums: tuple[Array | None, ...] = ()
        for m, back in zip(blocks, backs, strict=True):
            dq, dk, dv, *others = back(*(dy[..., m] if np.ndim(dy) else dy for dy in upstream))
            dqs.append(dq)
            dbiases += others[:1]
            sums = add(sums, (dk, dv, *others[1:]))
        dk, dv, *dsink = sums
        dbias = [join(dbiases, -2) if dbiases[0] is not None else None] if dbiases else []
        return join(dqs, -1), dk, dv, *dbias, *dsink

    return outputs if isinstance(parts[0], tuple) else outputs[0], backward


def divide_groups(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Compute a convolution for some groups at a time, or for some input channels of one."""
    x, weight, *bias = arguments
    named = {name: value for name, value in options.items() if name not in ("bias", "groups")}
    groups, b = options.get("groups", 1), (bias or [options.get("bias")])[0]
    taps = max(1, x[:, :1].size * weight[0, 0].size)  # of one channel, but for strides
    blocks = blocks_along(groups, max(1, BLOCK_SIZE // (taps * weight.shape[1])))
    if groups == 1:
        return divide_channels(x, weight, b, named, taps)
    if len(blocks) < 2:
        return NotImplemented
    parts, backs = [], []
    for some in blocks:
        count = min(some.stop, groups) - some.start
        c, o = (slice(some.start * n // groups, some.stop * n // groups) for n in (x.shape[1], len(weight)))
        bias_of_some = None if b is None else b[o]
        found = NotImplemented
        if count == 1:
            found = divide_channels(x[:, c], weight[o], bias_of_some, named, taps)
        if found is NotImplemented:
            found = ops.conv2d.definition(x[:, c], weight[o], bias_of_some, groups=count, **named)
        parts.append(found[0])
        backs.append((o, found[1]))
    y = join(parts, 1)
    del parts

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dxs, dweights, dbiases = zip(*(back(dy[:, o]) for o, back in backs), strict=True)
        return join(dxs, 1), join(dweights, 0), None if b is None else join(dbiases, 0)

    return y, backward


def divide_channels(x: Array, weight: Array, bias: Array | None, options: Mapping[str, Any], taps: int) -> Any:
    """Compute a convolution of one group for some input channels, of so many taps each, at a time."""
    least = len(weight) // weight[0, 0].size  # then they take as much memory as the outputs that they are added to
    blocks = blocks_along(x.shape[1], max(1, least, BLOCK_SIZE // taps))
    if len(blocks) < 2:
        return NotImplemented
    sums: tuple[Array | None, ...] = ()
    backs = []
    for c in blocks:
        y, back = ops.conv2d.definition(x[:, c], weight[:, c], bias if c.start == 0 else None, **options)
        sums = add(sums, (y,))
        backs.append(back)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dx, dweight = np.empty_like(x), np.empty_like(weight)
        dbiases = []
        for c, back in zip(blocks, backs, strict=True):
            dx[:, c], dweight[:, c], dbias = back(dy)
            dbiases.append(dbias)
        return dx, dweight, dbiases[0]

    return sums[0], backward


def options_of_queries(q: Array, k: Array, which: slice, options: Mapping[str, Any]) -> dict[str, Any]:
    """Make the options of a masked attention those of some queries: a band, which counts them all, becomes a mask."""
    found = dict(options)
    if found.get("bias") is not None:
        found["bias"] = found["bias"][..., which, :]
    band, mask = found.pop("band", (None, None)), found.pop("mask", None)
    rows = list(range(q.shape[-1]))[which]
    return found | {"mask": keys_seen(q, k, rows, band=band, lengths=None, mask=mask)}


def blocks_along(length: int, step: int) -> list[slice]:
    """Cut an axis into blocks."""
    return [slice(i, i + step) for i in range(0, length, step)]


def join(parts: Sequence[Array], axis: int) -> Array:
    """Lay arrays beside each other, in an array of their kind."""
    whole = empty_along(parts[0], axis, sum(a.shape[axis] for a in parts))
    return np.concatenate(parts, axis=axis, out=whole)


def empty_along(part: Array, axis: int, length: int) -> Array:
    """Make room for an array of which there is a part, as long as asked along an axis."""
    shape = list(part.shape)
    shape[axis] = length
    return np.empty_like(part, shape=tuple(shape))


def add(sums: tuple[Array | None, ...], terms: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
    """Add arrays to the sums that there are, if any, in place."""
    if not sums:
        return terms
    return tuple(None if a is None or b is None else operator.iadd(a, b) for a, b in zip(sums, terms, strict=True))
