"""Mistakes of masks: who sees whom, and queries that see nothing."""

from typing import Any

import numpy as np

from npattn.ops.masking import keys_seen
from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.arrays import LOW, TILE, both, tail_of, with_tile
from npattn.oracle.mistakes.attention_weights import WAYS
from npattn.oracle.mistakes.empty_rows import (
    EMPTY_ROWS,
    FIRST_BLOCKS,
    has_dead,
    hidden_too_early,
    leaves_none,
    nan_where_dead,
)
from npattn.oracle.mistakes.masked_weights import (
    NAME,
    Band,
    alike,
    given,
    hides,
    may_see_filling,
    pairs_seen,
    with_mistake,
)
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, argument, instead, value
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def has_last(_: Any, k: Array, *__: Any, band: Band, **___: Any) -> bool:
    return band[1] is not None


def has_first(_: Any, k: Array, *__: Any, band: Band, **___: Any) -> bool:
    return band[0] is not None


def may_be_aligned_otherwise(q: Array, k: Array, *_: Any, band: Band, **__: Any) -> bool:
    return band[1] in (0, k.shape[-1] - q.shape[-1]) and q.shape[-1] != k.shape[-1]


def aligned_otherwise(q: Array, k: Array, *_: Any, band: Band, **__: Any) -> Band:
    least, most = band
    return least, 0 if most else k.shape[-1] - q.shape[-1]


def moved(first: int, last: int) -> Apply:
    """Move the ends of the band."""
    return lambda *_, band, **__: tuple(n if n is None else n + by for n, by in zip(band, (first, last), strict=True))


def turned_over(*_: Any, mask: Array, **__: Any) -> Array:
    return (mask == 0).astype(mask.dtype)


def turned_band(*_: Any, band: Band, **__: Any) -> Band:
    """See what comes after, not what came before."""
    return band[1], None


def aligned_band(q: Array, k: Array, *_: Any, band: Band, **__: Any) -> tuple[int | None, ...]:
    """Let a window that ends at the last key begin at the first one, or the reverse."""
    offset = k.shape[-1] - q.shape[-1]
    return tuple(n if n is None else n - offset for n in band)


def shifted_band(q: Array, k: Array, *_: Any, band: Band, **__: Any) -> bool:
    return has_first(q, k, band=band) and q.shape[-1] != k.shape[-1]


def transposed_pairs(q: Array, k: Array, band: Band, lengths: Array, mask: Array) -> Array:
    """Hide queries where keys should be."""
    seen = pairs_seen(q, k, band, lengths, mask)
    whole_map = np.broadcast_to(seen, (*seen.shape[:-2], q.shape[-1], k.shape[-1]))
    return whole_map.swapaxes(-1, -2)


def padding_alone(q: Array, k: Array, band: Band, lengths: Array, mask: Array) -> Array:
    """See padding, and nothing else."""
    return pairs_seen(q, k, band, None, mask) & ~pairs_seen(q, k, (None, None), lengths, None)


def mask_ignored(q: Array, k: Array, band: Band, lengths: Array, mask: Array) -> Array:
    return pairs_seen(q, k, band, lengths, None)


def lengths_of_image_0(*_: Any, lengths: Array, **__: Any) -> Array:
    return np.broadcast_to(lengths[:1], lengths.shape).copy()


def several_lengths(*_: Any, lengths: Array | None, **__: Any) -> bool:
    return lengths is not None and len(lengths) > 1


def last_unseen(q: Array, k: Array, band: Band, lengths: Array, mask: Array) -> Array:
    """See all keys but the last."""
    return pairs_seen(q, k, band, lengths, mask) & (np.arange(k.shape[-1]) < k.shape[-1] - 1)


def padding_zeroed(
    original: Apply, q: Array, k: Array, v: Array, scale: float, *, lengths: Array, **options: Any
) -> tuple[Any, Backward]:
    """Set padded keys and values to 0, and let them take part."""
    real = keys_seen(q, k, slice(0, 1), band=(None, None), lengths=lengths, mask=None) * np.ones_like(k[..., :1, :1])
    return original(q, k * real, v * real, scale, lengths=None, **options)


def last_block_unmasked(tile: int) -> Mistake:
    """Take zeros that fill up the last block for keys and values, seen where no other rule hides them."""

    def other(original, q, k, v, scale, *, bias, mask, **options):
        n = k.shape[-1]

        def filled(a, value=0.0):
            if a is None:
                return None
            return np.concatenate([a, np.full_like(a, value, shape=(*a.shape[:-1], -n % tile))], axis=-1)

        right, backward = original(q, filled(k), filled(v), scale, bias=filled(bias), mask=filled(mask, 1), **options)

        def without_filling(*dy):
            dq, dk, dv, dbias, dsink = backward(*dy)
            return dq, dk[..., :n], dv[..., :n], None if dbias is None else dbias[..., :n], dsink

        return right, without_filling

    return instead(NAME, with_tile("last block of keys unmasked", tile), other, may_see_filling(tile))


def last_block_unseen(tile: int) -> Mistake:
    """See no keys behind the last whole block; one alone is a mistake of its own."""

    def see(q, k, band, lengths, mask):
        return pairs_seen(q, k, band, lengths, mask) & (np.arange(k.shape[-1]) < tail_of(k.shape[-1], tile))

    def when(q, k, *_, band, lengths, mask, **__):
        start = tail_of(k.shape[-1], tile)
        if start is None or start == k.shape[-1] - 1:
            return False
        return bool(pairs_seen(q, k, band, lengths, mask)[..., start:].any())

    return with_mistake(with_tile("last block of keys never read", tile), when, see=see)


def in_blocks(a: Array, tile: int) -> Array:
    return np.arange(a.shape[-1]) // tile


def diagonal_seen(tile: int) -> Apply:
    """See all of the block that a query's own key stands in."""

    def see(q, k, band, lengths, mask):
        own = (in_blocks(q, tile)[:, None] == in_blocks(k, tile)) & pairs_seen(q, k, (None, None), lengths, mask)
        return pairs_seen(q, k, band, lengths, mask) | own

    return see


def last_seen(tile: int) -> Apply:
    """See all of the last block of keys, that mask which the rest has left out."""

    def see(q, k, band, lengths, mask):
        last = (in_blocks(k, tile) == (k.shape[-1] - 1) // tile) & pairs_seen(q, k, (None, None), lengths, mask)
        return pairs_seen(q, k, band, lengths, mask) | last

    return see


def lengths_rounded_up(tile: int) -> Mistake:
    """See padding up to the end of the block in which it begins."""

    def change(*_, lengths, **__):
        return np.ceil(lengths / tile) * tile

    def when(q, k, *_, lengths, **__):
        return lengths is not None and bool((lengths % tile > 0).any()) and k.shape[-1] > 1

    return argument(NAME, "lengths", f"padding read to the end of its block of {tile}", change, when, way="both")


def masked_blocks(tile: int) -> When:
    """Whether blocks are hidden in part: by the band, in squares of a tile."""
    return lambda q, k, *_, band, **__: band[1] is not None and k.shape[-1] > tile and q.shape[-1] > 1


def mask_of_image_0(*_: Any, mask: Array, **__: Any) -> Array:
    return np.broadcast_to(mask[:1], mask.shape).copy()


def several_masks(*_: Any, mask: Array | None, **__: Any) -> bool:
    return mask is not None and len(mask) > 1


def lengths_of_neighbour(*_: Any, lengths: Array, **__: Any) -> Array:
    return np.roll(lengths, 1, axis=0)


def turned_window(*_: Any, band: Band, **__: Any) -> tuple[int | None, ...]:
    """Exchange the two sides of a window."""
    return tuple(None if n is None else -n for n in band[::-1])


def zeros_hidden(q: Array, k: Array, band: Band, lengths: Array, mask: Array) -> Array:
    """Hide keys that are 0, as those are that stand in a margin of zeros."""
    return pairs_seen(q, k, band, lengths, mask) & (k != 0).any(axis=-2)[..., None, :]


def has_zeros(q: Array, k: Array, *_: Any, **__: Any) -> bool:
    zeros = (k == 0).all(axis=-2)
    return bool(zeros.any() and not zeros.all())


TUNED_ON = [
    *(argument(NAME, "band", "mask one key late", moved(0, 1), has_last, way=way) for way in WAYS),
    *(argument(NAME, "band", "mask one key early", moved(0, -1), has_last, way=way) for way in WAYS),
    argument(NAME, "band", "wrong alignment", aligned_otherwise, may_be_aligned_otherwise, way="both"),
    argument(NAME, "band", "not causal", lambda *_, **__: (None, None), has_last, way="backward"),
    argument(NAME, "lengths", "padding read", lambda *_, **__: None, given("lengths"), way="both"),
    argument(NAME, "mask", "mask ignored", lambda *_, **__: None, given("mask"), way="both"),
    last_block_unmasked(TILE),
    value(NAME, "NaN where no key is seen", nan_where_dead, has_dead),
]
HELD_OUT = [
    argument(NAME, "band", "window one key wide", moved(-1, 0), has_first, way="both"),
    argument(NAME, "band", "window without left end", lambda *_, band, **__: (None, band[1]), has_first, way="both"),
    argument(
        NAME, "lengths", "one key of padding read", lambda *_, lengths, **__: lengths + 1, given("lengths"), way="both"
    ),
    with_mistake("all keys where none is seen", has_dead, low=LOW),
]
ADDED = [
    *map(last_block_unmasked, arrays.TILES),
    *(
        with_mistake(with_tile(name, tile), masked_blocks(tile), see=see(tile))
        for tile in (TILE, *arrays.TILES)
        for name, see in (
            ("blocks on the diagonal unmasked", diagonal_seen),
            ("last block of keys seen by all", last_seen),
        )
    ),
    *map(lengths_rounded_up, (TILE, *arrays.TILES)),
    *(
        instead(NAME, f"{name}, {reach}", change(other), when, way="both")
        for name, change, when in (
            ("NaN where no key is seen", lambda other: other, has_dead),
            ("mask one key early, NaN where none is left", hidden_too_early, leaves_none),
        )
        for reach, other in EMPTY_ROWS.items()
    ),
    *FIRST_BLOCKS,
    with_mistake("keys of zeros, as in a margin, hidden", has_zeros, see=zeros_hidden),
    argument(NAME, "mask", "mask ignored", lambda *_, **__: None, given("mask"), way="backward"),
    with_mistake("last key never read", see=last_unseen),
    *map(last_block_unseen, (TILE, *arrays.TILES)),
    argument(NAME, "band", "window's sides exchanged", turned_window, has_first, way="both"),
    argument(NAME, "band", "window one key narrow", moved(1, 0), has_first, way="both"),
    with_mistake(
        "all values averaged where no key is seen",
        has_dead,
        low=LOW,
        log=lambda highest, total, *_: highest + np.log(total),
    ),
    argument(NAME, "mask", "mask of the first image for all", mask_of_image_0, several_masks, way="both"),
    instead(NAME, "padded keys and values set to 0, not hidden", padding_zeroed, given("lengths")),
    argument(NAME, "lengths", "lengths of the image before", lengths_of_neighbour, several_lengths, way="both"),
    argument(NAME, "band", "window not aligned with the last key", aligned_band, shifted_band, way="both"),
    with_mistake("mask transposed: queries hidden for keys", both(alike, hides), see=transposed_pairs),
    with_mistake("padding alone seen", given("lengths"), see=padding_alone),
    with_mistake("mask added to the logits", given("mask"), see=mask_ignored, added=lambda mask: mask * 1.0),
    argument(NAME, "lengths", "lengths of the first image for all", lengths_of_image_0, several_lengths, way="both"),
    argument(
        NAME,
        "lengths",
        "last key of each image hidden",
        lambda *_, lengths, **__: lengths - 1,
        given("lengths"),
        way="both",
    ),
    with_mistake("mask after softmax", hides, late=True),
    with_mistake("masked logits 0, not -∞", hides, low=0.0),
    argument(NAME, "band", "causal mask the other way round", turned_band, has_last, way="both"),
    argument(NAME, "mask", "mask inverted", turned_over, given("mask"), way="both"),
    argument(NAME, "band", "wrong alignment", aligned_otherwise, may_be_aligned_otherwise),
]
