"""Planting: a fault stands in one call of its primitive, while the system's own code runs around it.

The calls that count are those that a system makes itself, or systems within it. What a primitive calls in turn is its
own affair, forward and backward; but `THROUGH` primitives only hand on to others.
"""

import contextlib
import functools
import inspect

from npattn import ops
from npattn.ops.primitive import replacing

THROUGH = (ops.global_pools,)
"""Primitives whose calls of others count as the system's own: whether they are answered themselves or not."""


@contextlib.contextmanager
def answering(answer):
    """Let ``answer(primitive, arguments, options)`` give the results of a system's own calls, or NotImplemented."""
    inside = False

    def handler(primitive, arguments, options):
        if inside or primitive in THROUGH:
            return NotImplemented
        result = answer(primitive, arguments, options)
        if result is NotImplemented:
            result = primitive(*arguments, **options)
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
def signature(primitive):
    return inspect.signature(primitive)


class Calls:
    """Counts the calls of each primitive, with arguments as its signature has them."""

    def __init__(self):
        self.counts = {}

    def take(self, primitive, arguments, options):
        """Return the number of this call, from 0, and its arguments and options."""
        site = self.counts.get(primitive.__name__, 0)
        self.counts[primitive.__name__] = site + 1
        given = signature(primitive).bind(*arguments, **options)
        given.apply_defaults()
        return site, given.args, given.kwargs


def sites(run, faults, module, *given):
    """Find where faults can stand: run once, and list for each fault the calls of its primitive that it applies to.

    A fault of a whole pass has the one site 0, or none.
    """
    found = {fault: [] for fault in faults}
    calls = Calls()

    def watch(primitive, arguments, options):
        site, arguments, options = calls.take(primitive, arguments, options)
        for fault in faults:
            if fault.primitive == primitive.__name__ and fault.when(*arguments, **options):
                found[fault].append(site)
        return NotImplemented

    with answering(watch):
        run(module, *given)
    for fault in faults:
        if not fault.primitive and fault.when(module, *given):
            found[fault].append(0)
    return {fault: places for fault, places in found.items() if places}


def faulty(run, fault, site):
    """Return `run` with a fault in the call of that number: ``(module, params, inputs, upstream)`` to results."""
    if not fault.primitive:
        return functools.partial(fault.apply, run)

    def wrong(module, *given):
        calls = Calls()

        def spoil(primitive, arguments, options):
            if primitive.__name__ != fault.primitive:
                return NotImplemented
            at, arguments, options = calls.take(primitive, arguments, options)
            return fault.apply(primitive, *arguments, **options) if at == site else NotImplemented

        with answering(spoil):
            return run(module, *given)

    return wrong
