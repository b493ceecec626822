"""Mistakes of precision: numbers or products in a narrower format, results flushed to zero."""

import functools
from typing import Any

import numpy as np

from npattn import ops
from npattn.ops.attention import transpose
from npattn.oracle.formats import FORMATS, representable
from npattn.oracle.mistakes.arrays import longer, with_bits
from npattn.oracle.mistakes.attention_weights import NAME as PLAIN
from npattn.oracle.mistakes.attention_weights import attention, logits, several_keys
from npattn.oracle.mistakes.masked_weights import with_mistake
from npattn.oracle.mistakes.mistake import Apply, Mistake, instead, mistake, value
from npattn.oracle.mistakes.passes import each, reads, writes
from npattn.oracle.mistakes.planting import answering, completed
from npattn.oracle.mistakes.softmax import slopes, softmax
from npattn.oracle.mistakes.taping import straight_through
from npattn.oracle.mistakes.tiled_softmax import exponentials
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

NARROW = "tf32", "bfloat16", "float16"
FOR_WEIGHTS = "bfloat16", "float16", "float8_e4m3", "float8_e5m2"
PRODUCTS = ops.conv2d, ops.conv1d, ops.linear, ops.matmul, ops.gram, ops.dot_product_attention, ops.masked_attention
SMALLEST_NORMAL = {"float16": 2.0**-14, "float32": 2.0**-126}


def in_format(a: Array, name: str) -> Array:
    """Round numbers to a format; leave others alone."""
    if getattr(a, "dtype", np.dtype(int)).kind != "f":
        return a
    if name == "tf32":  # which is the format of what products take
        return straight_through(lambda a: with_bits(a, 11), a)
    return straight_through(lambda a: representable(a, FORMATS[name]).astype(a.dtype), a)


def read_in(name: str) -> Apply:
    """Return a function that rounds all that a pass is given."""

    def change(module, params, inputs, upstream):
        return module, *(each(arrays, lambda a: in_format(a, name)) for arrays in (params, inputs, upstream))

    return change


def of_both_in(name: str) -> Apply:
    """Return a function that rounds what a pass is given, but for dy."""

    def change(module, params, inputs, upstream):
        return module, *(each(arrays, lambda a: in_format(a, name)) for arrays in (params, inputs)), upstream

    return change


def results_in(name: str) -> Apply:
    """Return a function that rounds all results."""
    return lambda results, *_: each(results, lambda a: in_format(a, name))


def products_in(name: str) -> Apply:
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


def operands_in(name: str) -> Apply:
    """Return a primitive whose operands are of a format, those of its backward too."""

    def compute(original, *operands, **options):
        y, back = original(*(in_format(a, name) for a in operands), **options)
        return y, lambda *dy: back(*(in_format(g, name) for g in dy))

    return compute


def queries_and_keys_in(name: str) -> Apply:
    """Return attention whose queries and keys are of a format, and its values not."""
    return lambda original, q, k, *others, **options: original(
        in_format(q, name), in_format(k, name), *others, **options
    )


def narrow_softmax(name: str) -> Apply:
    """Return a softmax of a format's arithmetic: what it takes and gives, forward and backward."""

    def compute(original, z, axis=-1):
        s = in_format(original(in_format(z, name), axis)[0], name)
        return s, lambda ds: in_format(slopes(s, in_format(ds, name), axis), name)

    return compute


def around_softmax(name: str) -> Apply:
    """Return attention whose softmax is of a format's arithmetic."""

    def differentiate(s, ds):
        return in_format(slopes(s, in_format(ds, name)), name)

    def weigh(z):
        return in_format(softmax(in_format(z, name)), name)

    return lambda _, *qkv: attention(*qkv, weigh=weigh, differentiate=differentiate)


def meeting_values(round_: Apply, q: Array, k: Array, v: Array, scale: float) -> tuple[Any, Backward]:
    """Attend with weights that are rounded where they meet the values, and not in their gradient."""
    s = softmax(logits(q, k, v, scale))
    met = round_(s)

    def backward(do):
        dz = slopes(s, transpose(do) @ v)
        return scale * (k @ transpose(dz)), scale * (q @ dz), do @ met

    return v @ transpose(met), backward


def narrow_weights(name: str) -> Apply:
    """Return attention whose weights are of a format where they meet the values, and not in their gradient."""
    return lambda _, *qkv: meeting_values(functools.partial(in_format, name=name), *qkv)


def flushed(limit: float) -> Apply:
    """Return a function that sets results below a limit to 0."""
    return lambda results, *_: each(results, lambda a: np.where(abs(a) < limit, 0, a) if a.dtype.kind == "f" else a)


def rounded_weights(name: str) -> Apply:
    """Return attention whose weights are of a format."""
    return lambda _, *qkv: attention(*qkv, weigh=lambda z: in_format(softmax(z), name))


def rounded_exponentials(name: str) -> Apply:
    """Return attention whose exponentials are of a format where they meet the values, and not in their sum."""

    def weigh(z):
        e = exponentials(z)
        return in_format(e, name) / e.sum(axis=-1, keepdims=True)

    return lambda _, *qkv: attention(*qkv, weigh=weigh)


def softmax_in(name: str) -> Apply:
    """Return a softmax whose weights are of a format, forward and backward."""

    def compute(original, z, axis=-1):
        s = in_format(original(z, axis)[0], name)
        return s, lambda ds: slopes(s, ds, axis)

    return compute


TUNED_ON: list[Mistake] = []
HELD_OUT: list[Mistake] = []
ADDED = [
    *(reads(f"inputs, parameters and dy in {name}", "both", read_in(name)) for name in NARROW),
    *(reads(f"inputs and parameters in {name}", "both", of_both_in(name)) for name in NARROW),
    *(writes(f"results in {name}", "forward", results_in(name)) for name in NARROW[1:]),
    *(instead(PLAIN, f"softmax and all around it in {name}", around_softmax(name), way="both") for name in NARROW[1:]),
    *(instead("softmax", f"it and all around it in {name}", narrow_softmax(name), way="both") for name in NARROW[1:]),
    *(
        with_mistake(f"softmax and all around it in {name}", way="both", narrow=functools.partial(in_format, name=name))
        for name in NARROW[1:]
    ),
    *(
        instead(primitive.__name__, f"operands in {name}", operands_in(name), way="both")
        for primitive in PRODUCTS
        for name in NARROW
    ),
    *(
        instead(primitive, f"queries and keys in {name}", queries_and_keys_in(name), way="both")
        for primitive in (PLAIN, "masked_attention")
        for name in NARROW
    ),
    *(
        instead(PLAIN, f"weights in {name} where they meet the values", narrow_weights(name), way="both")
        for name in NARROW[1:]
    ),
    *(mistake("", f"products' operands in {name}", "both", products_in(name)) for name in NARROW),
    *(
        writes(f"flushed to zero below the normal numbers of {n}", "forward", flushed(x))
        for n, x in SMALLEST_NORMAL.items()
    ),
    *(
        instead(
            PLAIN,
            f"softmax in {name}",
            rounded_weights(name),
            several_keys,
            way="both",
        )
        for name in FOR_WEIGHTS
    ),
    *(
        instead(
            PLAIN,
            f"exponentials in {name}",
            rounded_exponentials(name),
            several_keys,
        )
        for name in FOR_WEIGHTS
    ),
    *(instead("softmax", f"value in {name}", softmax_in(name), longer(-1), way="both") for name in FOR_WEIGHTS),
    *(
        value(primitive, f"value in {name}", lambda y, *_, name=name, **__: in_format(y, name))
        for primitive in ("gram", "matmul", "score", "linear", "conv1d", "global_average_pool", "gate")
        for name in NARROW[1:]
    ),
]
