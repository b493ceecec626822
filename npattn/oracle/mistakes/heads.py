"""Mistakes of heads in attention: how channels are cut into heads, and how heads are brought together."""

from typing import Any

import numpy as np

from npattn.ops.attention import transpose
from npattn.oracle.mistakes.attention_weights import NAME, differentiated, heads, weighed
from npattn.oracle.mistakes.mistake import Apply, instead, value
from npattn.oracle.mistakes.softmax import softmax
from npattn.typing import Array, Backward

__all__ = ["ADDED"]

HEADS_INTERLEAVED = "heads interleaved, where they are cut and where they are brought together"


def over_all_heads(s: Array, ds: Array) -> Array:
    """Add up δ over all heads."""
    return s * (ds - (s * ds).sum(axis=(1, 3), keepdims=True))


def merged_interleaved(o: Array) -> Array:
    """Let the head be what counts fastest among the channels of all heads."""
    return o.swapaxes(1, 2).reshape(o.shape)


def interleaved(a: Array) -> Array:
    """Let the head be what counts fastest among the channels that a projection gives."""
    batch, heads, channels, n = a.shape
    return a.reshape(batch, channels, heads, n).swapaxes(1, 2)


def heads_interleaved(
    original: Apply, q: Array, k: Array, v: Array, *others: Any, **options: Any
) -> tuple[Any, Backward]:
    """Cut channels into heads, and bring heads together, as if the head counted fastest."""
    value, backward = original(*map(interleaved, (q, k, v)), *others, **options)
    o, *rest = value if isinstance(value, tuple) else (value,)
    merged = merged_interleaved(o)
    return ((merged, *rest) if rest else merged), backward


def of_head_0(a: Array) -> Array:
    """Let all heads read the first one's."""
    return np.concatenate([a[:, :1]] * a.shape[1], axis=1)


def viewed_across_heads(o: Array) -> Array:
    """Read heads by positions by channels in memory as positions by channels of all heads."""
    batch, heads, channels, positions = o.shape
    return transpose(transpose(o).reshape(batch, positions, heads * channels)).reshape(o.shape)


def one_head_of_keys(original: Apply, q: Array, k: Array, v: Array, scale: float) -> tuple[Any, Backward]:
    return original(q, of_head_0(k), of_head_0(v), scale)


ADDED = [
    differentiated("sum over all heads", over_all_heads, heads),
    value(NAME, "heads brought together interleaved", lambda o, *_: merged_interleaved(o), heads),
    instead(NAME, HEADS_INTERLEAVED, heads_interleaved, heads),
    value(NAME, "heads merged without a transpose", lambda o, *_: viewed_across_heads(o), heads),
    weighed("softmax over heads", lambda z: softmax(z, 1), heads),
    instead(NAME, "keys and values of the first head for all heads", one_head_of_keys, heads),
]
