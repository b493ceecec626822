"""Softmax attention of many queries and keys."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.fast.blas import add_product, is_small_product, multiply, serial_product
from npattn.fast.blocks import MIN_PARALLEL_SIZE, NUM_BLOCKS, are_machine_floats, cut_axis
from npattn.fast.machine import NUM_CORES, quick_powers
from npattn.fast.threads import Memory, parallel_for, reusing_memory
from npattn.ops.attention import dot_product_attention, transpose
from npattn.typing import Array, Backward

BLOCK_LOGITS, MIN_QUERIES = 2**19, 64
"""Logits in a block of the forward pass, few enough to stay in a core's cache, and queries at least."""
BLOCK_QUERIES, BLOCK_KEYS = 576, 768
"""Queries and keys in a block of the backward pass at most."""
NUM_BLOCKS_OF_SEVERAL = min(NUM_BLOCKS, 2 * NUM_CORES)
"""Blocks, about, of images and heads with few logits: after each step of a block a thread waits for the interpreter."""
MAX_FEW_CHANNELS = 127
"""Channels up to which products have too few rows to be quick, and passes over the weights count beside them."""
SAFE_LOGIT = 40.0
"""Size of logits up to which no exponential, nor a sum of them, leaves the range or loses digits in float32."""


def is_worth_blocks(q: Array, k: Array, v: Array, scale: float = 1.0) -> bool:
    """Tell whether there are many logits, of the machine's floats, and no shapes that the definition refuses."""
    if type(q) is not np.ndarray or 0 < q.size * k.size < MIN_PARALLEL_SIZE:
        return False
    if not (q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and k.shape[-1] == v.shape[-1]):
        return False
    logits = math.prod(q.shape[:-1]) // max(1, q.shape[-2]) * q.shape[-1] * k.shape[-1]
    return logits >= MIN_PARALLEL_SIZE and are_machine_floats(q, k, v)


@dot_product_attention.faster(suits=is_worth_blocks)
def attention_in_blocks(q: Array, k: Array, v: Array, scale: float = 1.0) -> tuple[Array, Backward]:
    """Attend block by block, on all cores.

    A block of the forward pass holds some queries, which attend to all keys; where that is little, those of several
    images or heads. The backward pass takes one block of queries after the other. Its blocks add to dk and dv of
    different keys, so that they can be computed at the same time, in any order.
    """
    shapes = q.shape, k.shape, v.shape
    lead, queries, keys = q.shape[:-2] or (1,), q.shape[-1], k.shape[-1]
    q, k, v = (a.reshape(*lead, *a.shape[-2:]) for a in (q, k, v))
    power, logarithm, unit = quick_powers()
    scaled = scale * unit * q
    o = np.empty_like(q, shape=(*lead, v.shape[-2], queries))
    log_sum_exp = np.empty_like(q, shape=(*lead, queries))
    safe = are_safe(scaled, k, unit)
    summing = with_channel(v, 1) if v.shape[-2] <= MAX_FEW_CHANNELS else None

    def attend(block, memory):
        at, m = block
        e = product_in(memory, transpose(scaled[at][..., m]), k[at])
        highest = None if safe else e.max(axis=-1, keepdims=True)
        if highest is not None:
            e -= highest
        power(e, out=e)
        if summing is None:
            average, total = serial_product(v[at], transpose(e)), e.sum(axis=-1)
        else:  # a channel of ones sums the weights within the product
            sums = transpose(serial_product(e, transpose(summing[at])))
            average, total = sums[..., :-1, :], sums[..., -1, :]
        np.divide(average, total[..., None, :], out=o[at][..., m])
        log_sum_exp[at][..., m] = logarithm(total) if highest is None else highest[..., 0] + logarithm(total)

    forward_blocks, backward_blocks = blocks_of_attention(lead, queries, keys)
    parallel_for(reusing_memory(attend, q, 1), forward_blocks, products=True)

    def backward(do):
        do = do.reshape(o.shape)
        dq, dk, dv = (np.empty_like(a, order="C") for a in (q, k, v))
        delta = (do * o).sum(axis=-2)  # Σ_n s_mn ds_mn, without the weights
        shifted_logits = product_less(scaled, k, log_sum_exp)
        shifted_ds = product_less(do, v, delta)

        def differentiate(block, first, second):
            at, m, n, part = block
            s = shifted_logits(at, m, n, first)
            power(s, out=s)
            if m.start == 0:
                dk[at][..., n], dv[at][..., n] = 0, 0
            add_product(do[at][..., m], s, dv[at][..., n], second)
            dz = shifted_ds(at, m, n, second)
            dz *= s
            np.multiply(sum_columns(k[at][..., n], dz, first), scale, out=part[at])
            add_product(scaled[at][..., m], dz, dk[at][..., n], first)
            if m.stop == queries:
                dk[at][..., n] /= unit

        compute = reusing_memory(differentiate, q, 2)
        for m, columns in backward_blocks:
            parts = [dq[..., m], *(np.empty_like(q[..., m]) for _ in columns[1:])]  # to be added up
            each = [(at, m, n, part) for (n, ats), part in zip(columns, parts, strict=True) for at in ats]
            parallel_for(compute, each, products=True)
            functools.reduce(operator.iadd, parts)
        return tuple(a.reshape(shape) for a, shape in zip((dq, dk, dv), shapes, strict=True))

    return o.reshape(*shapes[0][:-2], *o.shape[-2:]), backward


def are_safe(q: Array, k: Array, unit: float = 1) -> bool:
    """Tell whether |q| |k| keeps all logits so small that no maximum has to be taken off before the exponential."""
    with np.errstate(over="ignore", invalid="ignore"):
        longest = [np.sqrt((a * a).sum(axis=-2).max(initial=0)) for a in (q, k)]
        return bool(longest[0] * longest[1] <= SAFE_LOGIT * unit)  # false for NaN


def blocks_of_attention(lead: tuple[int, ...], queries: int, keys: int) -> tuple[list[Any], list[Any]]:
    """Cut the work into blocks by its shape alone: those of the forward pass, and of the backward pass by queries."""
    logits = math.prod(lead) * queries * keys
    size, several = (min(BLOCK_LOGITS, logits // count) for count in (NUM_BLOCKS, NUM_BLOCKS_OF_SEVERAL))
    rows = cut_evenly(queries, max(MIN_QUERIES, size // keys))
    columns = cut_evenly(keys, BLOCK_KEYS)

    def of_several(m, n):
        return cut_lead(lead, several // ((m.stop - m.start) * (n.stop - n.start)))

    forward = [(at, m) for m in rows for at in of_several(m, slice(0, keys))]
    one_by_one = cut_axis(queries, -(-queries // BLOCK_QUERIES))
    backward = [(m, [(n, of_several(m, n)) for n in columns]) for m in one_by_one]
    return forward, backward


def cut_lead(lead: tuple[int, ...], most: int) -> list[Any]:
    """Cut leading axes into blocks of so many matrices at most, at least one."""
    most = max(1, most)
    inner = [max(1, math.prod(lead[axis + 1 :])) for axis in range(len(lead))]
    axis = next(axis for axis, matrices in enumerate(inner) if matrices <= most)
    step = most // inner[axis]
    return [(*outer, slice(i, i + step)) for outer in np.ndindex(lead[:axis]) for i in range(0, lead[axis], step)]


def cut_evenly(length: int, most: int) -> list[slice]:
    """Cut an axis into parts of the same length, nearly; if into several, into an even number, as cores come."""
    count = -(-length // most)
    count += count > 1 and count % 2
    step = max(1, -(-length // max(1, count)))
    return [slice(i, min(i + step, length)) for i in range(0, length, step)]


def product_in(memory: Memory, a: Array, b: Array) -> Array:
    """Multiply matrices as `serial_product` does, into memory that is used again and again."""
    return multiply(a, b, out=memory((*a.shape[:-1], b.shape[-1])))


def product_less(a: Array, b: Array, c: Array) -> Callable[..., Array]:
    """Return how to compute a block of Σ_i a_im b_in - c_m: ``compute(at, m, n, memory)``."""
    if a.shape[-2] <= MAX_FEW_CHANNELS:
        a, b = with_channel(a, -c[..., None, :]), with_channel(b, 1)
        return lambda at, m, n, memory: product_in(memory, transpose(a[at][..., m]), b[at][..., n])
    return lambda at, m, n, memory: difference_in(memory, a[at][..., m], b[at][..., n], c[at][..., m])


def difference_in(memory: Memory, a: Array, b: Array, c: Array) -> Array:
    """Compute Σ_i a_im b_in - c_m. Where that is quicker, an extra channel, -c in a and 1 in b, takes c off."""
    if a.shape[-2] <= MAX_FEW_CHANNELS:
        return product_in(memory, transpose(with_channel(a, -c[..., None, :])), with_channel(b, 1))
    a = transpose(a)
    if is_small_product(a, b):
        block = product_in(memory, a, b)
        block -= c[..., None]
        return block
    block = np.negative(c[..., None], out=memory((*a.shape[:-1], b.shape[-1])))
    return add_product(a, b, block)


def with_channel(a: Array, channel: Array | float) -> Array:
    """Lay one more channel below the others."""
    wider = np.empty_like(a, shape=(*a.shape[:-2], a.shape[-2] + 1, a.shape[-1]), order="C")
    wider[..., :-1, :] = a
    wider[..., -1:, :] = channel
    return wider


def sum_columns(a: Array, weights: Array, memory: Memory | None = None) -> Array:
    """Add up columns by weights: Σ_n a_n w_mn, (..., e, N) and (..., M, N) to (..., e, M).

    BLAS is quicker, up to twice, at many rows and few columns than at few rows and many columns.
    """
    product = serial_product if memory is None else functools.partial(product_in, memory)
    if a.shape[-2] > MAX_FEW_CHANNELS:
        return product(a, transpose(weights))
    return transpose(product(weights, transpose(a)))
