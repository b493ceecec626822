"""Attention without masks, all weights at once, and the ways in which a step of it may be got wrong."""

from npattn.ops.attention import transpose
from npattn.oracle.mistakes.arrays import TILE, both, longer
from npattn.oracle.mistakes.mistake import gradient, instead
from npattn.oracle.mistakes.softmax import slopes, softmax

__all__: list[str] = []  # for the mistakes of this package alone

NAME = "dot_product_attention"
WAYS = "forward", "both"

several_keys, tiles_of_keys, tiles_of_queries = longer(-1, i=1), longer(-1, TILE, 1), longer(-1, TILE)
scaled = both(several_keys, lambda q, k, v, scale: scale != 1)
unscaled = both(several_keys, lambda q, k, v, scale: scale == 1 and q.shape[-2] > 1)
alike = both(several_keys, lambda q, k, v, scale: q.shape == k.shape)


def heads(q, *_, **__):
    return q.ndim == 4 and q.shape[1] > 1


def logits(q, k, v, scale):
    return scale * (transpose(q) @ k)


def attention(*qkv, weigh=softmax, differentiate=slopes):
    """Attention with all weights at once: `weigh` makes weights s of logits z, and `differentiate` dz of s and ds."""
    q, k, v, scale = qkv
    s = weigh(logits(*qkv))

    def backward(do):
        dz = differentiate(s, transpose(do) @ v)
        return scale * (k @ transpose(dz)), scale * (q @ dz), do @ s

    return v @ transpose(s), backward


def weighed(name, weigh, when=several_keys, way="forward"):
    """Take attention with other weights of logits."""
    return instead(NAME, name, lambda _, *qkv: attention(*qkv, weigh=weigh), when, way=way)


def weighed_once(name, weigh, when=several_keys, again=softmax):
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


def differentiated(name, differentiate, when=several_keys):
    """Take attention with other gradients of logits."""
    return instead(NAME, name, lambda _, *qkv: attention(*qkv, differentiate=differentiate), when, way="backward")


def in_tiles(i, name, change, when=several_keys):
    """Make a gradient of weights, and of the gradients of weights and logits: ``change(s, ds, dz, do, q, k)``."""

    def changed(g, do, *qkv):
        q, k, v, scale = qkv
        s, ds = softmax(logits(*qkv)), transpose(do) @ v
        return change(s, ds, scale * slopes(s, ds), do, q, k)

    return gradient(NAME, i, name, changed, when)
