"""Softmax attention in which queries see some keys: blocks that nothing sees are left out."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from npattn.fast.attention import (
    MAX_FEW_CHANNELS,
    blocks_of_attention,
    difference_in,
    is_worth_blocks,
    sum_columns,
    with_channel,
)
from npattn.fast.blas import add_product, multiply, serial_product
from npattn.fast.blocks import NUM_BLOCKS, are_machine_floats, cut_axis
from npattn.fast.elementwise import are_finite
from npattn.fast.machine import quick_powers
from npattn.fast.seen_pairs import Pairs
from npattn.fast.threads import parallel_for, reusing_memory
from npattn.ops.attention import transpose
from npattn.ops.masking import masked_attention, sink_gradient
from npattn.typing import Array, Backward

__all__ = ["attention_in_seen_blocks"]

SAFE_TOTAL = 2.0**58
"""What sums of exponentials may be, and 1 divided by them, without that float32 loses digits."""


def is_worth_seen_blocks(q: Array, k: Array, v: Array, scale: float = 1.0, **options: Any) -> bool:
    """Tell whether there are many logits, of the machine's floats, and no shapes that the definition refuses."""
    if not is_worth_blocks(q, k, v):
        return False
    given = {name: a for name, a in options.items() if name in ("bias", "mask", "sink", "lengths") and a is not None}
    pairs = q.shape[-1:] + k.shape[-1:]
    fitting = all(given[name].shape[-2:] == pairs for name in ("bias", "mask") if name in given)
    return fitting and are_machine_floats(q, *given.values())


@masked_attention.faster(suits=is_worth_seen_blocks)
def attention_in_seen_blocks(
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
    """Attend block by block, on all cores, where keys are seen.

    The blocks are those of `attention_in_blocks`; of each the keys that no query of it sees, by the band or by lengths,
    are left out. Where NaN or infinity comes out, the definition computes.
    """
    options = {"softcap": softcap, "bias": bias, "sink": sink, "band": band, "lengths": lengths, "mask": mask}
    exactly = functools.partial(masked_attention.definition, q, k, v, scale, **options)
    shapes = q.shape, k.shape, v.shape
    lead, queries, keys = q.shape[:-2] or (1,), q.shape[-1], k.shape[-1]
    q, k, v = (a.reshape(*lead, *a.shape[-2:]) for a in (q, k, v))
    unit = quick_powers()[2]
    pairs = Pairs(np.empty_like(q), k, scale, unit, softcap, bias, band, lengths, mask)
    forward_blocks, backward_blocks = blocks_of_attention(lead, queries, keys)
    sinks = None if sink is None else np.broadcast_to(unit * sink, lead)
    found = average(pairs, q, v, sinks, forward_blocks)
    if found is None:
        return exactly()
    o, log_sum_exp = found
    dead = log_sum_exp == np.inf
    least = np.where(dead, 0, log_sum_exp)

    def backward(do, dl=0.0):
        do = do.reshape(o.shape)
        if dead.any():
            do = np.where(dead[..., None, :], 0, do)
        with np.errstate(over="ignore", invalid="ignore"):
            slope = np.broadcast_to(dl if np.ndim(dl) == 0 else dl.reshape(dead.shape), dead.shape)
            delta, gradients, finite = differentiate(pairs, v, least, (do, o, slope), backward_blocks)
        if not finite:
            return exactly()[1](do.reshape(*shapes[0][:-2], *o.shape[-2:]), dl)
        dq, dk, dv, dbias = gradients
        dsink = sink_gradient(sink, *(a.reshape(*shapes[0][:-2], queries) for a in (log_sum_exp / unit, delta)))
        return *(a.reshape(shape) for a, shape in zip((dq, dk, dv), shapes, strict=True)), dbias, dsink

    value = np.where(dead, -np.inf, log_sum_exp / unit).reshape(*shapes[0][:-2], queries)
    return (o.reshape(*shapes[0][:-2], *o.shape[-2:]), value), backward


def average(
    pairs: Pairs, q: Array, v: Array, sinks: Array | None, cut: Sequence[tuple[Any, slice]]
) -> tuple[Array, Array] | None:
    """Average values, block by block, and return the logarithms of the sums too: +∞ where no key is seen.

    The queries are scaled first. There is no result if a number of it is infinite or NaN. Where a row's exponentials
    have a sum of usual size, no maximum has to be taken off first.
    """
    (power, logarithm, _), kept = quick_powers(), pairs.kept
    lead, queries, keys = pairs.shape[:-2], *pairs.shape[-2:]
    o = np.empty_like(pairs.q, shape=(*lead, v.shape[-2], queries))
    log_sum_exp = np.empty_like(pairs.q, shape=(*lead, queries), order="C")

    totals: deque[Array] = deque()

    def attend(block, memory):
        at, m = block
        np.multiply(q[at][..., m], pairs.factor, out=pairs.q[at][..., m])
        n = pairs.keys_seen(at, m, slice(0, keys))
        sink = None if sinks is None else sinks[at][..., None]
        staying = memory if kept is None else lambda _: kept[at][..., m, n]
        e, _ = pairs.logits(at, m, n, staying)
        power(e, out=e)
        sums, total = (None, sum_rows(e)) if kept is not None else sum_values(v[at][..., n], e)
        if total.min(initial=1) > 1 / SAFE_TOTAL and sink is not None:
            total = total + power(sink)
        if total.min(initial=1) > 1 / SAFE_TOTAL and total.max(initial=1) < SAFE_TOTAL:
            log_sum_exp[at][..., m] = logarithm(total)
        else:
            e, total, log_sum_exp[at][..., m] = exponentials_in_place(pairs.logits(at, m, n, staying)[0], sink)
            sums = None if kept is not None else sum_values(v[at][..., n], e)[0]
        if sums is None:
            e /= total[..., None]
            multiply(v[at][..., n], transpose(e), out=o[at][..., m])
        else:
            np.divide(sums, total[..., None, :], out=o[at][..., m])
        totals.append(o[at][..., m].sum())

    with np.errstate(over="ignore", invalid="ignore"):
        parallel_for(reusing_memory(attend, v, 1), cut, products=True)
    return (o, log_sum_exp) if np.isfinite(totals).all() else None


def differentiate(
    pairs: Pairs, v: Array, least: Array, upstream: tuple[Array, Array, Array], cut: Sequence[tuple[slice, Any]]
) -> tuple[Array, tuple[Array, Array, Array, Array | None], bool]:
    """Return Σ_i do_im o_im - dl_m, the gradients, and whether all are finite.

    They are those of queries as they were before they were scaled, of keys, of values and of the bias.
    """
    (do, o, dl), (q, k, bias) = upstream, (pairs.q, pairs.k, pairs.bias)
    power, kept, shared, count = quick_powers()[0], pairs.kept, False, 1
    dq, dk, dv, delta = (np.empty_like(a, order="C") for a in (q, k, v, least))
    if bias is not None and bias.size < math.prod(pairs.shape):
        # It serves several images and heads, whose gradients are added up in few arrays at the same time.
        shared, count = True, max(1, min(NUM_BLOCKS, (q.size + k.size) // bias.size))
    # Gradients of logits that are those of the bias are computed where they stay.
    same = pairs.has_own_biases
    make = np.empty_like if same else np.zeros_like
    dbiases = [None if bias is None else make(bias, order="C") for _ in range(count)]
    totals: deque[Array] = deque()
    at_once = len(cut) == 1 == len(cut[0][1])  # every query meets all keys in one block

    def subtract(block):
        at, m = block
        np.subtract(sum_of_channels(do[at][..., m], o[at][..., m]), dl[at][..., m], out=delta[at][..., m])

    def go_back(block, dbias, first, second):
        at, m, n = block
        if kept is None:
            s, slope = pairs.logits(at, m, n, first, least)
            power(s, out=s)
        else:
            s, slope = kept[at][..., m, n], None
        add_product(do[at][..., m], s, dv[at][..., n], second)
        staying = (lambda _: dbias.reshape(pairs.shape)[at][..., m, n]) if same else second
        dz = difference_in(staying, do[at][..., m], v[at][..., n], delta[at][..., m])
        dz *= s
        if dbias is not None and not same:
            pairs.add_to_bias(dbias, block, dz)
        if slope is not None:
            dz *= slope
        add_product(q[at][..., m], dz, dk[at][..., n], first)
        return sum_columns(k[at][..., n], dz, first)

    def compute(block, *memories):
        ats, m, columns, part, dbias = block
        for at in ats:
            if at_once:
                subtract((at, m))
            if m.start == 0:
                dk[at][..., columns], dv[at][..., columns] = 0, 0
            n = pairs.keys_seen(at, m, columns)
            np.multiply(go_back((at, m, n), dbias, *memories) if n.start < n.stop else 0, pairs.scale, out=part[at])
            if m.stop == q.shape[-1]:
                dk[at][..., columns] /= pairs.unit_of_queries
            if at_once:
                totals.extend(a[at].sum() for a in (delta, dq, dk))

    if not at_once:
        parallel_for(subtract, [(at, m) for m, columns in cut for at in columns[0][1]])
    for m, columns in cut:
        parts = [dq[..., m], *(np.empty_like(q[..., m]) for _ in columns[1:])]  # to be added up
        each = [
            (ats[some], m, n, part, dbias)
            for (n, ats), part in zip(columns, parts, strict=True)
            for some, dbias in zip(cut_axis(len(ats), count if shared else len(ats)), itertools.cycle(dbiases))
        ]
        parallel_for(reusing_memory(compute, q, 2), each, products=True)
        functools.reduce(operator.iadd, parts)
    dbias = None if bias is None else functools.reduce(operator.iadd, dbiases)
    finite = bool(np.isfinite(totals).all()) if at_once else are_finite(delta, dq, dk)
    return delta, (dq, dk, dv, dbias), finite


def sum_of_channels(a: Array, b: Array) -> Array:
    """Compute Σ_i a_im b_im."""
    return np.einsum("...im,...im->...m", a, b)


def sum_values(v: Array, e: Array) -> tuple[Array, Array]:
    """Add up values by weights, (..., e, M), and the weights, (..., M): within the product where that is quicker."""
    if v.shape[-2] > MAX_FEW_CHANNELS:
        return serial_product(v, transpose(e)), sum_rows(e)
    sums = transpose(serial_product(e, transpose(with_channel(v, 1))))
    return sums[..., :-1, :], sums[..., -1, :]


def sum_rows(e: Array) -> Array:
    """Compute Σ_n e_mn."""
    return np.einsum("...n->...", e)


def exponentials_in_place(z: Array, sink: Array | None) -> tuple[Array, Array, Array]:
    """Return powers of logits less the largest, in their place, sums and logarithms: +∞ where no key is seen."""
    power, logarithm, _ = quick_powers()
    highest = z.max(axis=-1, initial=-np.inf)
    none = highest == -np.inf
    if sink is not None:
        np.maximum(highest, sink, out=highest)
    highest[none] = np.inf  # exp(z - highest) is 0 there
    z -= highest[..., None]
    power(z, out=z)
    total = z.sum(axis=-1)
    if sink is not None:
        total += power(sink - highest)
    total[none] = 1
    return z, total, highest + logarithm(total)
