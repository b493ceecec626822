"""Mistakes in what puts arrays together and takes them apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from npattn.oracle.mistakes.families import LAST_TILE, TAILS, TRANSPOSED, Family
from npattn.oracle.mistakes.mistake import Apply, When, argument, dropped, gradient, instead, upstream, value
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def equal_parts(arrays: Sequence[Array], axis: int) -> bool:
    return len({a.shape for a in arrays}) == 1 and len(arrays) > 1


def equal_sizes(x: Array, sizes: Sequence[int], axis: int) -> bool:
    return len(set(sizes)) == 1 and len(sizes) > 1


def turned(parts: Sequence[Array], *_: Any) -> tuple[Array, ...]:
    return tuple(parts)[::-1]


def last_dropped(parts: Sequence[Array], *_: Any) -> tuple[Array, ...]:
    return *parts[:-1], dropped(parts[-1])


def one_late(x: Array, *others: Any) -> Array:
    return np.roll(x, -1, axis=others[-1])


TUNED_ON = [
    argument("concatenate", 0, "parts in the wrong order", turned, equal_parts),
    gradient("concatenate", None, "parts in the wrong order", turned, equal_parts),
    gradient("concatenate", None, "last part dropped", last_dropped),
    value("split", "parts in the wrong order", turned, equal_sizes),
    upstream("split", None, "last part dropped", last_dropped, lambda x, sizes, axis: len(sizes) > 1),
    upstream("split", None, "parts in the wrong order", turned, equal_sizes),
]
HELD_OUT = [
    argument("split", 0, "cut one position late", one_late, lambda x, sizes, axis: x.shape[axis] > 1),
    upstream("concatenate", None, "cut one position late", one_late, lambda arrays, axis: len(arrays) > 1),
]


def heads_together(x: Array, sizes: Sequence[int], axis: int) -> Array:
    """Take channels as query, key and value of the first head, then of the second."""
    heads = x.reshape(len(x), sizes[0], len(sizes), *x.shape[2:]).swapaxes(1, 2)
    return heads.reshape(x.shape)


def heads_interleaved(x: Array, sizes: Sequence[int], axis: int) -> Array:
    """Take every so many-th channel for a head."""
    mixed = x.reshape(len(x), len(sizes), x.shape[2], sizes[0], *x.shape[3:]).swapaxes(2, 3)
    return mixed.reshape(x.shape)


def channels_interleaved(x: Array, sizes: Sequence[int], axis: int) -> Array:
    """Write heads side by side that stand one behind the other."""
    mixed = x.reshape(len(x), len(sizes), sizes[0], *x.shape[2:]).swapaxes(2, 3)
    return mixed.reshape(x.shape)


def of_heads(x: Array, sizes: Sequence[int], axis: int) -> bool:
    return x.ndim == 4 and axis == 1 and len(set(sizes)) == 1 and min(sizes[0], len(sizes)) > 1


def product_of(y: Array, x: Array, *others: Any) -> Array:
    for other in others:
        x = x * other
    return x


def term_on_map(i: int) -> When:
    return lambda *terms: len(terms) == 2 and terms[i].ndim == 4 and min(terms[i].shape[2:]) > 1


def rotated(by: int) -> Apply:
    """Put parts in an order that begins elsewhere."""
    return lambda parts, axis: parts[by:] + parts[:by]


def several_parts(parts: Sequence[Array], axis: int) -> bool:
    return len(parts) > 2


def rows_reversed(i: int) -> Apply:
    return lambda *terms: terms[i][:, :, ::-1]


def dealt(groups_of: Apply) -> Apply:
    """Shuffle by another number of groups."""
    return lambda original, x, groups: original(x, groups_of(x.shape[1], groups))


def has_inverse(x: Array, groups: int) -> bool:
    """Tell whether shuffling the wrong way round is another order."""
    return 1 < groups < x.shape[1] and groups**2 != x.shape[1]


def is_dealt(x: Array, groups: int) -> bool:
    return 1 < groups < x.shape[1]


def over_map(family: Family, i: int) -> When:
    """Tell whether a term is a map of whole tiles and a rest."""
    return lambda *terms: len(terms) == 2 and terms[i].ndim == 4 and family.when(terms[i])


def exchanged(i: int) -> Apply:
    """Exchange a part and the next one."""

    def change(parts, *_):
        if i + 1 >= len(parts) or parts[i].shape != parts[i + 1].shape:
            raise ValueError("there are no such parts")
        return (*parts[:i], parts[i + 1], parts[i], *parts[i + 2 :])

    return change


NEIGHBOURS_EXCHANGED = [(f"parts {i + 1} and {i + 2} exchanged", exchanged(i)) for i in range(4)]


def several_alike(parts: Sequence[Array], axis: int) -> bool:
    return len(parts) > 2 and len({part.shape for part in parts}) < len(parts)


def heads_later(x: Array, sizes: Sequence[int], axis: int) -> Array:
    """Read the first part of all heads, then the second of all, where each head has its parts together."""
    heads = x.shape[1]
    rows = np.moveaxis(x, axis, 2)
    rest = rows.shape[3:]
    flat = rows.reshape(len(x), heads * rows.shape[2], *rest)
    ends = np.cumsum([0, *(heads * size for size in sizes)])
    parts = [
        flat[:, i:j].reshape(len(x), heads, size, *rest) for i, j, size in zip(ends, ends[1:], sizes, strict=False)
    ]
    return np.moveaxis(np.concatenate(parts, axis=2), 2, axis)


def within_heads(x: Array, sizes: Sequence[int], axis: int) -> bool:
    return axis > 1 and x.ndim > 4 and x.shape[1] > 1 and len(sizes) > 1


def unequal_parts(arrays: Sequence[Array], axis: int) -> bool:
    return not equal_parts(arrays, axis) and len(arrays) > 1


ADDED = [
    argument("split", 0, "all heads' first parts before their second ones", heads_later, within_heads),
    argument("concatenate", 0, "parts of several sizes in the wrong order", turned, unequal_parts),
    instead("channel_shuffle", "the wrong way round", dealt(lambda channels, groups: channels // groups), has_inverse),
    instead("channel_shuffle", "left out", dealt(lambda *_: 1), is_dealt),
    instead(
        *("channel_shuffle", "shuffled again", dealt(lambda channels, groups: channels // groups)),
        *(has_inverse,),
        way="backward",
    ),
    instead("channel_shuffle", "not undone", dealt(lambda *_: 1), is_dealt, way="backward"),
    argument("concatenate", 0, "last part first", rotated(-1), several_parts),
    argument("concatenate", 0, "first part last", rotated(1), several_parts),
    *(
        argument("add", i, f"{which} with rows in reverse", rows_reversed(i), term_on_map(i))
        for i, which in enumerate(("map", "branch"))
    ),
    argument("split", 0, "query, key and value of a head stored together", heads_together, of_heads),
    argument("split", 0, "heads interleaved", heads_interleaved, of_heads),
    argument("split", 0, "heads interleaved, the other way round", channels_interleaved, of_heads),
    value("add", "followed by a ReLU", lambda y, *terms: np.maximum(y, 0), lambda *terms: terms[0].ndim == 4),
    argument("add", 0, "residual rectified", lambda *terms: np.maximum(terms[0], 0), term_on_map(0)),
    value("add", "residual lost", lambda y, x, *others: y - x),
    value("add", "residual twice", lambda y, x, *others: y + x),
    value("add", "branch lost", lambda y, x, *others: x * 1.0),
    gradient("add", 0, "residual detached", dropped),
    gradient("add", 1, "branch detached", dropped),
    value("add", "branch twice", lambda y, x, *others: 2 * y - x),
    value("add", "branch in the residual's place too", lambda y, x, *others: 2 * (y - x)),
    *(
        family.in_argument("add", i, f"{which}: {family.name}", when=over_map(family, i))
        for i, which in enumerate(("map", "branch"))
        for family in (LAST_TILE, *TAILS)
    ),
    *(argument("concatenate", 0, name, change, several_alike) for name, change in NEIGHBOURS_EXCHANGED),
    *(
        gradient("concatenate", None, name, lambda g, *_, change=change: change(g), several_alike)
        for name, change in NEIGHBOURS_EXCHANGED
    ),
    value("add", "branch taken off", lambda y, x, *others: 2 * x - y),
    value("add", "product for sum", product_of),
    *(
        TRANSPOSED.in_argument("add", i, f"{which} with height and width exchanged", when=term_on_map(i))
        for i, which in enumerate(("map", "branch"))
    ),
    value("add", "mean for sum", lambda y, *terms: y / len(terms)),
    gradient("add", None, "mean for sum", lambda g, dy, *terms: tuple(d / len(terms) for d in g)),
]
