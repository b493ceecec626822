"""Mistakes in attention: of its weights, of scales, and of gradients."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.ops.attention import transpose
from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.arrays import LOW, TILE, filled, longer, tail, with_losses, with_tile
from npattn.oracle.mistakes.attention_weights import (
    NAME,
    WAYS,
    alike,
    attention,
    differentiated,
    heads,
    in_tiles,
    logits,
    scaled,
    several_keys,
    tiles_of_keys,
    tiles_of_queries,
    unscaled,
    weighed,
    weighed_once,
)
from npattn.oracle.mistakes.families import IMAGE_0_FOR_ALL, ROW_NEIGHBOUR, ROW_TAIL
from npattn.oracle.mistakes.mistake import Apply, Mistake, argument, dropped, gradient, instead, value
from npattn.oracle.mistakes.scaling import (
    IN_BOTH,
    padded_scale,
    scale_twice,
    scaled_in_weights,
    scaled_late,
    with_factor,
    without_scale,
)
from npattn.oracle.mistakes.softmax import (
    WITHIN_TILES,
    by_tiles,
    rowsum,
    softmax,
    sum_left_out,
    sum_of_next_row,
    unshifted,
)
from npattn.oracle.mistakes.tiled_softmax import (
    divided,
    exponentials,
    last_tile_twice,
    masked,
    not_rescaled,
    only_last,
    padded_to,
    stale,
    sum_of_last_tile,
    with_padding,
)
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

PRODUCTS_ROUNDED = "products of queries and keys in bfloat16"
NEITHER_RESCALED = "neither accumulator nor sum rescaled"


def tail_of_keys(q: Array, k: Array, *_: Any) -> bool:
    return ROW_TAIL.when(k)


def products_rounded(_: Any, q: Array, k: Array, v: Array, scale: float) -> tuple[Any, Backward]:
    return attention(q, k, v, scale, weigh=lambda z: softmax(scale * arrays.in_bfloat16(z / scale)))


def overflow(name: str, largest: float) -> Mistake:
    """Take no maximum off, in a format whose largest number is e^largest."""
    return weighed(name, lambda z: unshifted(z, largest), lambda *qkv: bool((logits(*qkv) > largest).any()))


def causal(z: Array) -> Array:
    later = np.arange(z.shape[-1])[None, :] > np.arange(z.shape[-2])[:, None]
    return softmax(np.where(later, LOW, z))


def neither_rescaled(tile: int) -> Mistake:
    """Let backward make weights of the sum that forward has: each exponential by the last maximum."""
    return weighed_once(
        with_tile(NEITHER_RESCALED, tile),
        lambda z: divided(stale(z, tile)),
        longer(-1, tile, 1),
        lambda z: divided(exponentials(z), stale(z, tile)),
    )


def last_queries_left_out(primitive: str, tile: int) -> Iterator[Mistake]:
    """Yield mistakes of a backward that does not visit the last tile of queries, or visits it for dv alone."""

    def start(q, size):
        return (q.shape[-1] - 1) // size * size

    def other(original, q, *given, **options):
        right, backward = original(q, *given, **options)
        left = slice(start(q, tile), None)
        return right, lambda *dy: backward(*(filled(a, left, 1) if np.ndim(a) else a for a in dy))

    def when(q, *_, **__):
        return start(q, tile) > 0 and all(start(q, size) != start(q, tile) for size in arrays.before(tile))

    for of, where in ((None, "backward"), ((0, 1), "dq and dk")):
        name = with_tile(f"last tile of queries left out in {where}", tile)
        yield instead(primitive, name, other, when, way="backward", of=of)


def of_base_2(z: Array) -> Array:
    """Take weights from a logsumexp to base 2, as if it were to base e."""
    log_sum = z.max(axis=-1, keepdims=True) + np.log(exponentials(z).sum(axis=-1, keepdims=True))
    return np.exp(z - log_sum / math.log(2))


def reversed_heads(a: Array, *_: Any) -> Array:
    return a[:, ::-1].copy()


def read_wrongly(way: str) -> list[Mistake]:
    """Mistakes in what is read, in the value alone or in all that is computed from it."""
    found = [argument(NAME, 0, "base 2", lambda q, *_: q * math.log(2), several_keys, way=way)]
    for i, words in ((1, "keys"), (2, "values")):
        found += [
            IMAGE_0_FOR_ALL.in_argument(NAME, i, f"{words} of image 0 for all", way=way),
            ROW_NEIGHBOUR.in_argument(
                NAME, i, f"every 16th of the {words} read from its neighbour", when=longer(-1, TILE - 1, 1), way=way
            ),
        ]
    return found


TUNED_ON = [
    *(weighed("softmax over the wrong axis", lambda z: softmax(z, -2), way=way) for way in WAYS),
    weighed("causal mask", causal),
    weighed("padded keys counted", with_padding, lambda q, k, *_: k.shape[-1] % TILE > 0),
    weighed(NEITHER_RESCALED, lambda z: divided(stale(z)), tiles_of_keys),
    weighed("key tile ignored", lambda z: masked(z, slice(tail(z.shape[-1]), None)), tail_of_keys),
    differentiated("sum left out", sum_left_out),
    differentiated("mean of ds for its weighted sum", lambda s, ds: s * (ds - ds.mean(axis=-1, keepdims=True))),
    weighed("causal mask", causal, way="backward"),
    instead(NAME, "queries and keys swapped", lambda exact, q, k, v, scale: exact(k, q, v, scale), alike),
    *(argument(NAME, 3, "missing scale", lambda *_: 1.0, scaled, way=way) for way in ("forward", "backward", "both")),
    argument(NAME, 3, "scale twice", lambda q, k, v, scale: scale**2, scaled, way="both"),
    *(argument(NAME, 3, "scaled by 1/√d", lambda q, *_: q.shape[-2] ** -0.5, unscaled, way=way) for way in WAYS),
    gradient(NAME, 1, "scale missing in dk", without_scale, scaled),
    gradient(NAME, None, "dq and dk swapped", lambda g, *_: (g[1], g[0], g[2]), alike),
    gradient(NAME, 1, "dk dropped", dropped, several_keys),
    gradient(NAME, 2, "dv transposed", lambda g, do, q, k, v, scale: attention(q, k, do, scale)[0], alike),
    ROW_TAIL.in_gradient(NAME, 1, tail_of_keys),
]
HELD_OUT = [
    weighed("first key tile skipped", lambda z: masked(z, slice(TILE)), tiles_of_keys),
    weighed("last key tile twice", last_tile_twice, tiles_of_keys),
    weighed("sum of the last tile alone", sum_of_last_tile, tiles_of_keys),
    *(weighed(name, weigh, tiles_of_keys) for name, weigh in not_rescaled(TILE)),
    overflow("maximum not subtracted", arrays.SINGLE),
    overflow("maximum not subtracted, float16", arrays.HALF),
    weighed("logsumexp to base 2", of_base_2, way="backward"),
    differentiated("sum of the next row", sum_of_next_row, lambda q, k, *_: min(q.shape[-1], k.shape[-1]) > 1),
    *(mistake for way in WAYS for mistake in read_wrongly(way)),
    value(NAME, "heads in the wrong order", reversed_heads, heads),
    gradient(NAME, 1, "heads in the wrong order", reversed_heads, heads),
    in_tiles(1, "ds for dz in dk", lambda s, ds, dz, do, q, k: q @ ds),
    in_tiles(2, "dv of the last query tile alone", lambda s, ds, dz, do, q, k: only_last(do) @ s, tiles_of_queries),
    in_tiles(1, "dk of the last query tile alone", lambda s, ds, dz, do, q, k: only_last(q) @ dz, tiles_of_queries),
    in_tiles(
        0, "dq of the last key tile alone", lambda s, ds, dz, do, q, k: only_last(k) @ transpose(dz), tiles_of_keys
    ),
    in_tiles(1, "additions lost in dk", lambda s, ds, dz, do, q, k: q @ with_losses(dz)),
    in_tiles(2, "additions lost in dv", lambda s, ds, dz, do, q, k: do @ with_losses(s)),
]


def transposed_map(_: Any, q: Array, k: Array, v: Array, scale: float) -> tuple[Any, Backward | None]:
    """Average over queries, by weights that add up over keys."""
    s = softmax(logits(q, k, v, scale))
    return v @ s, None


def map_detached(original: Apply, q: Array, k: Array, v: Array, scale: float, **options: Any) -> tuple[Any, Backward]:
    """Keep the gradient of values alone."""
    right, backward = original(q, k, v, scale, **options)
    return right, lambda *dy: (dropped(q), dropped(k), *backward(*dy)[2:])


def not_divided(_: Any, *qkv: Array) -> tuple[Any, Backward]:
    """Take exponentials, not brought to a sum of 1, from which a constant maximum was taken off."""
    return attention(*qkv, weigh=exponentials, differentiate=sum_left_out)


def without_self(z: Array) -> Array:
    """Let no position see itself."""
    return softmax(np.where(np.eye(z.shape[-1], dtype=bool), LOW, z))


def unit_length(a: Array) -> Array:
    return a / np.sqrt((a * a).sum(axis=-2, keepdims=True))


def cosines(original: Apply, q: Array, k: Array, v: Array, scale: float) -> tuple[Any, Backward]:
    """Compare directions of queries and keys."""
    return original(unit_length(q), unit_length(k), v, scale)


def viewed(o: Array) -> Array:
    """Read positions by channels in memory as channels by positions."""
    return transpose(o).reshape(o.shape)


def several_rows(q: Array, *_: Any, **__: Any) -> bool:
    return min(q.shape[-2:]) > 1


def square(q: Array, k: Array, *_: Any) -> bool:
    return q.shape[-1] == k.shape[-1] > 1


def delta_not_divided(s: Array, ds: Array) -> Array:
    """Make δ of an output that is not yet divided by the sum of exponentials."""
    return s * (ds - rowsum(s, ds) / s.max(axis=-1, keepdims=True))


def of_alike_values(q: Array, k: Array, v: Array, *_: Any, **__: Any) -> bool:
    return k.shape == v.shape


ADDED = [
    *scaled_in_weights(NAME, with_factor),
    weighed("logits in bfloat16", lambda z: softmax(arrays.in_bfloat16(z))),
    instead(NAME, PRODUCTS_ROUNDED, products_rounded, scaled),
    *(
        weighed_once(name, weigh, longer(-1, tile, 1))
        for tile in (TILE, *arrays.TILES)
        for name, weigh in not_rescaled(tile)
    ),
    *map(neither_rescaled, (TILE, *arrays.TILES)),
    *(one for tile in (TILE, *arrays.TILES) for one in last_queries_left_out(NAME, tile)),
    *(
        form(f"padded keys counted, tiles of {tile}", *padded_to(tile))
        for tile in arrays.TILES
        for form in (weighed, weighed_once)
    ),
    differentiated("δ of the output before it is divided by the sum", delta_not_divided),
    weighed_once("padded keys counted", with_padding, lambda q, k, *_: k.shape[-1] % TILE > 0),
    *(
        weighed(f"softmax {name}", lambda z, tile=tile, how=how: by_tiles(z, tile, **how), longer(-1, tile, 1))
        for name, tile, how in WITHIN_TILES
    ),
    instead(NAME, "keys taken for values", lambda original, q, k, v, scale: original(q, k, k, scale), of_alike_values),
    instead(NAME, "values taken for keys", lambda original, q, k, v, scale: original(q, v, v, scale), of_alike_values),
    instead(NAME, "queries taken for keys", lambda original, q, k, v, scale: original(q, q, v, scale), alike),
    argument(NAME, 3, "logits doubled (temperature 1/2)", lambda q, k, v, scale: 2 * scale, several_keys),
    argument(NAME, 3, "logits halved (temperature 2)", lambda q, k, v, scale: scale / 2, several_keys),
    weighed("softmax left out", lambda z: z),
    weighed("sigmoid for softmax", lambda z: 1 / (1 + np.exp(-z))),
    instead(NAME, "scaled after softmax", scaled_late, scaled),
    *(instead(NAME, name, other, scaled, way="backward") for name, other in IN_BOTH),
    instead(NAME, "map transposed", transposed_map, alike),
    argument(NAME, 3, "scaled by the padded head dim", padded_scale, lambda q, *_: q.shape[-2] % TILE > 0),
    argument(NAME, 3, "scale twice", lambda q, k, v, scale: scale**2, scaled),
    instead(NAME, "map detached", map_detached, several_keys, way="backward"),
    gradient(NAME, 0, "dq dropped", dropped, several_keys),
    gradient(NAME, 2, "dv dropped", dropped),
    gradient(NAME, 0, "scale missing in dq", without_scale, scaled),
    *(gradient(NAME, i, f"scale twice in {d}", scale_twice, scaled) for i, d in ((0, "dq"), (1, "dk"))),
    instead(NAME, "weights not divided by their sum", not_divided, several_keys, way="both"),
    value(NAME, "output viewed without a transpose", lambda o, *_: viewed(o), several_rows),
    weighed("divided by the number of keys, no softmax", lambda z: z / z.shape[-1]),
    weighed("diagonal masked: no position sees itself", without_self, square),
    instead(NAME, "queries and keys brought to unit length", cosines, several_keys),
    argument(NAME, 3, "scaled by the channels of all heads", lambda q, *_: (q.shape[1] * q.shape[2]) ** -0.5, heads),
    argument(NAME, 3, "multiplied by √d, not divided", lambda q, k, v, scale: 1 / scale, scaled),
    differentiated("sum over queries, not over keys", lambda s, ds: s * (ds - (s * ds).sum(axis=-2, keepdims=True))),
    in_tiles(0, "dq by the map's transposed gradient", lambda s, ds, dz, do, q, k: k @ dz, square),
    in_tiles(1, "dk by the map's transposed gradient", lambda s, ds, dz, do, q, k: q @ transpose(dz), square),
]
