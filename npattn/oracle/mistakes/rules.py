"""Mistakes made by rule, of the primitives that a system calls: so a system that nobody has seen has mistakes too."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.module import as_tuple
from npattn.ops.attention import transpose
from npattn.ops.primitive import Primitive
from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.carrying import carried, in_forward_alone
from npattn.oracle.mistakes.mistake import Mistake, argument, dropped, gradient, instead, mistake, value

__all__ = ["rules_of"]


def rules_of(primitive: Primitive) -> list[Mistake]:
    """List the mistakes that can be made with any primitive.

    A step left out, its sign, two arguments swapped, one transposed, a sum for a mean and the reverse, another axis,
    each carried through backward, and in forward alone; a value in bfloat16; gradients lost, negated, transposed, of
    another size, made with another argument, not added to those that came other ways.

    Parameters
    ----------
    primitive : Primitive

    Returns
    -------
    list of Mistake
        Where one does not fit the shapes of a call, it says so by `Mistake.when`, or raises ValueError.

    Examples
    --------
    >>> from npattn import ops
    >>> [one.name for one in rules_of(ops.relu)][:3]
    ['step left out', 'sign turned', 'sum for mean']
    """
    name = primitive.__name__
    if name == "accumulate":
        return [mistake(name, words, "backward", change, adds) for words, change in ACCUMULATED]
    parameters = inspect.signature(primitive.definition).parameters
    several = any(one.kind is one.VAR_POSITIONAL for one in parameters.values())
    names = [f"term {i}" for i in (1, 2, 3)] if several else list(parameters)
    forward = [value(name, words, change) for words, change in VALUES]
    forward += [argument(name, i, f"{names[i]} transposed", transposed(i), square(i)) for i in range(len(names[:3]))]
    for i, j in ((0, 1), (1, 2)):
        if j < len(names):
            forward.append(instead(name, f"{names[i]} and {names[j]} swapped", swapped(i, j), alike(i, j)))
    if "axis" in parameters:
        forward += [instead(name, f"over axis {axis}", over(axis)) for axis in (-1, 0, 1, 2, 3)]
    if several:
        forward += [instead(name, f"{words} left out", without(i), has(i)) for i, words in enumerate(names)]
    backward = [
        gradient(name, i, f"of {names[i]} {words}", change, has(i))
        for i in range(min(3, len(names)))
        for words, change in GRADIENTS
    ]
    backward += [mistake(name, words, "backward", change) for words, change in NOT_ADDED]
    triples = () if several else itertools.permutations(range(len(names[:3])), 2)
    for (i, k), j in itertools.product(triples, range(len(names[:3]))):
        words = f"of {names[j]} made with {names[k]} in the place of {names[i]}"
        backward.append(instead(name, words, reading(i, k), alike(i, k), way="backward", of=(j,)))
    backward.append(value(name, "value in bfloat16", in_bfloat16))
    return [*map(carried, forward), *map(in_forward_alone, forward), *backward]


def unfit(condition: bool) -> None:
    """Refuse a rule that does not fit a call."""
    if condition:
        raise ValueError("the rule does not fit these shapes")


def left_out(y: Any, x: Any, *_: Any, **__: Any) -> Any:
    """Hand on what was read."""
    unfit(np.shape(y) != np.shape(x))
    return x * 1.0


def by_count(power: int) -> Callable[..., Any]:
    """Multiply by the number of elements that became one, or divide by it."""

    def change(y: Any, x: Any, *_: Any, **__: Any) -> Any:
        unfit(not hasattr(y, "size") or y.size in (0, x.size) or x.size % y.size > 0)
        return y * float(x.size // y.size) ** power

    return change


def negated(y: Any, *_: Any, **__: Any) -> Any:
    """Turn the sign."""
    unfit(not hasattr(y, "shape"))
    return -y


VALUES = (
    ("step left out", left_out),
    ("sign turned", negated),
    ("sum for mean", by_count(1)),
    ("mean for sum", by_count(-1)),
)


def transposed(i: int) -> Callable[..., Any]:
    """Return a function that transposes an argument."""
    return lambda *arguments, **_: transpose(arguments[i])


def square(i: int) -> Callable[..., bool]:
    """Return a function that tells whether an argument is square."""

    def when(*arguments: Any, **_: Any) -> bool:
        shape: tuple[int, ...] = np.shape(arguments[i]) if i < len(arguments) and hasattr(arguments[i], "ndim") else ()
        return len(shape) > 1 and shape[-1] == shape[-2] > 1

    return when


def alike(i: int, j: int) -> Callable[..., bool]:
    """Return a function that tells whether two arguments have one shape."""

    def when(*arguments: Any, **_: Any) -> bool:
        found = [arguments[n] for n in (i, j) if n < len(arguments) and hasattr(arguments[n], "ndim")]
        return len(found) == 2 and found[0].shape == found[1].shape

    return when


def has(i: int) -> Callable[..., bool]:
    """Return a function that tells whether there is an argument of that number."""
    return lambda *arguments, **_: i < len(arguments) and getattr(arguments[i], "dtype", np.dtype(int)).kind == "f"


def swapped(i: int, j: int) -> Callable[..., Any]:
    """Return a function that calls a primitive with two arguments in each other's place."""

    def call(original: Any, *arguments: Any, **options: Any) -> Any:
        turned = list(arguments)
        turned[i], turned[j] = arguments[j], arguments[i]
        return original(*turned, **options)

    return call


def reading(i: int, k: int) -> Callable[..., Any]:
    """Return a function that calls a primitive with an argument in the place of another too."""

    def call(original: Any, *arguments: Any, **options: Any) -> Any:
        return original(*(arguments[k] if n == i else a for n, a in enumerate(arguments)), **options)

    return call


def in_bfloat16(y: Any, *_: Any, **__: Any) -> Any:
    """Write a value in a narrower format."""
    unfit(not hasattr(y, "shape"))
    return arrays.in_bfloat16(y)


def over(axis: int) -> Callable[..., Any]:
    """Return a function that calls a primitive with another axis, where its value has the same shape then."""

    def call(original: Any, *arguments: Any, **options: Any) -> Any:
        bound = inspect.signature(original.definition).bind(*arguments, **options)
        bound.apply_defaults()
        x, own = arguments[0], bound.arguments["axis"]
        unfit(not hasattr(x, "ndim") or not isinstance(own, int) or axis >= x.ndim or axis % x.ndim == own % x.ndim)
        right = original(*arguments, **options)
        bound.arguments["axis"] = axis
        wrong = original(*bound.args, **bound.kwargs)
        unfit(np.shape(right[0]) != np.shape(wrong[0]))
        return wrong

    return call


def without(i: int) -> Callable[..., Any]:
    """Return a function that leaves one of the terms out of a sum."""

    def call(original: Any, *arrays: Any, **options: Any) -> Any:
        return original(*(a * float(i != j) for j, a in enumerate(arrays)), **options)

    return call


def same_shape(change: Callable[..., Any]) -> Callable[..., Any]:
    """Make a change of a gradient alone."""
    return lambda g, *_, **__: change(g)


def turned(g: Any) -> Any:
    """Transpose a square gradient."""
    unfit(np.ndim(g) < 2 or g.shape[-1] != g.shape[-2])
    return transpose(g)


def by_ratio(power: int) -> Callable[..., Any]:
    """Multiply a gradient by how many elements became one, or divide by it."""

    def change(g: Any, dy: Any, *_: Any, **__: Any) -> Any:
        sizes = sorted((np.size(g), np.size(dy)))
        unfit(sizes[0] in (0, sizes[1]) or sizes[1] % sizes[0] > 0)
        return g * float(sizes[1] // sizes[0]) ** power

    return change


def passed_on(g: Any, dy: Any, *_: Any, **__: Any) -> Any:
    """Hand on the gradient that came."""
    unfit(np.shape(g) != np.shape(dy))
    return dy * 1.0


GRADIENTS = (
    ("lost", dropped),
    ("with its sign turned", same_shape(lambda g: -g)),
    ("twice", same_shape(lambda g: 2 * g)),
    ("halved", same_shape(lambda g: g / 2)),
    ("transposed", same_shape(turned)),
    ("summed, not averaged", by_ratio(1)),
    ("averaged, not summed", by_ratio(-1)),
    ("handed on as it came", passed_on),
)


def alone(original: Any, *arguments: Any, **options: Any) -> Any:
    """Lose what came other ways."""
    y, back = original(*arguments, **options)

    def backward(*dy: Any, accumulate_into: Any = None) -> Any:
        unfit(accumulate_into is None)
        return back(*dy)

    return y, backward


def not_added(original: Any, *arguments: Any, **options: Any) -> Any:
    """Lose what a step should add."""
    y, back = original(*arguments, **options)

    def backward(*dy: Any, accumulate_into: Any = None) -> Any:
        unfit(accumulate_into is None)
        found = as_tuple(back(*dy))
        return accumulate_into if len(found) == 1 else (accumulate_into, *found[1:])

    return y, backward


NOT_ADDED = (("of x without what came other ways", alone), ("of x not added to what came other ways", not_added))


def adds(total: Any, other: Any) -> bool:
    """Tell whether there is something to add to."""
    return total is not None


def first_alone(original: Any, total: Any, other: Any) -> Any:
    """Lose the second term."""
    return total * 1.0


def second_alone(original: Any, total: Any, other: Any) -> Any:
    """Lose the first term."""
    return other * 1.0


ACCUMULATED = (
    ("of this step lost where others are added", second_alone),
    ("of other steps not added", first_alone),
)
