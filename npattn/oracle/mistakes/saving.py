"""Mistakes in attention's forward pass that backward reads in what was saved, and is right but for that."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from npattn.oracle.mistakes.attention_weights import NAME as PLAIN
from npattn.oracle.mistakes.masked_weights import NAME, whole
from npattn.oracle.mistakes.mistake import Mistake

__all__ = ["by_saved_sums", "leaves_sums"]

NOTHING: dict[str, Any] = dict.fromkeys(("softcap", "bias", "sink", "lengths", "mask")) | {"band": (None, None)}
"""Options of attention where it has none."""


def leaves_sums(mistake: Mistake) -> bool:
    """Tell of a mistake whether it is one in the forward pass of attention."""
    return mistake.way == "forward" and mistake.primitive in (NAME, PLAIN)


def by_saved_sums(mistake: Mistake) -> Mistake:
    """Let backward make the weights again, rightly, by the logsumexp and the output that a wrong forward has saved.

    So do kernels whose forward pass keeps no weights: their backward pass is a kernel of its own. A primitive that
    returns no logsumexp has that of what it reads, rightly or wrongly.

    Parameters
    ----------
    mistake : Mistake
        One that `leaves_sums`.

    Returns
    -------
    Mistake
        Of the same name.
    """

    def apply(original: Any, *arguments: Any, **options: Any) -> Any:
        calls: list[Any] = []

        @functools.wraps(original)
        def remembering(*given: Any, **named: Any) -> Any:
            calls.append((given, named))
            return original(*given, **named)

        value, _ = mistake.apply(remembering, *arguments, **options)
        if isinstance(value, tuple):
            _, backward = whole(*arguments, **options, saved=value)
            return value, backward
        (_, log_sum), _ = whole(*(calls[0][0] if calls else arguments), **NOTHING)
        _, backward = whole(*arguments, **NOTHING, saved=(value, log_sum))
        return value, lambda do: backward(do)[:3]

    return dataclasses.replace(mistake, way="logsumexp", apply=apply, plain=mistake.apply)
