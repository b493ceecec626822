"""In which order wrong results are to be looked at: those of forward first, and what right ones exclude."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from npattn.oracle.diagnosis.axes import list_words

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["read_order"]


def read_order(case: Case, right: Collection[str], wrong: Collection[str]) -> str:
    """Say where to look first, given which results are right and which are wrong; nothing where that says nothing.

    Parameters
    ----------
    case : Case
    right, wrong : collection of str
        Names of results.

    Returns
    -------
    str

    Examples
    --------
    >>> import npattn
    >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=3, width=3)
    >>> read_order(case, ["conv.weight.grad"], ["output", "x.grad"])
    'output is wrong: gradients follow from it'
    >>> read_order(case, ["output"], ["x.grad", "conv.weight.grad"])
    'output is right: the forward pass is; the fault is in backward'
    >>> read_order(case, ["output", "x.grad"], ["conv.weight.grad"])
    'output and x.grad are right: the fault is in backward, in conv.weight.grad alone'
    """
    order = list(case.expected)
    outputs = [name for name in case.upstream if name in order]
    others = [name for name in order if not name.endswith(".grad") and name not in outputs]
    gradients = [name for name in order if name.endswith(".grad")]
    maps = [name for name in others if name in case.maps]
    wrong_outputs = [name for name in outputs if name in wrong]
    wrong_maps = [name for name in maps if name in wrong]
    if wrong_outputs:
        if wrong_maps:
            follow = f"{list_words(wrong_outputs)} and gradients follow from {pronoun(wrong_maps)}"
            return f"{list_words(wrong_maps)} {verb(wrong_maps)} wrong: {follow}"
        known = [name for name in maps if name in right]
        beyond = f"; {list_words(known)} {verb(known)} right: the fault is elsewhere in forward" if known else ""
        followed = f": gradients follow from {pronoun(wrong_outputs)}"
        follow = followed if any(name in wrong for name in gradients) else ""
        if not (beyond or follow):
            return ""
        return f"{list_words(wrong_outputs)} {verb(wrong_outputs)} wrong{follow}{beyond}"
    wrong_gradients = [name for name in gradients if name in wrong]
    if not wrong_gradients or not outputs or any(name not in right for name in outputs):
        return ""
    right_gradients = [name for name in gradients if name in right]
    if right_gradients and len(right_gradients) + len(wrong_gradients) == len(gradients):
        told = [*outputs, *right_gradients]
        subject = list_words(told) if len(told) <= 4 else f"output and {len(right_gradients)} gradients"
        alone = f", in {list_words(wrong_gradients)} alone" if len(wrong_gradients) <= 2 else ""
        return f"{subject} are right: the fault is in backward{alone}"
    return f"{list_words(outputs)} {verb(outputs)} right: the forward pass is; the fault is in backward"


def pronoun(names: Collection[str]) -> str:
    """Return what stands for one or several."""
    return "it" if len(names) == 1 else "them"


def verb(names: Collection[str]) -> str:
    """Return the verb of one or several."""
    return "is" if len(names) == 1 else "are"
