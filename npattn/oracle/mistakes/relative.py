"""Mistakes in logits by relative position."""

from typing import Any

import numpy as np

from npattn.oracle.mistakes.families import IMAGE_0_FOR_ALL, ONLY_IMAGE_0
from npattn.oracle.mistakes.mistake import Apply, argument, dropped, gradient, instead, value
from npattn.typing import Array, Backward

__all__ = ["ADDED"]

NAME = "relative_logits"
TABLES = (1, "of rows"), (2, "of columns")


def several_keys(q: Array, height_rel: Array, width_rel: Array, scale: float) -> bool:
    return len(height_rel) > 1 or len(width_rel) > 1


def several_rows(q: Array, height_rel: Array, width_rel: Array, scale: float) -> bool:
    return len(height_rel) > 1


def several_columns(q: Array, height_rel: Array, width_rel: Array, scale: float) -> bool:
    return len(width_rel) > 1


def alike(q: Array, height_rel: Array, width_rel: Array, scale: float) -> bool:
    """Whether rows may be taken for columns."""
    return len(height_rel) == len(width_rel) > 1 and q.shape[-1] == q.shape[-2] > 1


def scaled(q: Array, height_rel: Array, width_rel: Array, scale: float) -> bool:
    return scale != 1


def unscaled(q: Array, height_rel: Array, width_rel: Array, scale: float) -> bool:
    return scale == 1 < q.shape[-3]


def of_several(q: Array, *_: Any) -> bool:
    return q.shape[-1] * q.shape[-2] > 1


def with_tables(change: Apply) -> Apply:
    """Read other tables: ``change(height_rel, width_rel)`` makes them."""
    return lambda original, q, *tables: original(q, *change(*tables[:2]), tables[2])


def rolled(by: int) -> Apply:
    """Read every vector one place off."""
    return lambda *tables: [np.roll(table, by, axis=0) for table in tables]


def absolute(z: Array, q: Array, height_rel: Array, width_rel: Array, scale: float) -> Array:
    """Read the vectors by where a key is, whatever the query."""
    queries = scale * q.reshape(*q.shape[:-2], -1)
    rows, columns = (table[: (len(table) + 1) // 2] @ queries for table in (height_rel, width_rel))
    both = rows.swapaxes(-1, -2)[..., :, None] + columns.swapaxes(-1, -2)[..., None, :]
    return both.reshape(z.shape)


def keys_transposed(z: Array, q: Array, height_rel: Array, width_rel: Array, scale: float) -> Array:
    """Lay the keys out column by column."""
    k, m = ((len(table) + 1) // 2 for table in (height_rel, width_rel))
    return z.reshape(*z.shape[:-1], k, m).swapaxes(-1, -2).reshape(z.shape)


def wide_keys(q: Array, height_rel: Array, width_rel: Array, scale: float) -> bool:
    return len(height_rel) > 1 < len(width_rel)


def lost_rows(q: Array, height_rel: Array, width_rel: Array, scale: float) -> Array:
    return 0 * height_rel


def lost_columns(q: Array, height_rel: Array, width_rel: Array, scale: float) -> Array:
    return 0 * width_rel


def of_last_query(original: Apply, q: Array, *tables: Any) -> tuple[Any, Backward]:
    """Write to the gradients of vectors, not add: the last query alone counts."""
    right, _ = original(q, *tables)
    last = np.zeros_like(q)
    last[..., -1, -1] = q[..., -1, -1]
    return right, original(last, *tables)[1]


def reversed_order(g: Array, *_: Any) -> Array:
    return g[::-1].copy()


def by_queries(g: Array, dz: Array, q: Array, *_: Any) -> Array:
    return g / (q.shape[-1] * q.shape[-2])


def by_images(g: Array, dz: Array, q: Array, *_: Any) -> Array:
    return g / len(q)


def several_images(q: Array, *_: Any) -> bool:
    return q.ndim > 3 and len(q) > 1


def of_last(at: Any) -> Apply:
    """Keep what the last of heads, or of blocks, sends to the vectors."""

    def other(original, q, *tables):
        right, _ = original(q, *tables)
        last = np.zeros_like(q)
        last[at] = q[at]
        return right, original(last, *tables)[1]

    return other


LAST_HEAD, LAST_BLOCK = np.s_[:, -1:], np.s_[..., -1:, -1:, :, :, :]


def several_heads(q: Array, *_: Any) -> bool:
    return q.ndim > 3 and q.shape[1] > 1


def several_blocks(q: Array, *_: Any) -> bool:
    return q.ndim > 5 and q.shape[-5] * q.shape[-4] > 1


ADDED = [
    *(
        instead(NAME, f"{words}of the last {which} alone", of_last(at), when, way="backward", of=of)
        for which, at, when in (("head", LAST_HEAD, several_heads), ("block", LAST_BLOCK, several_blocks))
        for words, of in (("", (1, 2)), ("of rows: ", (1,)), ("of columns: ", (2,)))
    ),
    instead(NAME, "offsets with their sign turned", with_tables(lambda h, w: (h[::-1], w[::-1])), several_keys),
    instead(NAME, "offsets one too large", with_tables(rolled(-1)), several_keys),
    instead(NAME, "offsets one too small", with_tables(rolled(1)), several_keys),
    instead(NAME, "rows and columns exchanged", with_tables(lambda h, w: (w, h)), alike),
    value(NAME, "vectors read by the key's place, not the offset", absolute, several_keys),
    value(NAME, "keys column by column", keys_transposed, wide_keys),
    argument(NAME, 1, "rows left out", lost_rows),
    argument(NAME, 2, "columns left out", lost_columns),
    argument(NAME, 3, "missing scale", lambda *_: 1.0, scaled),
    argument(NAME, 3, "scale twice", lambda q, h, w, scale: scale**2, scaled),
    argument(NAME, 3, "scaled by 1/√d", lambda q, *_: q.shape[-3] ** -0.5, unscaled),
    IMAGE_0_FOR_ALL.in_argument(NAME, 0, "queries of image 0 for all", when=several_images),
    *(gradient(NAME, i, f"{name} dropped", dropped) for i, name in enumerate(("dq", "of rows", "of columns"))),
    instead(NAME, "of the last query alone", of_last_query, of_several, way="backward", of=(1, 2)),
    gradient(NAME, 1, "of rows in the opposite order", reversed_order, several_rows),
    gradient(NAME, 2, "of columns in the opposite order", reversed_order, several_columns),
    *(gradient(NAME, i, f"{of} averaged over queries", by_queries, of_several) for i, of in TABLES),
    *(gradient(NAME, i, f"{of} averaged over images", by_images, several_images) for i, of in TABLES),
    gradient(NAME, 0, "scale missing in dq", lambda g, dz, q, h, w, scale: g / scale, scaled),
    ONLY_IMAGE_0.in_gradient(NAME, when=several_images),
]
