"""Mistakes in affinity sums."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from npattn.ops.attention import transpose
from npattn.oracle.mistakes.arrays import TILE, TILES, longer, without_tail
from npattn.oracle.mistakes.families import IMAGE_0_FOR_ALL, ROW_NEIGHBOUR, ROW_TAIL, ROW_TAILS
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, instead, mistake
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

NAME = "affinity_sums"

several, tiles = longer(-1), longer(-1, TILE)


def same_tile(a: Array) -> Array:
    tile = np.arange(a.shape[-1]) // TILE
    return (tile[:, None] == tile).astype(a.dtype)


def rectified(a: Array) -> Array:
    return a * (a > 0)


SIDES = {"left": transpose, "right": lambda da: da}
"""Gradients of affinities that go back to either side of their product."""


def affinity(
    u: Array,
    v: Array,
    *,
    rectify: Apply = rectified,
    slope: Apply = lambda a: a > 0,
    of: Sequence[str] = ("left", "right"),
    keys: Apply = lambda u: u,
) -> tuple[Any, Backward]:
    """Affinity sums with all affinities at once, to be spoilt."""
    raw = transpose(keys(u)) @ u
    a = rectify(raw)

    def backward(dt, ds):
        da = (transpose(v) @ dt + ds) * slope(raw)
        du = sum(u @ SIDES[side](da) for side in of)
        return du, dt @ transpose(a)

    return (v @ a, a.sum(axis=-2, keepdims=True)), backward


def spoilt(name: str, way: str, when: When = several, **steps: Any) -> Mistake:
    return instead(NAME, name, lambda _, u, v: affinity(u, v, **steps), when, way=way)


def constant_totals(affinity_sums: Apply, u: Array, v: Array) -> tuple[Any, Backward]:
    sums, backward = affinity_sums(u, v)
    return sums, lambda dt, ds: backward(dt, np.zeros_like(ds))


def turned_totals(affinity_sums: Apply, u: Array, v: Array) -> tuple[Any, Backward]:
    sums, backward = affinity_sums(u, v)
    return sums, lambda dt, ds: backward(dt, -ds)


def affinities_constant(affinity_sums: Apply, u: Array, v: Array) -> tuple[Any, Backward]:
    sums, backward = affinity_sums(u, v)
    return sums, lambda dt, ds: (np.zeros_like(u), backward(dt, ds)[1])


TUNED_ON = [
    spoilt("not rectified", "forward", rectify=lambda a: a),
    spoilt("magnitudes", "forward", rectify=lambda a: np.maximum(a, -a)),
    spoilt("left out of itself", "forward", rectify=lambda a: rectified(a) * (1 - np.eye(a.shape[-1], dtype=a.dtype))),
    spoilt("slope left out", "backward", slope=lambda a: 1),
    spoilt("one side alone", "backward", of=("left",)),
    mistake(NAME, "totals constant", "backward", constant_totals, several),
    spoilt("key tile ignored", "forward", ROW_TAIL.when, keys=lambda u: without_tail(u, 1)),
]
HELD_OUT = [
    spoilt("own tile twice", "forward", rectify=lambda a: rectified(a) * (1 + same_tile(a))),
    spoilt("own tile alone", "forward", tiles, rectify=lambda a: rectified(a) * same_tile(a)),
    spoilt("mask of the next position", "backward", slope=lambda a: np.roll(a > 0, 1, axis=-1)),
    IMAGE_0_FOR_ALL.in_argument(NAME, 0, "features of image 0 for all"),
    IMAGE_0_FOR_ALL.in_argument(NAME, 1, "values of image 0 for all"),
    ROW_NEIGHBOUR.in_argument(NAME, 0),
]


def changed_totals(change: Apply) -> Apply:
    """Return other totals: ``change(totals, affinities)``; the sums stay what they are."""

    def other(_, u, v):
        a = rectified(transpose(u) @ u)
        (t, s), backward = affinity(u, v)
        return (t, change(s, a)), backward

    return other


def divided_by_own_total(_: Any, u: Array, v: Array) -> tuple[Any, Backward | None]:
    """Divide each affinity by the total of the position that it comes from."""
    a = rectified(transpose(u) @ u)
    return (v @ (a / a.sum(axis=-1, keepdims=True)), np.ones_like(a[..., :1, :])), None


ADDED = [
    *(
        spoilt(
            f"last tile of {tile} of the keys ignored",
            "forward",
            family.when,
            keys=lambda u, family=family: family.change(u),
        )
        for tile, family in zip(TILES, ROW_TAILS, strict=True)
    ),
    spoilt("the other side alone", "backward", of=("right",)),
    spoilt("squared", "forward", rectify=lambda a: rectified(a) * a),
    spoilt("exponentials (softmax)", "forward", rectify=np.exp),
    instead(NAME, "divided by the totals of the other axis", divided_by_own_total, several),
    *(
        instead(NAME, f"epsilon {eps} added to the totals", changed_totals(lambda s, a, eps=eps: s + eps), several)
        for eps in (0.1, 1e-2, 1e-3)
    ),
    instead(NAME, "totals left out", changed_totals(lambda s, a: np.ones_like(s)), several),
    instead(NAME, "number of positions for totals", changed_totals(lambda s, a: np.full_like(s, a.shape[-1])), several),
    mistake(NAME, "gradient of the totals with its sign turned", "backward", turned_totals, several),
    instead(NAME, "sums detached from their affinities", affinities_constant, several, way="backward"),
]
