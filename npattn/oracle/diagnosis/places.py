"""Where along the axes a result is wrong: the smallest sentence that says so, all else being right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from npattn.oracle.diagnosis.axes import list_words, plural, singular

__all__ = ["describe_indices", "describe_place"]

MIN_DENSITY = 0.3
"""Share of a place's elements that must be wrong: some are right by luck."""
MIN_DENSE_SHARE = 0.95
"""Share of a product's elements that are wrong, if two axes together would not say more."""
LARGE_PLACE, LARGE_PLACE_DENSITY = 0.9, 0.9
"""Share of a result from which on a place must be wrong nearly throughout: else what is beside it may be by luck."""
BLOCK_SIZES = (128, 64, 32, 16)
"""Lengths of blocks that kernels work in."""
MAX_LISTED = 3
"""Indices that are named one by one."""


def describe_place(wrong: np.ndarray, names: Sequence[str]) -> tuple[str, np.ndarray] | None:
    """Say where elements are wrong, by indices along the axes, or by two axes together; None where that says nothing.

    Parameters
    ----------
    wrong : numpy.ndarray of bool
    names : sequence of str
        Of the axes.

    Returns
    -------
    text : str
    place : numpy.ndarray of bool
        The elements that the text names, shaped as the result; none that it does not name is wrong.

    Examples
    --------
    >>> wrong = np.zeros((2, 4, 8, 8), bool)
    >>> wrong[1:, :, :, ::2] = True
    >>> describe_place(wrong, ("image", "channel", "row", "column"))[0]
    'image 1, even columns'
    >>> describe_place(np.triu(np.ones((8, 8), bool), 1), ("query", "key"))[0]
    'above the diagonal of queries and keys'
    """
    if not wrong.any() or wrong.all():
        return None
    axes = range(wrong.ndim)
    used = [np.flatnonzero(wrong.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    told = [
        describe_indices(indices, length, name) if indices.size < length else ""
        for indices, length, name in zip(used, wrong.shape, names, strict=True)
    ]
    inside = wrong[np.ix_(*used)]
    pair = None if inside.mean() >= MIN_DENSE_SHARE else describe_by_pair(wrong, used, told, names)
    if pair is not None:
        return pair
    if None in told or not any(told) or not is_dense(inside, wrong.size):
        return None
    place = np.zeros(wrong.shape, bool)
    place[np.ix_(*used)] = True
    return ", ".join(filter(None, told)), place


def describe_by_pair(
    wrong: np.ndarray, used: Sequence[np.ndarray], told: Sequence[str | None], names: Sequence[str]
) -> tuple[str, np.ndarray] | None:
    """Say where elements are wrong by two axes together, and by indices along each of the others."""
    axes = range(wrong.ndim)
    for pair in itertools.combinations(axes, 2):
        others = [axis for axis in axes if axis not in pair]
        found = describe_pair(np.asarray(wrong.any(axis=tuple(others))), [names[axis] for axis in pair])
        if found is None or any(told[axis] is None for axis in others):
            continue
        text, pattern = found
        place = np.zeros(wrong.shape, bool)
        place[np.ix_(*(np.arange(wrong.shape[axis]) if axis in pair else used[axis] for axis in axes))] = True
        place &= pattern.reshape([length if axis in pair else 1 for axis, length in enumerate(wrong.shape)])
        if is_dense(wrong[place], wrong.size):
            return ", ".join([*filter(None, (told[axis] for axis in others)), text]), place
    return None


def is_dense(inside: np.ndarray, size: int) -> bool:
    """Tell whether so much of a place is wrong that the place, of a result of some size, says where."""
    return bool(inside.mean() >= (MIN_DENSITY if inside.size < LARGE_PLACE * size else LARGE_PLACE_DENSITY))


def describe_indices(indices: np.ndarray, length: int, name: str) -> str | None:
    """Say which indices along an axis these are; None where no short words do.

    Examples
    --------
    >>> describe_indices(np.arange(84, 100), 100, "key"), describe_indices(np.arange(64, 100), 100, "key")
    ('the last 16 keys', 'the last 36 keys (beyond blocks of 64)')
    >>> describe_indices(np.array([0, 9]), 10, "row"), describe_indices(np.array([1, 4, 6, 7]), 10, "row")
    ('the first and the last row', None)
    """
    if indices.size == 1:
        return f"index {indices[0]} of {name}" if name.startswith("axis") else f"{name} {indices[0]}"
    found = describe_range if indices[-1] - indices[0] + 1 == indices.size else describe_pattern
    return found(indices, length, name)


def describe_range(indices: np.ndarray, length: int, name: str) -> str:
    """Say of successive indices which they are."""
    many, count, first = plural(name), indices.size, int(indices[0])
    if first + count == length:
        return describe_suffix(first, length, many)
    if first == 0:
        return f"the first {count} {many}"
    group = f" (group {first // count} of {length // count})" if length % count == first % count == 0 else ""
    return f"{many} {first} to {first + count - 1}{group}"


def describe_suffix(first: int, length: int, many: str) -> str:
    """Say of the last indices along an axis which they are."""
    count = length - first
    if first == 1:
        return f"{many} after the first"
    block = next((block for block in BLOCK_SIZES if first % block == 0 and count < block), None)
    return f"the last {count} {many}{f' (beyond blocks of {block})' if block else ''}"


def describe_pattern(indices: np.ndarray, length: int, name: str) -> str | None:
    """Say of indices with gaps which they are: every so many, those at both ends, or a few."""
    many, count, first = plural(name), indices.size, int(indices[0])
    step = int(indices[1]) - first
    if (
        np.array_equal(indices, np.arange(first, length, step))
        and first < step
        and (count > 2 or step == 2 < length - 1)
    ):
        return f"{'odd' if first else 'even'} {many}" if step == 2 else f"every {step}th of the {many}, from {first}"
    missing = np.setdiff1d(np.arange(length), indices)
    width = int(missing[0])
    if np.array_equal(missing, np.arange(width, length - width)):
        return f"the first and the last {singular(name)}" if width == 1 else f"the first and the last {width} {many}"
    return f"{many} {list_words([str(index) for index in indices])}" if count <= MAX_LISTED else None


def describe_pair(seen: np.ndarray, names: Sequence[str]) -> tuple[str, np.ndarray] | None:
    """Say where on two axes together the wrong elements lie."""
    if min(seen.shape) < 3 or seen.all():
        return None
    what = list_words([plural(name) for name in names])
    for text, pattern in pair_patterns(seen.shape):
        if (seen == pattern).all():
            return text.format(what), pattern
    return None


def pair_patterns(shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """List places on two axes."""
    row, column = np.indices(shape, sparse=True)
    edge = np.minimum(np.minimum(row, shape[0] - 1 - row), np.minimum(column, shape[1] - 1 - column))
    for width in range(1, (min(shape) + 1) // 2):
        yield f"a border of {width} of the {{}}", edge < width
    for width in range(1, (min(shape) + 1) // 2):
        yield f"all but a border of {width} of the {{}}", edge >= width
    offsets: list[tuple[str, Callable[[], np.ndarray]]] = [("", lambda: column - row)]
    if shape[0] != shape[1]:
        offsets.append((" that ends at the last of both", lambda: column - row - (shape[1] - shape[0])))
    for which, offset in offsets:
        d = offset()
        yield f"the diagonal of {{}}{which}", d == 0
        yield f"above the diagonal of {{}}{which}", d > 0
        yield f"below the diagonal of {{}}{which}", d < 0
        yield f"on and above the diagonal of {{}}{which}", d >= 0
        yield f"on and below the diagonal of {{}}{which}", d <= 0
        yield f"off the diagonal of {{}}{which}", d != 0
        for width in (1, 2):
            yield f"{width} above the diagonal of {{}}{which}", d == width
            yield f"{width} below the diagonal of {{}}{which}", d == -width
    yield "odd sums of {}, as on a chessboard", (row + column) % 2 == 1
    yield "even sums of {}, as on a chessboard", (row + column) % 2 == 0
    corner = math.prod(shape)
    if corner > 4:
        for vertical, horizontal in itertools.product((0, shape[0] - 1), (0, shape[1] - 1)):
            yield f"row {vertical} and column {horizontal} of {{}}", (row == vertical) | (column == horizontal)
