"""What a mistake is, and the ways to make one of a primitive."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npattn.module import as_tuple
from npattn.typing import Array

__all__ = ["Mistake", "always", "argument", "chosen", "dropped", "gradient", "instead", "mistake", "upstream", "value"]

Apply = Callable[..., Any]
"""Stands in a primitive's or a pass's place, or makes another array of one."""
When = Callable[..., bool]
"""Tells whether there is anything to get wrong."""
Arrays = dict[str, Array]
"""Parameters, inputs, upstream gradients or results of a pass, by name."""


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes
    ----------
    primitive : str
        The primitive it stands in; empty if it concerns a whole pass.
    name : str
    way : str
        "forward": in forward alone, backward being that of the right forward; "backward"; "both": backward is computed
        from what forward has read; "carried": backward is the derivative of the wrong forward, as autograd makes it.
        Where backward is right but for what forward has saved: "weights", it reads the wrong weights of a softmax or of
        attention, or the wrong statistics of a norm; of attention alone "logsumexp", it makes weights again by the
        wrong logsumexp, and δ of the wrong output.
        A search has "output" besides: what forward gives is wrong, and every gradient that of the right pass.
    apply : callable
        For a primitive ``apply(primitive, *arguments, **options)``, which returns value and backward as the primitive
        does. For a pass ``apply(run, module, params, inputs, upstream)``, which returns named results; `run` takes the
        same from `module` on and runs the pass as it should be.
    when : callable
        Takes the same arguments without the first: whether there is anything to get wrong.
    plain : callable, optional
        As `apply`, where another gives the same values forward at less cost.

    Notes
    -----
    A primitive's arguments come as its signature has them, with defaults filled in: what may be given by position is.
    """

    primitive: str
    name: str
    way: str
    apply: Apply
    when: When
    plain: Apply | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.primitive or 'pass'}: {self.name}"


def always(*_: Any, **__: Any) -> bool:
    """Tell of any arguments that there is something to get wrong."""
    return True


def mistake(primitive: str, name: str, way: str, apply: Apply, when: When = always) -> Mistake:
    """Make a mistake; one in backward alone says so in its name."""
    return Mistake(primitive, f"gradient: {name}" if way == "backward" else name, way, apply, when)


def instead(
    primitive: str, name: str, other: Apply, when: When = always, *, way: str = "forward", of: Any = None
) -> Mistake:
    """Take another function in the primitive's place: ``other(primitive, *arguments, **options)``.

    Its value and backward count by `way`; in backward its gradients of all arguments, or of those with the numbers
    `of`.
    """

    def apply(original, *arguments, **options):
        wrong, back_wrong = other(original, *arguments, **options)
        if way in ("both", "weights"):
            return wrong, back_wrong
        right, back_right = original(*arguments, **options)
        if way == "forward":
            return wrong, back_right
        if of is None:
            return right, back_wrong
        return right, lambda *dy: chosen(of, back_wrong(*dy), back_right(*dy))

    return mistake(primitive, name, way, apply, when)


def chosen(of: Sequence[int], wrong: Sequence[Any], right: Sequence[Any]) -> tuple[Any, ...]:
    """Take the wrong gradients of the arguments `of`, the right ones of the others."""
    return tuple(wrong[i] if i in of else gradient for i, gradient in enumerate(right))


def argument(
    primitive: str, i: int | str, name: str, change: Apply, when: When = always, *, way: str = "forward", of: Any = None
) -> Mistake:
    """Let a primitive read something else: ``change(*arguments, **options)`` makes the argument of number or name `i`.

    In backward, gradients are computed from what was read, as in `instead`.
    """

    def other(original, *arguments, **options):
        changed = change(*arguments, **options)
        if isinstance(i, str):
            return original(*arguments, **options | {i: changed})
        return original(*arguments[:i], changed, *arguments[i + 1 :], **options)

    return instead(primitive, name, other, when, way=way, of=of)


def value(primitive: str, name: str, change: Apply, when: When = always) -> Mistake:
    """Change a primitive's value: ``change(value, *arguments, **options)``."""

    def apply(original, *arguments, **options):
        right, backward = original(*arguments, **options)
        return change(right, *arguments, **options), backward

    return mistake(primitive, name, "forward", apply, when)


def gradient(primitive: str, i: int | None, name: str, change: Apply, when: When = always) -> Mistake:
    """Change the gradient of argument `i`, or, if that is None, the tuple of all.

    ``change(gradient, dy, *arguments, **options)`` returns what is there instead; of several dy it is given the first.
    """

    def apply(original, *arguments, **options):
        right, backward = original(*arguments, **options)

        def wrong(*dy, accumulate_into=None):
            found = backward(*dy)
            if i is None:
                return change(found, dy[0], *arguments, **options)
            gradients = list(as_tuple(found))
            gradients[i] = change(gradients[i], dy[0], *arguments, **options)
            if isinstance(found, tuple):
                return tuple(gradients)
            return gradients[0] if accumulate_into is None else accumulate_into + gradients[0]

        return right, wrong

    return mistake(primitive, name, "backward", apply, when)


def upstream(primitive: str, of: Any, name: str, change: Apply, when: When = always) -> Mistake:
    """Compute the gradients of arguments `of`, None for all, from another dy: ``change(dy, *arguments, **options)``."""

    def apply(original, *arguments, **options):
        right, backward = original(*arguments, **options)

        def wrong(dy, *others):
            found = backward(change(dy, *arguments, **options), *others)
            return found if of is None else chosen(of, found, backward(dy, *others))

        return right, wrong

    return mistake(primitive, name, "backward", apply, when)


def dropped(g: Any, *_: Any, **__: Any) -> Any:
    """Return zeros: a gradient that is lost."""
    return np.zeros_like(g)
