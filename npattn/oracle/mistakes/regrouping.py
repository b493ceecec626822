"""Mistakes in who belongs to which group, half or head, throughout a pass, and in turning a map by its memory."""

from typing import Any

from npattn import ops
from npattn.oracle.mistakes.forwarding import with_steps
from npattn.oracle.mistakes.mistake import Apply, Arrays, When, mistake
from npattn.oracle.mistakes.planting import Run, answering
from npattn.typing import Array

__all__ = ["ADDED"]


def is_of(key: str) -> When:
    """Return a function that tells whether a module is a system."""
    return lambda module, *_: getattr(module, "key", None) == key


def halves_exchanged(*_: Any) -> Apply:
    """Let each half of a group have what is the other's, and go back to its own place before channels are shuffled."""
    sizes: list[int] = []

    def answer(primitive, arguments, options):
        if primitive is ops.split:
            sizes[:] = arguments[1]
            return primitive(*arguments, **options)[0][::-1]
        if primitive is not ops.channel_shuffle:
            return NotImplemented
        x, groups = arguments
        pairs = x.reshape(len(x), x.shape[1] // sum(sizes), len(sizes), sizes[0], *x.shape[2:])
        return primitive(pairs[:, :, ::-1].reshape(x.shape), groups)[0]

    return answer


def interleaved(a: Array) -> Array:
    """Read channels of heads, (B, h, d, N), as if the head counted fastest."""
    return a.reshape(len(a), a.shape[2], a.shape[1], *a.shape[3:]).swapaxes(1, 2)


def joined(a: Array) -> Array:
    """Lay out again what `interleaved` has read, in the shape of heads."""
    return a.swapaxes(1, 2).reshape(a.shape)


def heads_interleaved(*_: Any) -> Apply:
    """Let a head be every so many-th channel, from the first step to the last."""

    def answer(primitive, arguments, options):
        if primitive is ops.softmax:
            return primitive(interleaved(arguments[0]), **options)[0]
        if primitive is not ops.linear_attention:
            return NotImplemented
        q, k, v = arguments[:3]
        return joined(primitive(q, k, interleaved(v), *arguments[3:], **options)[0])

    return answer


def turned(a: Array, axis: int) -> Array:
    """Read memory as if the channels and an axis stood in each other's place."""
    shape = list(a.shape)
    shape[1], shape[axis] = shape[axis], shape[1]
    return a.reshape(shape)


def turned_by_reshape(*_: Any) -> Apply:
    """Turn the map before every pool and gate by a reshape, and back."""
    axes: list[int] = []

    def answer(primitive, arguments, options):
        x = arguments[0]
        if primitive in (ops.max_pool, ops.average_pool):
            axes[:] = [arguments[1]]
            return primitive(turned(x, axes[0]), 1)[0].swapaxes(1, axes[0])
        if primitive is not ops.gate or arguments[1].size == 1:
            return NotImplemented
        return (turned(x, axes[0]) * arguments[1].swapaxes(1, axes[0])).reshape(x.shape)

    return answer


def of_last_head(run: Run, *given: Any) -> Arrays:
    """Let the lambdas of positions learn from the last head alone."""
    left = {}

    def spoil(primitive, arguments, options):
        if primitive is ops.apply_lambdas:
            y, back = primitive(*arguments)
            q, _ = arguments

            def back_apply(dy):
                left["last"] = dy[:, -1, :, None] * q[:, -1, None]
                return back(dy)

            return y, back_apply
        if primitive is not ops.shift:
            return NotImplemented
        y, back = primitive(*arguments, **options)
        return y, lambda dy: (back(left["last"])[0], back(dy)[1])

    with answering(spoil):
        return run(*given)


ADDED = [
    *with_steps("halves of a group exchanged: each has the other's gate", halves_exchanged, is_of("shuffle")),
    *with_steps("heads interleaved among the channels", heads_interleaved, is_of("linear")),
    *with_steps("map turned by a reshape, not by exchanging axes", turned_by_reshape, is_of("triplet")),
    mistake("", "of the lambdas of positions: of the last head alone", "backward", of_last_head, is_of("lambda")),
]
