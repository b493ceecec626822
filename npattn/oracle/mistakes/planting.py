"""Planting: a mistake stands in one call of its primitive, while the system's own code runs around it.

The calls that count are those that a system makes itself, or systems within it. What a primitive calls in turn is its
own affair, forward and backward; but `THROUGH` primitives only hand on to others.
"""

import collections
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from npattn import ops
from npattn.module import Module
from npattn.ops.context import replacing
from npattn.ops.primitive import Primitive
from npattn.oracle.mistakes.mistake import Mistake

__all__ = ["EVERY", "Run", "Site", "answering", "completed", "faulty", "planted", "sites", "stands_in"]

Run = Callable[..., Any]
"""Takes a module, parameters, inputs and upstream gradients, and returns named results."""
Site = int | tuple[int, ...]
"""The number of a call of a mistake's primitive, or those of several."""
EVERY = -1
"""In place of a call's number: every call that a mistake applies to."""
THROUGH = ops.concatenate_and_shuffle, ops.global_pools, ops.project
"""Primitives whose calls of others count as the system's own: whether they are answered themselves or not."""


@contextlib.contextmanager
def answering(answer: Callable[..., Any]) -> Iterator[None]:
    """Let ``answer(primitive, arguments, options)`` give the results of a system's own calls, or NotImplemented."""
    inside = False

    def handler(primitive, arguments, options):
        if inside or primitive in THROUGH:
            return NotImplemented
        result = answer(primitive, arguments, options)
        if result is NotImplemented:
            result = primitive(*arguments, **options)
        if not isinstance(result, tuple) or not callable(result[-1]):
            return result  # a value alone
        value, backward = result
        return value, kept_apart(backward)

    def kept_apart(backward):
        @functools.wraps(backward)
        def call(*gradients, **options):
            nonlocal inside
            before, inside = inside, True
            try:
                return backward(*gradients, **options)
            finally:
                inside = before

        return call

    def hand_on(primitive, arguments, options):
        return answer(primitive, arguments, options) if primitive in THROUGH and not inside else NotImplemented

    with replacing(handler), replacing(hand_on):
        yield


@functools.cache
def signature(primitive: Any) -> inspect.Signature:
    """Look up what a primitive is called with."""
    return inspect.signature(primitive)


def completed(
    primitive: Primitive, arguments: Sequence[Any], options: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments and options as the primitive's signature has them, with defaults."""
    given = signature(primitive.definition).bind(*arguments, **options)
    given.apply_defaults()
    return given.args, given.kwargs


def sites(run: Run, mistakes: Iterable[Mistake], module: Module, *given: Any) -> dict[Mistake, list[int]]:
    """Find where mistakes can stand: run once, and list for each mistake the calls of its primitive that it applies to.

    A mistake of a whole pass has the one site 0, or none.
    """
    found: dict[Mistake, list[int]] = {mistake: [] for mistake in mistakes}
    calls: collections.Counter[str] = collections.Counter()

    def watch(primitive, arguments, options):
        name, (arguments, options) = primitive.__name__, completed(primitive, arguments, options)
        for mistake in mistakes:
            if mistake.primitive == name and mistake.when(*arguments, **options):
                found[mistake].append(calls[name])
        calls[name] += 1
        return NotImplemented

    with answering(watch):
        run(module, *given)
    for mistake in mistakes:
        if not mistake.primitive and mistake.when(module, *given):
            found[mistake].append(0)
    return {mistake: places for mistake, places in found.items() if places}


def stands_in(site: Site, number: int) -> bool:
    """Tell whether a mistake stands in a call."""
    return number in site if isinstance(site, tuple) else site in (number, EVERY)


def faulty(run: Run, mistake: Mistake, site: Site) -> Run:
    """Return `run` with a mistake in the call of that number: ``(module, params, inputs, upstream)`` to results."""
    if not mistake.primitive:
        return functools.partial(mistake.apply, run)

    return planted(run, [(mistake, site)])


def planted(run: Run, places: Sequence[tuple[Mistake, Site]]) -> Run:
    """Return `run` with several mistakes: in primitives each in the call of its number, in several, or in `EVERY`."""
    whole = [mistake for mistake, _ in places if not mistake.primitive]
    if whole:
        inner = planted(run, [(mistake, site) for mistake, site in places if mistake.primitive])
        return functools.reduce(lambda inside, mistake: functools.partial(mistake.apply, inside), whole, inner)

    def wrong(module: Module, *given: Any) -> Any:
        calls: collections.Counter[str] = collections.Counter()

        def spoil(primitive: Primitive, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
            name, number = primitive.__name__, calls[primitive.__name__]
            calls[name] += 1
            here = [(mistake, site) for mistake, site in places if mistake.primitive == name]
            for mistake, site in here:
                if not stands_in(site, number):
                    continue
                arguments, options = completed(primitive, arguments, options)
                if site == number or mistake.when(*arguments, **options):
                    return mistake.apply(primitive, *arguments, **options)
            return NotImplemented

        with answering(spoil):
            return run(module, *given)

    return wrong
