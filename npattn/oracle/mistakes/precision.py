"""Mistakes of precision: numbers or products in a narrower format, results flushed to zero."""

import numpy as np

from npattn import ops
from npattn.oracle.formats import FORMATS, representable
from npattn.oracle.mistakes import attention
from npattn.oracle.mistakes.arrays import longer, with_bits
from npattn.oracle.mistakes.mistake import Mistake, instead, mistake, value
from npattn.oracle.mistakes.passes import each, reads, writes
from npattn.oracle.mistakes.planting import answering, completed
from npattn.oracle.mistakes.softmax import softmax
from npattn.oracle.mistakes.taping import straight_through

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

NARROW = "tf32", "bfloat16", "float16"
FOR_WEIGHTS = "bfloat16", "float16", "float8_e4m3", "float8_e5m2"
PRODUCTS = ops.conv2d, ops.conv1d, ops.linear, ops.matmul, ops.gram, ops.dot_product_attention, ops.masked_attention
SMALLEST_NORMAL = {"float16": 2.0**-14, "float32": 2.0**-126}


def in_format(a, name):
    """Round numbers to a format; leave others alone."""
    if getattr(a, "dtype", np.dtype(int)).kind != "f":
        return a
    if name == "tf32":  # which is the format of what products take
        return straight_through(lambda a: with_bits(a, 11), a)
    return straight_through(lambda a: representable(a, FORMATS[name]).astype(a.dtype), a)


def read_in(name):
    """Return a function that rounds all that a pass is given."""

    def change(module, params, inputs, upstream):
        return module, *(each(arrays, lambda a: in_format(a, name)) for arrays in (params, inputs, upstream))

    return change


def products_in(name):
    """Return a function that runs a pass whose products take operands of a format."""

    def apply(run, *given):
        def spoil(primitive, arguments, options):
            if primitive not in PRODUCTS:
                return NotImplemented
            arguments, options = completed(primitive, arguments, options)
            y, back = primitive(*(in_format(a, name) for a in arguments), **options)
            return y, lambda *dy: back(*(in_format(g, name) for g in dy))

        with answering(spoil):
            return run(*given)

    return apply


def flushed(limit):
    """Return a function that sets results below a limit to 0."""
    return lambda results, *_: each(results, lambda a: np.where(abs(a) < limit, 0, a) if a.dtype.kind == "f" else a)


def rounded_weights(name):
    """Return attention whose weights are of a format."""
    return lambda _, *qkv: attention.attention(*qkv, weigh=lambda z: in_format(softmax(z), name))


def rounded_exponentials(name):
    """Return attention whose exponentials are of a format where they meet the values, and not in their sum."""

    def weigh(z):
        e = attention.exponentials(z)
        return in_format(e, name) / e.sum(axis=-1, keepdims=True)

    return lambda _, *qkv: attention.attention(*qkv, weigh=weigh)


def softmax_in(name):
    """Return a softmax whose weights are of a format, forward and backward."""

    def compute(original, z, axis=-1):
        s = in_format(original(z, axis)[0], name)
        return s, lambda ds: s * (ds - (s * ds).sum(axis=axis, keepdims=True))

    return compute


TUNED_ON: list[Mistake] = []
HELD_OUT: list[Mistake] = []
ADDED = [
    *(reads(f"inputs, parameters and dy in {name}", "both", read_in(name)) for name in NARROW),
    *(mistake("", f"products' operands in {name}", "both", products_in(name)) for name in NARROW),
    *(
        writes(f"flushed to zero below the normal numbers of {n}", "forward", flushed(x))
        for n, x in SMALLEST_NORMAL.items()
    ),
    *(
        instead(attention.NAME, f"softmax in {name}", rounded_weights(name), attention.several_keys, way="both")
        for name in FOR_WEIGHTS
    ),
    *(
        instead(attention.NAME, f"exponentials in {name}", rounded_exponentials(name), attention.several_keys)
        for name in FOR_WEIGHTS
    ),
    *(instead("softmax", f"in {name}", softmax_in(name), longer(-1), way="both") for name in FOR_WEIGHTS),
    *(
        value(primitive, f"in {name}", lambda y, *_, name=name, **__: in_format(y, name))
        for primitive in ("gram", "matmul", "score", "linear", "conv1d", "global_average_pool", "gate")
        for name in NARROW[1:]
    ),
]
