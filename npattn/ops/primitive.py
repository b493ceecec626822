"""The one opening through which other ways to compute enter: `@primitive`.

A primitive is written once, as its definition. Who calls it is answered by the first of these that has an answer:

1. the first argument's own kind, by NumPy's protocol for functions (NEP 18): a rounding array, a GPU's;
2. who watches or replaces primitives in this context (`replacing`): a trace, a mistake; a kind that is to be watched
   too asks them itself (`ask_handlers`), as rounding arrays do;
3. a faster way that suits the arguments (`Primitive.faster`), unless they are put aside (`definitions`);
4. the definition.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from npattn.ops.context import CONTEXT, ORDINARY
from npattn.scalars import python_scalar

__all__ = ["PRIMITIVES", "Primitive", "Way", "ask_handlers", "primitive"]


@dataclass(frozen=True)
class Way:
    """A faster way to compute a primitive.

    Attributes
    ----------
    compute : callable
        Of the primitive's signature.
    suits : callable
        Takes the same arguments; whether `compute` may take them, and is worth it.
    """

    compute: Callable[..., Any]
    suits: Callable[..., bool]


class Primitive(Protocol):
    """What `@primitive` makes of a definition."""

    __name__: str
    definition: Callable[..., Any]
    ways: list[Way]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Compute it in the way that the call is answered by."""

    def faster(self, suits: Callable[..., bool]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function as a way for arguments that it suits; earlier ones are asked first."""


NUMBERS = {"int", "float", "bool", "tuple", "Sequence", "None"}
"""Words in the type of a parameter that takes a number, or several."""
PLAIN = {int, float, bool}
PRIMITIVES: list[Primitive] = []
"""All primitives, in the order of their definitions."""


def primitive(definition: Callable[..., Any]) -> Primitive:
    """Open a definition to other ways to compute it.

    Parameters
    ----------
    definition : callable
        Takes an array, or several, first; returns ``(value, backward)``, or a value alone where it is only ever a step
        of other primitives.

    Returns
    -------
    Primitive
        Called as `definition` is, which it holds as ``.definition``.

    Examples
    --------
    >>> @primitive
    ... def double(x):
    ...     return 2 * x, lambda dy: 2 * dy
    >>> double(np.float64(4.0))[0]
    np.float64(8.0)
    >>> @double.faster(suits=lambda x: x == 4)
    ... def know(x):
    ...     return np.float64(8.5), lambda dy: 2 * dy
    >>> double(np.float64(4.0))[0]
    np.float64(8.5)
    >>> from npattn import definitions
    >>> with definitions():
    ...     double(np.float64(4.0))[0]
    np.float64(8.0)
    >>> PRIMITIVES.remove(double)
    """
    ways: list[Way] = []
    named = frozenset(names_of(definition))
    numbers = numbers_of(definition)
    ordinary = None if ORDINARY.definitions_only else ORDINARY  # of which one look tells that nothing is to be asked

    @functools.wraps(definition)
    def compute(*arguments: Any, **options: Any) -> Any:
        if numbers:
            arguments, options = with_python_numbers(numbers, arguments, options)
        if arguments and type(arguments[0]) is not np.ndarray:
            result = ask_kind(found, arguments, options)
            if result is not NotImplemented:
                return result
        if CONTEXT.get() is not ordinary:
            return decide(found, *arguments, **options)
        if ways and not named.isdisjoint(options):
            arguments, options = in_order(definition, arguments, options)
        for way in ways:
            if way.suits(*arguments, **options):
                return way.compute(*arguments, **options)
        return definition(*arguments, **options)

    def faster(suits: Callable[..., bool]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def register(way: Callable[..., Any]) -> Callable[..., Any]:
            ways.append(Way(way, suits))
            return way

        return register

    found = cast(Primitive, compute)
    vars(compute).update(definition=definition, ways=ways, faster=faster)
    # What ndarray's own __array_function__ calls for a subclass that leaves a function to it.
    vars(compute).update(_implementation=functools.partial(decide, found))
    PRIMITIVES.append(found)
    return found


def ask_kind(called: Primitive, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Ask the first argument's own kind."""
    kind = type(arguments[0])
    override = getattr(kind, "__array_function__", None)
    return NotImplemented if override is None else override(arguments[0], called, (kind,), arguments, options)


def ask_handlers(called: Primitive, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Ask who watches or replaces primitives in this context, the innermost first.

    An array's own kind that computes a primitive itself does so first, where it is to be watched as others are.

    Parameters
    ----------
    called : Primitive
    arguments : tuple
    options : mapping of str

    Returns
    -------
    result
        NotImplemented where nobody answers.

    Examples
    --------
    >>> from npattn import ops
    >>> ask_handlers(ops.relu, (np.ones(2),), {})
    NotImplemented
    """
    context = CONTEXT.get()
    for i, handler in reversed(list(enumerate(context.handlers))):
        # What a handler calls in turn is shown to those around it, not to itself.
        try:
            CONTEXT.set(context.around[i])
            result = handler(called, arguments, options)
        finally:
            CONTEXT.set(context)
        if result is not NotImplemented:
            return result
    return NotImplemented


def decide(called: Primitive, *arguments: Any, **options: Any) -> Any:
    """Ask all but the array's kind."""
    result = ask_handlers(called, arguments, options)
    if result is not NotImplemented:
        return result
    if CONTEXT.get().definitions_only:
        return called.definition(*arguments, **options)
    arguments, options = in_order(called.definition, arguments, options)
    for way in called.ways:
        if way.suits(*arguments, **options):
            return way.compute(*arguments, **options)
    return called.definition(*arguments, **options)


@functools.cache
def names_of(definition: Callable[..., Any]) -> tuple[str, ...]:
    """List the parameters that may be given by place or by name, in their order."""
    parameters = inspect.signature(definition).parameters.values()
    return tuple(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD)


def numbers_of(definition: Callable[..., Any]) -> dict[str, int]:
    """Give the place of each parameter that is declared a number, or several; -1 where it goes by name alone."""
    parameters = inspect.signature(definition).parameters.values()
    return {
        one.name: -1 if one.kind is one.KEYWORD_ONLY else place
        for place, one in enumerate(parameters)
        if set(re.findall(r"[A-Za-z]+", getattr(one.annotation, "__name__", str(one.annotation)))) <= NUMBERS
    }


def with_python_numbers(
    numbers: Mapping[str, int], arguments: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make Python's numbers of NumPy's among options: these would lift float32 to float64, or count beyond their range.

    Examples
    --------
    >>> with_python_numbers({"scale": 1, "eps": -1}, ("x", np.float64(0.5)), {"eps": np.float32(0.25), "axis": 1})
    (('x', 0.5), {'eps': 0.25, 'axis': 1})
    """
    for name, place in numbers.items():
        given = arguments[place] if 0 <= place < len(arguments) else options.get(name)
        if given is None or type(given) in PLAIN:
            continue
        python = python_scalar(given)
        if python is given:
            continue
        if 0 <= place < len(arguments):
            arguments = (*arguments[:place], python, *arguments[place + 1 :])
        else:
            options = options | {name: python}
    return arguments, options


def in_order(
    definition: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put arguments that are given by name in their places: ways, and what suits them, take them there.

    Examples
    --------
    >>> in_order(lambda x, weight, bias=None, *, stride=1: 0, (1,), {"bias": 3, "weight": 2, "stride": 4})
    ((1, 2, 3), {'stride': 4})
    """
    placed, rest = list(arguments), dict(options)
    for name in names_of(definition)[len(arguments) :]:
        if name not in rest:
            break
        placed.append(rest.pop(name))
    return tuple(placed), rest
