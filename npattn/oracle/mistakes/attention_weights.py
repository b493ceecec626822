"""Attention without masks, all weights at once, and the ways in which a step of it may be got wrong."""

from typing import Any

from npattn.ops.attention import transpose
from npattn.oracle.mistakes.arrays import TILE, both, longer
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, gradient, instead
from npattn.oracle.mistakes.softmax import slopes, softmax
from npattn.typing import Array, Backward

__all__: list[str] = []  # for the mistakes of this package alone

NAME = "dot_product_attention"
WAYS = "forward", "both"

several_keys, tiles_of_keys, tiles_of_queries = longer(-1, i=1), longer(-1, TILE, 1), longer(-1, TILE)
scaled = both(several_keys, lambda q, k, v, scale: scale != 1)
unscaled = both(several_keys, lambda q, k, v, scale: scale == 1 and q.shape[-2] > 1)
alike = both(several_keys, lambda q, k, v, scale: q.shape == k.shape)


def heads(q: Array, *_: Any, **__: Any) -> bool:
    return q.ndim == 4 and q.shape[1] > 1


def logits(q: Array, k: Array, v: Array, scale: float) -> Array:
    return scale * (transpose(q) @ k)


def attention(*qkv: Array, weigh: Apply = softmax, differentiate: Apply = slopes) -> tuple[Any, Backward]:
    """Attention with all weights at once: `weigh` makes weights s of logits z, and `differentiate` dz of s and ds."""
    q, k, v, scale = qkv
    s = weigh(logits(*qkv))

    def backward(do):
        dz = differentiate(s, transpose(do) @ v)
        return scale * (k @ transpose(dz)), scale * (q @ dz), do @ s

    return v @ transpose(s), backward


def weighed(name: str, weigh: Apply, when: When = several_keys, way: str = "forward") -> Mistake:
    """Take attention with other weights of logits."""
    return instead(NAME, name, lambda _, *qkv: attention(*qkv, weigh=weigh), when, way=way)


def weighed_once(name: str, weigh: Apply, when: When = several_keys, again: Apply = softmax) -> Mistake:
    """Take other weights in forward alone; backward makes weights `again`, and δ of the output that is there."""

    def other(_, *qkv):
        q, k, v, scale = qkv
        o = v @ transpose(weigh(logits(*qkv)))

        def backward(do):
            s = again(logits(*qkv))
            dz = s * (transpose(do) @ v - (do * o).sum(axis=-2)[..., None])
            return scale * (k @ transpose(dz)), scale * (q @ dz), do @ s

        return o, backward

    return instead(NAME, name, other, when, way="both")


def differentiated(name: str, differentiate: Apply, when: When = several_keys) -> Mistake:
    """Take attention with other gradients of logits."""
    return instead(NAME, name, lambda _, *qkv: attention(*qkv, differentiate=differentiate), when, way="backward")


def in_tiles(i: int, name: str, change: Apply, when: When = several_keys) -> Mistake:
    """Make a gradient of weights, and of the gradients of weights and logits: ``change(s, ds, dz, do, q, k)``."""

    def changed(g, do, *qkv):
        q, k, v, scale = qkv
        s, ds = softmax(logits(*qkv)), transpose(do) @ v
        return change(s, ds, scale * slopes(s, ds), do, q, k)

    return gradient(NAME, i, name, changed, when)
