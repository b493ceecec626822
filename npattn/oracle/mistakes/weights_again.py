"""Mistakes in backward where it makes attention's weights again, from the logsumexp that forward has saved."""

import math
from typing import Any

import numpy as np

from npattn.oracle.mistakes.attention_weights import NAME as PLAIN
from npattn.oracle.mistakes.masked_weights import NAME, given, hides, pairs_seen, whole
from npattn.oracle.mistakes.masking import (
    aligned_band,
    aligned_otherwise,
    has_first,
    has_last,
    may_be_aligned_otherwise,
    moved,
    shifted_band,
)
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, instead
from npattn.oracle.mistakes.saving import NOTHING
from npattn.typing import Array

__all__ = ["ADDED"]

OWN_SOFTMAX = "by a softmax of their own, δ of the right output"


def made_again(name: str, see: Apply, when: When, *, by: str = "again") -> Mistake:
    """See other keys where backward makes the weights again, of the output that forward has saved, and its logsumexp.

    By a softmax they are made of what these keys add up to.
    """

    def other(original, *qkv, **options):
        value, _ = original(*qkv, **options)
        saved = value if by == "again" else (value[0], whole(*qkv, **options, see=see)[0][1])
        return value, whole(*qkv, **options, saved=saved, see=see)[1]

    return instead(NAME, f"{name} where weights are made {by}", other, when, way="backward")


def by_other(option: str, change: Apply) -> Apply:
    """See the pairs that another band, other lengths or another mask leaves."""

    def see(q, k, band, lengths, mask):
        options = {"band": band, "lengths": lengths, "mask": mask}
        return pairs_seen(q, k, **options | {option: change(q, k, **options)})

    return see


def none_hidden(q: Array, k: Array, *_: Any) -> Array:
    return np.ones((1,) * (q.ndim - 2) + (q.shape[-1], k.shape[-1]), bool)


def to_base_2(primitive: str, name: str, factor: float) -> Mistake:
    """Raise 2 to the logits, and to the logsumexp by a factor."""

    def other(original, *qkv, **options):
        value, _ = original(*qkv, **options)
        options = options or NOTHING
        o, log_sum = value if isinstance(value, tuple) else (value, whole(*qkv, **options)[0][1])
        _, backward = whole(*qkv, **options, saved=(o, factor * log_sum), base=2)
        return value, backward if isinstance(value, tuple) else lambda do: backward(do)[:3]

    return instead(primitive, f"{name} where weights are made again", other, way="backward")


OTHERWISE_SEEN: tuple[tuple[str, str, Apply, When], ...] = (
    ("mask one key late", "band", moved(0, 1), has_last),
    ("mask one key early", "band", moved(0, -1), has_last),
    ("wrong alignment", "band", aligned_otherwise, may_be_aligned_otherwise),
    ("window not aligned with the last key", "band", aligned_band, shifted_band),
    ("window one key wide", "band", moved(-1, 0), has_first),
    ("window one key narrow", "band", moved(1, 0), has_first),
    ("window without left end", "band", lambda *_, band, **__: (None, band[1]), has_first),
    ("padding read", "lengths", lambda *_, **__: None, given("lengths")),
    ("one key of padding read", "lengths", lambda *_, lengths, **__: lengths + 1, given("lengths")),
    ("mask ignored", "mask", lambda *_, **__: None, given("mask")),
)
"""Names, what is read otherwise, how, and when that is something else."""

ADDED = [
    made_again("nothing hidden", none_hidden, hides),
    made_again("nothing hidden", none_hidden, hides, by=OWN_SOFTMAX),
    *(made_again(name, by_other(option, change), when) for name, option, change, when in OTHERWISE_SEEN),
    made_again("wrong alignment", by_other("band", aligned_otherwise), may_be_aligned_otherwise, by=OWN_SOFTMAX),
    *(
        to_base_2(primitive, name, factor)
        for primitive in (NAME, PLAIN)
        for name, factor in (
            ("log₂ e left out of the logits", 1.0),
            ("log₂ e left out of the logits and the logsumexp", math.log(2)),
        )
    ),
]
