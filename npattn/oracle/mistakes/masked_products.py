"""Mistakes in attention with masks of which masks are no part: of queries, keys, values, their scale and tiles."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn import ops
from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.arrays import TILE, both, longer, with_tile
from npattn.oracle.mistakes.attention import (
    NEITHER_RESCALED,
    PRODUCTS_ROUNDED,
    last_queries_left_out,
    map_detached,
    of_alike_values,
    several_rows,
    viewed,
)
from npattn.oracle.mistakes.attention_weights import WAYS, heads, several_keys
from npattn.oracle.mistakes.families import ROW_TAIL, ROW_TAILS
from npattn.oracle.mistakes.heads import HEADS_INTERLEAVED, heads_interleaved, merged_interleaved
from npattn.oracle.mistakes.masked_weights import (
    NAME,
    alike,
    filling_seen,
    may_see_filling,
    scaled,
    whole,
    with_mistake,
)
from npattn.oracle.mistakes.mistake import Apply, Mistake, argument, gradient, instead, value
from npattn.oracle.mistakes.scaling import (
    IN_BOTH,
    padded_scale,
    scale_twice,
    scaled_in_weights,
    without_scale,
)
from npattn.oracle.mistakes.tiled_softmax import running_maximum
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def swapped(original: Apply, q: Array, k: Array, v: Array, scale: float, **options: Any) -> tuple[Any, Backward]:
    return original(k, q, v, scale, **options)


def with_factor(q: Array, k: Array, v: Array, scale: float, factor: float, **options: Any) -> tuple[Any, Backward]:
    return whole(q, k, v, scale, **options, products=lambda z: factor * z)


def without_sink(*_: Any, sink: Array | None, **__: Any) -> bool:
    return sink is None


def by_all_channels(q: Array, *_: Any, **__: Any) -> float:
    return (q.shape[1] * q.shape[2]) ** -0.5


def scaled_otherwise(q: Array, k: Array, v: Array, scale: float, **_: Any) -> bool:
    return not math.isclose(scale, q.shape[-2] ** -0.5)


def not_rescaled(tile: int) -> Iterator[Mistake]:
    """Leave out, forward, that a later tile of keys has a larger maximum: of the accumulator, or of the sum too."""

    def stale(z, highest):
        most = running_maximum(z, tile)
        return np.exp(highest - np.where(most == -np.inf, highest, most))

    several_tiles = longer(-1, tile, 1)
    yield with_mistake(with_tile("accumulator not rescaled", tile), several_tiles, "both", stale=stale)
    yield with_mistake(with_tile(NEITHER_RESCALED, tile), several_tiles, "both", stale=stale, stale_sum=True)


def zeros_counted(tile: int) -> Mistake:
    """Count keys that fill up the last tile, with logit 0, in weights, not in their gradients."""

    def other(_, q, k, v, scale, **options):
        count = filling_seen(q, k, tile, **options).sum(axis=-1, keepdims=True).astype(k.dtype)

        def met(s, highest, total):
            return s * (total / (total + count * np.exp(-highest)))

        return whole(q, k, v, scale, **options, met=met)

    name = f"zeros that fill up to a multiple of {tile} counted in the weights"
    return instead(NAME, name, other, may_see_filling(tile), way="both")


def in_narrow(s: Array, highest: Array, total: Array) -> Array:
    return arrays.in_bfloat16(s)


def by_untransposed(g: Array, dy: Array, *qkv: Array, **options: Any) -> Array:
    """Multiply by the map where its transpose is meant."""
    q, k, _, *others = qkv
    eye = np.broadcast_to(np.eye(k.shape[-1], dtype=k.dtype), (*k.shape[:-2], k.shape[-1], k.shape[-1]))
    (s, _), _ = ops.masked_attention(q, k, eye, *others, **options)
    return dy @ s


TUNED_ON = [
    with_mistake("δ left out", way="backward", delta=False),
]
HELD_OUT = [
    argument(NAME, 3, "missing scale", lambda *_, **__: 1.0, lambda q, k, v, scale, **_: scale != 1, way="both"),
]
ADDED = [
    *scaled_in_weights(NAME, with_factor),
    *map(zeros_counted, (TILE, *arrays.TILES)),
    with_mistake("weights in bfloat16 where they meet the values", way="both", met=in_narrow),
    *(with_mistake("logits in bfloat16", way=way, logits=arrays.in_bfloat16) for way in WAYS),
    *(with_mistake(PRODUCTS_ROUNDED, scaled, way, products=arrays.in_bfloat16) for way in WAYS),
    instead(NAME, HEADS_INTERLEAVED, heads_interleaved, heads),
    gradient(NAME, 2, "dv by the map, not its transpose", by_untransposed, alike),
    value(
        NAME,
        "heads brought together interleaved",
        lambda pair, *_, **__: (merged_interleaved(pair[0]), pair[1]),
        heads,
    ),
    *(
        argument(
            NAME,
            2,
            f"{f.name} of the values",
            lambda q, k, v, *_, f=f, **__: f.change(v),
            lambda q, k, *_, f=f, **__: f.when(k),
        )
        for f in (ROW_TAIL, *ROW_TAILS)
    ),
    *(one for tile in (TILE, *arrays.TILES) for one in not_rescaled(tile)),
    *(one for tile in (TILE, *arrays.TILES) for one in last_queries_left_out(NAME, tile)),
    with_mistake("δ added up over all heads", heads, "backward", heads=True),
    instead(
        NAME, "keys taken for values", lambda original, q, k, v, *a, **o: original(q, k, k, *a, **o), of_alike_values
    ),
    instead(
        NAME, "values taken for keys", lambda original, q, k, v, *a, **o: original(q, v, v, *a, **o), of_alike_values
    ),
    instead(NAME, "queries taken for keys", lambda original, q, k, *a, **o: original(q, q, *a, **o), alike),
    argument(NAME, 3, "scaled by 1/√d", lambda q, *_, **__: q.shape[-2] ** -0.5, scaled_otherwise),
    argument(NAME, 0, "base 2", lambda q, *_, **__: q * math.log(2)),
    argument(NAME, 3, "scaled by the channels of all heads", by_all_channels, heads),
    value(NAME, "output viewed without a transpose", lambda pair, *_, **__: (viewed(pair[0]), pair[1]), several_rows),
    *(instead(NAME, name, other, scaled, way="backward") for name, other in IN_BOTH),
    instead(NAME, "queries and keys swapped", swapped, alike),
    gradient(NAME, None, "dq and dk swapped", lambda g, *_, **__: (g[1], g[0], *g[2:]), alike),
    with_mistake("softmax over the wrong axis", both(alike, without_sink), axis=-2),
    with_mistake("map transposed", alike, turned=True),
    *(gradient(NAME, i, f"scale missing in {d}", without_scale, scaled) for i, d in ((0, "dq"), (1, "dk"))),
    *(gradient(NAME, i, f"scale twice in {d}", scale_twice, scaled) for i, d in ((0, "dq"), (1, "dk"))),
    argument(NAME, 3, "scale twice", lambda q, k, v, scale, **_: scale**2, scaled),
    argument(NAME, 3, "scaled by the padded head dim", padded_scale, lambda q, *_, **__: q.shape[-2] % TILE > 0),
    instead(NAME, "map detached", map_detached, several_keys, way="backward"),
]
