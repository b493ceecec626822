"""One call of a primitive in a narrower format, as kernels have it: what it reads, what it holds, what it writes.

Each is a form of forward and one of backward. A search tries the forms of forward first, which are few, and those of
backward where one of them explains what forward gives.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from npattn.ops.context import replacing
from npattn.ops.primitive import PRIMITIVES, Primitive
from npattn.oracle.mistakes.attention_weights import NAME as PLAIN
from npattn.oracle.mistakes.attention_weights import attention
from npattn.oracle.mistakes.masked_weights import NAME as MASKED
from npattn.oracle.mistakes.masked_weights import whole
from npattn.oracle.mistakes.mistake import Mistake, mistake
from npattn.oracle.mistakes.passes import reads
from npattn.oracle.mistakes.planting import answering, completed
from npattn.oracle.mistakes.precision import PRODUCTS, in_format, meeting_values, of_both_in, read_in
from npattn.oracle.mistakes.softmax import slopes, softmax

__all__ = ["BACKWARD", "at_call", "at_pass", "backs_of", "forms_of", "in_backward"]

Round = Callable[[Any], Any]

BACKWARD = (), ("dy",), ("gradients",), ("dy", "gradients")
"""What is narrow on the way back."""
OF_WEIGHTS = ("ds",), ("ds", "dz"), ("dy", "ds", "dz", "gradients")
"""And within attention: gradients of the weights, of the logits."""
WORDS = {
    ("x",): "{first} in {format}",
    ("operands",): "operands in {format}",
    ("value",): "value in {format}",
    ("x", "value"): "{first} and value in {format}",
    ("operands", "value"): "operands and value in {format}",
}
"""Forms of forward of every primitive, and what they are called."""
OF_ATTENTION = {
    ("logits", "weights"): "softmax and all around it in {format}",
    ("weights",): "softmax in {format}",
    ("met",): "weights in {format} where they meet the values",
    ("logits",): "logits in {format}",
    ("scaled",): "scaled queries in {format}",
    ("queries and keys",): "queries and keys in {format}",
    ("products",): "products of queries and keys in {format}",
    ("queries and keys", "products"): "queries and keys, and their products, in {format}",
    ("scaled queries", "logits"): "scaled queries, keys and logits in {format}",
    ("scaled queries", "logits", "values", "weights", "value"): "all but softmax in {format}, queries scaled first",
    ("queries and keys", "logits"): "queries, keys and logits in {format}",
    ("operands",): "operands in {format}",
    ("operands", "weights"): "operands and weights in {format}",
    ("value",): "value in {format}",
    ("values", "weights"): "weights and values in {format}",
    ("values", "weights", "value"): "weights, values and value in {format}",
    ("operands", "weights", "value"): "operands, weights and value in {format}",
    ("operands", "products", "weights", "value"): "operands, products, weights and value in {format}",
    ("operands", "logits", "weights", "value"): "operands, logits, weights and value in {format}",
}
"""Forms of forward of attention whose weights are made within it."""
ATTENTION = PLAIN, MASKED
WITHIN = {"products", "logits", "weights", "met"}
"""Parts of forward that no other primitive has."""
MULTIPLYING = (
    *(one.__name__ for one in PRODUCTS),
    *("score", "criss_cross_attention", "linear_attention", "relative_logits", "apply_lambdas", "affinity_sums"),
)
"""Primitives that multiply matrices: their units take operands of a narrow format."""
SOFTMAX_WITHIN = ("criss_cross_attention",)
"""Primitives that call softmax themselves."""


def forms_of(name: str, format: str) -> Iterator[tuple[str, ...]]:
    """List the forms of forward of a primitive, or without a name of a whole pass: what of it is narrow.

    Numbers of tf32 are those that products read alone.
    """
    forms: Iterable[tuple[str, ...]] = OF_ATTENTION if name in ATTENTION else WORDS if name else OF_PASS
    if name in SOFTMAX_WITHIN:
        forms = [*forms, ("softmax",)]
    product = not name or name in MULTIPLYING
    for form in forms:
        if "operands" in form and len(operands_of(name)) == 1:
            continue  # the first argument is all
        operands = not {"value", "products", "logits"} & {*form} and form not in {("weights",), ("met",)}
        if format != "tf32" or (product and operands):
            yield form


def backs_of(name: str, form: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """List what may be narrow on the way back through calls with a form of forward."""
    within = name in ATTENTION and bool(WITHIN & {*form})
    return BACKWARD + (OF_WEIGHTS if within else ())


def at_call(name: str, format: str, form: tuple[str, ...], back: tuple[str, ...]) -> Mistake:
    """Make the mistake of calls in a narrow format.

    Parameters
    ----------
    name : str
        The primitive's.
    format : str
    form, back : tuple of str
        What is narrow in forward, and in backward.
    """
    round_ = functools.partial(in_format, name=format)
    inner = attend if name in ATTENTION else call

    def apply(original: Any, *arguments: Any, **options: Any) -> Any:
        y, backward = inner(original, arguments, options, {*form, *back}, round_)
        value = rounded(y, round_) if "value" in form else y

        def wrong(*dy: Any, accumulate_into: Any = None) -> Any:
            found = backward(*(rounded(dy, round_) if "dy" in back else dy))
            found = rounded(found, round_) if "gradients" in back else found
            return found if accumulate_into is None else accumulate_into + found

        return value, wrong

    return mistake(name, name_of(name, format, form), "both", apply)


in_backward = functools.partial(at_call, form=())
"""The mistake of gradients in a narrow format."""


def name_of(name: str, format: str, form: tuple[str, ...]) -> str:
    """Say what is narrow."""
    words = {(): "gradients in {format}", ("softmax",): "softmax in {format}"}
    words |= OF_ATTENTION if name in ATTENTION else WORDS
    return words[form].format(first=first_argument(name), format=format)


def first_argument(name: str) -> str:
    """Name the first argument of a primitive."""
    return next(iter(operands_of(name)), "x")


def operands_of(name: str) -> list[str]:
    """Name the arguments of a primitive that have to be given."""
    found = next((one for one in PRIMITIVES if one.__name__ == name), None)
    given = {} if found is None else inspect.signature(found.definition).parameters
    return [argument for argument, one in given.items() if one.default is one.empty]


def rounded(value: Any, round_: Round) -> Any:
    """Round the arrays of nested tuples and lists."""
    if isinstance(value, (tuple, list)):
        return type(value)(rounded(one, round_) for one in value)
    return round_(value)


def call(original: Any, arguments: Sequence[Any], options: Any, narrow: set[str], round_: Round) -> Any:
    """Call a primitive with operands that are narrow; of what is read from its own value, that is narrow too."""
    given = [
        rounded(a, round_) if "operands" in narrow or ("x" in narrow and i == 0) else a for i, a in enumerate(arguments)
    ]
    if "softmax" in narrow:
        with replacing(functools.partial(narrow_softmax, round_)):
            return original.definition(*given, **options)
    y, backward = original(*given, **options)
    if "value" in narrow and "gradients" in narrow and original.__name__ in SLOPES:
        slope, read = SLOPES[original.__name__], round_(y)
        return y, lambda dy: slope(read, dy, *arguments[1:], **options)
    return y, backward


SLOPES: dict[str, Callable[..., Any]] = {
    "softmax": slopes,
    "sigmoid": lambda y, dy: dy * y * (1 - y),
}
"""Derivatives that are made from the value."""


def narrow_softmax(round_: Round, primitive: Primitive, arguments: Sequence[Any], options: Any) -> Any:
    """Take a softmax in a narrow format in the place of one."""
    if primitive.__name__ != "softmax":
        return NotImplemented
    s = round_(primitive.definition(round_(arguments[0]), *arguments[1:], **options)[0])
    return s, lambda ds: round_(slopes(s, round_(ds), *arguments[1:], **options))


def attend(original: Any, arguments: Sequence[Any], options: Any, narrow: set[str], round_: Round) -> Any:
    """Call attention, parts of which are narrow."""
    which = {"operands": (0, 1, 2), "queries and keys": (0, 1), "scaled queries": (1,), "values": (2,)}
    read = {i for part in narrow & which.keys() for i in which[part]}
    given = [round_(a) if i in read else a for i, a in enumerate(arguments)]
    if {"scaled", "scaled queries"} & narrow:
        given[0] = round_(given[0] * given[3]) / given[3]
    if not WITHIN & narrow:
        return original(*given, **options)
    products, logits, weights, ds, dz = (
        round_ if part in narrow else exact for part in ("products", "logits", "weights", "ds", "dz")
    )
    if original.__name__ == MASKED:
        in_turn = itertools.chain((logits, weights), itertools.cycle((ds, dz)))  # as forward and backward ask for them
        if "logits" in narrow and options["sink"] is not None:
            options = options | {"sink": round_(options["sink"])}
        met = (lambda s, *_: round_(s)) if "met" in narrow else None

        def rounded_in_turn(a: Any) -> Any:
            return next(in_turn)(a)

        return whole(*given, **options, products=products, met=met, narrow=rounded_in_turn)
    if "met" in narrow:
        return meeting_values(round_, *given)
    scale = given[3]
    return attention(
        *given,
        weigh=lambda z: weights(softmax(logits(scale * products(z / scale)))),
        differentiate=lambda s, gradient: dz(slopes(s, ds(gradient))),
    )


def exact(a: Any) -> Any:
    """Round nothing."""
    return a


def at_pass(format: str, form: tuple[str, ...], back: tuple[str, ...]) -> Mistake:
    """Make the mistake of a whole pass: what it is given is narrow, or all products, as where a framework casts them.

    With "handed on" in `form`, what takes nothing but numbers of the format gives such numbers too, but for softmax.
    """
    if form == ("inputs",):
        given = ("inputs, parameters and dy", read_in) if "dy" in back else ("inputs and parameters", of_both_in)
        return reads(f"{given[0]} in {format}", "both", given[1](format))

    def apply(run: Any, *given: Any) -> Any:
        def spoil(primitive: Any, arguments: Any, options: Any) -> Any:
            name = primitive.__name__
            arguments, options = completed(primitive, arguments, options)
            if name in MULTIPLYING:
                inner = tuple(part for part in form if part != "handed on")
                inner = ("operands", "products", "weights", "value") if name in ATTENTION and "value" in form else inner
            elif "handed on" in form and name != "softmax" and is_narrow(name, arguments, format):
                inner = ("value",)
            else:
                return NotImplemented
            return at_call(name, format, inner, back).apply(primitive, *arguments, **options)

        with answering(spoil):
            return run(*given)

    return mistake("", OF_PASS[form].format(format=format), "both", apply)


OF_PASS = {
    ("inputs",): "inputs and parameters in {format}",
    ("operands",): "products' operands in {format}",
    ("operands", "value"): "products in {format}",
    ("operands", "value", "handed on"): "products in {format}, and what follows them",
}
"""Forms of a whole pass."""


def is_narrow(name: str, arguments: Sequence[Any], format: str) -> bool:
    """Tell whether what a primitive takes, or a norm normalises, is of a format."""
    arrays = [a for a in arguments if getattr(a, "dtype", np.dtype(int)).kind == "f" and np.ndim(a)]
    return bool(arrays) and all(
        np.array_equal(in_format(a, format), a) for a in arrays[: 1 if "norm" in name else None]
    )
