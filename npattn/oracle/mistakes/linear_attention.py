"""Mistakes in attention without a softmax between queries and keys."""

from typing import Any

import numpy as np

from npattn.ops.attention import transpose
from npattn.oracle.mistakes.arrays import both, longer, without_last, without_tail
from npattn.oracle.mistakes.attention_weights import heads
from npattn.oracle.mistakes.families import IMAGE_0_FOR_ALL, ROW_TAIL, ROW_TAILS
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, argument, dropped, gradient, instead, value
from npattn.oracle.mistakes.softmax import softmax
from npattn.typing import Array, Backward

__all__ = ["ADDED"]

NAME = "linear_attention"
several_keys = longer(-1, i=1)
scaled = both(several_keys, lambda q, k, v, scale: scale != 1)
alike = both(several_keys, lambda q, k, v, scale: q.shape == k.shape)
square = both(several_keys, lambda q, k, v, scale: k.shape[-2] == v.shape[-2] > 1)


def gathered(q: Array, k: Array, v: Array, scale: float) -> Array:
    """Return what the keys gather, before a query reads it."""
    return scale * (v @ transpose(k))


def scale_left_out(original: Apply, q: Array, k: Array, v: Array, scale: float) -> tuple[Any, Backward]:
    """Leave the scale out of the gradients of keys and values."""
    right, backward = original(q, k, v, scale)

    def unscaled(do):
        dq, dk, dv = backward(do)
        return dq, dk / scale, dv / scale

    return right, unscaled


def up_to_its_own(o: Array, q: Array, k: Array, v: Array, scale: float) -> Array:
    """Let every query see the keys up to its own."""
    seen = np.tri(q.shape[-1], k.shape[-1], dtype=k.dtype)
    return v @ transpose(scale * (transpose(q) @ k) * seen)


def with_weights(o: Array, q: Array, k: Array, v: Array, scale: float) -> Array:
    return v @ transpose(softmax(scale * (transpose(q) @ k)))


def divisor(q: Array, k: Array, scale: float) -> Array:
    """Return the sum of each query's products with all keys."""
    return transpose(scale * (transpose(q) @ k.sum(axis=-1, keepdims=True)))


def fewer_keys(name: str, change: Apply, when: When) -> Mistake:
    return value(NAME, name, lambda o, q, k, v, scale: gathered(q, change(k, 1), v, scale) @ q, when)


def in_parts(i: int, name: str, change: Apply, when: When = several_keys) -> Mistake:
    """Make a gradient of that of the context: ``change(dcontext, k, v)``."""

    def changed(g, do, *qkv):
        q, k, v, scale = qkv
        return change(scale * (do @ transpose(q)), k, v)

    return gradient(NAME, i, name, changed, when)


def several_images(q: Array, *_: Any) -> bool:
    return len(q) > 1


def are_weights(q: Array, k: Array, *_: Any) -> bool:
    """Whether keys add up to 1, as a softmax leaves them."""
    return bool(np.allclose(k.sum(axis=-1), 1))


def exponentials(s: Array) -> Array:
    """Return what a softmax has not yet divided, but for the maximum."""
    return s / s.max(axis=-1, keepdims=True)


def context_misread(o: Array, q: Array, k: Array, v: Array, scale: float) -> Array:
    """Read the context, (values, keys), in memory as (keys, values)."""
    g = gathered(q, k, v, scale)
    return transpose(g.reshape(*g.shape[:-2], g.shape[-1], g.shape[-2])) @ q


def context_of_image_0(o: Array, q: Array, k: Array, v: Array, scale: float) -> Array:
    g = gathered(q, k, v, scale)
    return (g[:1] + 0 * g) @ q


def of_last_context(g: Array, do: Array, *qkv: Array) -> Array:
    return transpose(gathered(*qkv)[-1:]) @ do


def tails() -> list[Mistake]:
    """Leave keys out that are not in whole tiles, of several sizes."""
    return [
        fewer_keys(family.name, lambda a, _, f=family: f.change(a), lambda q, k, *_, f=family: f.when(k))
        for family in ROW_TAILS
    ]


ADDED = [
    *tails(),
    argument(NAME, 3, "scaled by 1/√d", lambda q, k, *_: k.shape[-2] ** -0.5, lambda *qkv: not scaled(*qkv)),
    gradient(NAME, None, "scale missing in all gradients", lambda g, do, *qkv: tuple(d / qkv[3] for d in g), scaled),
    value(
        NAME,
        "context's memory read as (keys, values)",
        context_misread,
        lambda q, k, v, _: min(k.shape[-2], v.shape[-2]) > 1,
    ),
    value(NAME, "context of image 0 for all", context_of_image_0, several_images),
    gradient(NAME, 0, "dq by the context of the last image", of_last_context, several_images),
    in_parts(1, "dk by the first head's values", lambda dc, k, v: transpose(dc) @ v[:, :1], heads),
    in_parts(2, "dv by the first head's keys", lambda dc, k, v: dc @ k[:, :1], heads),
    in_parts(2, "dv by exponentials, not divided by their sum", lambda dc, k, v: dc @ exponentials(k), are_weights),
    argument(NAME, 3, "missing scale", lambda *_: 1.0, scaled),
    argument(NAME, 3, "scale twice", lambda q, k, v, scale: scale**2, scaled),
    argument(NAME, 3, "divided by the number of keys", lambda q, k, v, scale: scale / k.shape[-1], several_keys),
    instead(NAME, "scale missing in dk and dv", scale_left_out, scaled, way="backward"),
    instead(NAME, "queries and keys swapped", lambda exact, q, k, v, scale: exact(k, q, v, scale), alike),
    instead(NAME, "keys and values swapped", lambda exact, q, k, v, scale: exact(q, v, k, scale), square),
    value(NAME, "context transposed", lambda o, *qkv: transpose(gathered(*qkv)) @ qkv[0], square),
    value(NAME, "softmax of the products", with_weights, several_keys),
    value(NAME, "causal: each query up to its own key", up_to_its_own, several_keys),
    value(NAME, "divided by the sum of the products", lambda o, q, k, v, scale: o / divisor(q, k, scale), several_keys),
    fewer_keys("last key forgotten", without_last, several_keys),
    fewer_keys("last tile ignored", without_tail, lambda q, k, *_: ROW_TAIL.when(k)),
    *(IMAGE_0_FOR_ALL.in_argument(NAME, i, f"{words} of image 0 for all") for i, words in ((1, "keys"), (2, "values"))),
    *(gradient(NAME, i, f"{name} dropped", dropped) for i, name in enumerate(("dq", "dk", "dv"))),
    gradient(NAME, None, "dq and dk swapped", lambda g, *_: (g[1], g[0], g[2]), alike),
    gradient(NAME, None, "dk and dv swapped", lambda g, *_: (g[0], g[2], g[1]), square),
    gradient(NAME, 0, "dq by the transposed context", lambda g, do, *qkv: gathered(*qkv) @ do, square),
]
