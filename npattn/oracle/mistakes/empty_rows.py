"""Queries that see nothing, of all keys or of the first block: NaN, and what it reaches."""

from typing import Any

import numpy as np

from npattn.oracle.mistakes.arrays import TILE, TILES, before, with_tile
from npattn.oracle.mistakes.masked_weights import NAME, Band, pairs_seen, whole
from npattn.oracle.mistakes.mistake import Apply, When, instead
from npattn.typing import Array, Backward

__all__: list[str] = []  # for the mistakes of this package alone


def has_dead(q: Array, k: Array, *_: Any, band: Band, lengths: Array, mask: Array, **__: Any) -> bool:
    seen = pairs_seen(q, k, band, lengths, mask)
    return bool((~seen.any(axis=-1)).any() and seen.any())


def nan_where_dead(pair: tuple[Array, Array], *_: Any, **__: Any) -> tuple[Array, ...]:
    return np.where((pair[1] == -np.inf)[..., None, :], np.nan, pair[0]), pair[1]


def nan_of_nothing(s: Array, highest: Array, total: Array) -> Array:
    """Return weights that are 0 / 0 in the rows of queries that see nothing."""
    return np.where(s.sum(axis=-1, keepdims=True) == 0, np.nan, s)


def nan_in_weights(_: Any, *qkv: Array, **options: Any) -> tuple[Any, Backward]:
    return whole(*qkv, met=nan_of_nothing, **options)


def nan_carried(original: Apply, *qkv: Array, through_weights: bool = True, **options: Any) -> tuple[Any, Backward]:
    """Carry NaN through logits' gradients too, to all that such a query has read."""
    (o, log_sum), backward = original(*qkv, **options)
    dead = np.isneginf(log_sum)[..., None, :]
    reached = dead.any(axis=-1, keepdims=True)

    def wrong(*dy):
        dq, dk, dv, *others = backward(*dy)
        dv = np.where(reached & through_weights, np.nan, dv)
        return np.where(dead, np.nan, dq), np.where(reached, np.nan, dk), dv, *others

    return (np.where(dead, np.nan, o), log_sum), wrong


def nan_through_delta(original: Apply, *qkv: Array, **options: Any) -> tuple[Any, Backward]:
    """Let weights be 0, but δ, made of the output, NaN."""
    return nan_carried(original, *qkv, through_weights=False, **options)


EMPTY_ROWS: dict[str, Apply] = {
    "in the weights too": nan_in_weights,
    "and in all that it reaches": nan_carried,
    "and in all that its δ reaches": nan_through_delta,
}
"""What NaN where a query sees nothing does to gradients."""


def one_key_early(band: Band) -> Band:
    least, most = band
    return least, None if most is None else most - 1


def leaves_none(
    q: Array, k: Array, *_: Any, band: Band, sink: Array | None, lengths: Array, mask: Array, **__: Any
) -> bool:
    """Whether a band that ends one key early hides from some query all that it saw, and no sink is left to it."""
    if band[1] is None or sink is not None:
        return False
    seen, left = (pairs_seen(q, k, b, lengths, mask).any(axis=-1) for b in (band, one_key_early(band)))
    return bool((seen & ~left).any() and left.any())


def hidden_too_early(other: Apply) -> Apply:
    """Hide one key more, by a band that ends early, of what sees nothing in one of these ways."""
    return lambda original, *qkv, band, **options: other(original, *qkv, band=one_key_early(band), **options)


def begun_blind(seen: Array, tile: int) -> Array:
    """Return which queries see some keys, but none of the first block: a softmax in blocks takes −∞ off −∞ there."""
    return seen.any(axis=-1) & ~seen[..., :tile].any(axis=-1)


def nan_from_first_block(tile: int) -> Apply:
    def other(original, q, k, v, scale, *, band, lengths, mask, **options):
        (o, log_sum), backward = original(q, k, v, scale, band=band, lengths=lengths, mask=mask, **options)
        blind = begun_blind(pairs_seen(q, k, band, lengths, mask), tile)
        rows, reached = blind[..., None, :], blind.any(axis=-1)[..., None, None]

        def wrong(*dy):
            dq, dk, dv, *others = backward(*dy)
            return np.where(rows, np.nan, dq), np.where(reached, np.nan, dk), np.where(reached, np.nan, dv), *others

        return (np.where(rows, np.nan, o), np.where(blind, np.nan, log_sum)), wrong

    return other


def some_begin_blind(tile: int) -> When:
    """Whether there are such queries, and others than with the blocks that have their mistakes before."""

    def when(q, k, *_, band, lengths, mask, **__):
        seen = pairs_seen(q, k, band, lengths, mask)
        blind = begun_blind(seen, tile)
        return bool(blind.any()) and all((blind != begun_blind(seen, size)).any() for size in before(tile))

    return when


FIRST_BLOCKS = [
    instead(
        NAME,
        with_tile("NaN where the first block of keys is hidden, and in all that it reaches", tile),
        nan_from_first_block(tile),
        some_begin_blind(tile),
        way="both",
    )
    for tile in (TILE, *TILES)
]
