"""Mistakes in what puts arrays together and takes them apart."""

import numpy as np

from npattn.oracle.mistakes.mistake import argument, dropped, gradient, upstream, value

__all__ = ["HELD_OUT", "TUNED_ON"]


def equal_parts(arrays, axis):
    return len({a.shape for a in arrays}) == 1 and len(arrays) > 1


def equal_sizes(x, sizes, axis):
    return len(set(sizes)) == 1 and len(sizes) > 1


def turned(parts, *_):
    return tuple(parts)[::-1]


def last_dropped(parts, *_):
    return *parts[:-1], dropped(parts[-1])


def one_late(x, *others):
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
