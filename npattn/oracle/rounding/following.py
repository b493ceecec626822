"""What a system writes out of primitives, known by its steps, and what a run remembers of them there and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

import numpy as np

from npattn.typing import Array

if TYPE_CHECKING:
    from npattn.oracle.rounding.averages import Gathered, GatheredSum

__all__ = ["FOLLOWED", "Known", "follow", "known_step"]

FOLLOWED: dict[tuple[Callable[..., Any], str], list[Callable[..., object]]] = {}
"""What is called with the arguments of a function, its result and its options, by the function and its method: says
which step of what a primitive is, written out, it was, if any."""
FIRST_STEPS: set[tuple[Callable[..., Any], str]] = {
    (np.exp, "__call__"),
    (np.sqrt, "__call__"),
    (np.power, "__call__"),
    (np.matmul, "__call__"),
    (np.einsum, "__call__"),
    (np.maximum, "reduce"),
    (np.add, "reduce"),
}
"""Those that are looked at though none of their arguments is known."""


class Known:
    """What a run remembers of what a system writes out.

    Attributes
    ----------
    later : list of tuple
        Arrays that backward finds changed: each as it is handed out, what it is, and the factor by which it is off.
    weights, gathered, gathered_sums : list
        Of softmax, and what products have gathered by them.
    logsumexps : list of tuple
        Of what was taken off the logits of a softmax that is written out, and the factor by which the weights are off
        where their logsumexp is rounded.
    kept_sums : list of tuple
        Largest logits, exponentials if they are still there, and the factor by which these are off made of a logsumexp.
    in_backward : bool
        Whether the pass is on its way back.
    drops : bool
        Whether weights of a softmax that is written out have been dropped.
    norms_single : bool
        Whether a norm that is written out has had single values.
    """

    def __init__(self) -> None:
        self.later: list[tuple[Array, Array, np.ndarray]] = []
        self.weights: list[Array] = []
        self.gathered: list[Gathered] = []
        self.gathered_sums: list[GatheredSum] = []
        self.logsumexps: list[tuple[Array | float, np.ndarray]] = []
        self.kept_sums: list[tuple[Array, ReferenceType[Array], np.ndarray]] = []
        self.in_backward = self.drops = self.norms_single = False

    def begin_backward(self, choose: Callable[[], bool]) -> None:
        """Change what backward finds otherwise than forward left it; `Rounding.choose` says which of two ways."""
        self.in_backward = True
        for largest, exponentials, factor in self.kept_sums:
            found = exponentials()
            if found is not None and choose():  # else nothing has been kept for backward
                self.logsumexps.append((largest, factor))
                self.later.append((found, found.copy(), factor))
        for found, kept, factor in self.later:
            np.multiply(kept, factor, out=found)

    def end_backward(self) -> None:
        """Undo that: forward's results may be among it."""
        for found, kept, _ in self.later:
            found[...] = kept
        for done in (self.later, self.weights, self.gathered, self.gathered_sums, self.logsumexps, self.kept_sums):
            done.clear()
        self.in_backward = self.drops = self.norms_single = False


def follow(step: tuple[Callable[..., Any], str], follower: Callable[..., object]) -> None:
    """Have a function's results looked at, as `FOLLOWED` says."""
    FOLLOWED.setdefault(step, []).append(follower)


def known_step(step: tuple[Callable[..., Any], str], *arguments: Any, **options: Any) -> object:
    """Return which step of what a primitive is, written out, a call was; else None."""
    followers = FOLLOWED.get(step)
    if followers is None or not (step in FIRST_STEPS or any(map(is_known, arguments))):
        return None
    made = None
    for follower in followers:
        found = follower(*arguments, **options)
        made = found if made is None else made
    return made


def is_known(a: Any) -> bool:
    """Tell whether an array is a step of what a primitive is, or belongs to a run that has dropped weights."""
    rounding = getattr(a, "rounding", None)
    return rounding is not None and (a.made is not None or rounding.known.drops)
