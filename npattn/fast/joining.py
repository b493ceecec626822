"""Large maps cut into parts and dealt out, copied on all cores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from npattn.fast.blocks import MIN_PARALLEL_SIZE, along, are_machine_floats, blocks, is_large
from npattn.fast.threads import parallel_for
from npattn.ops.context import CONTEXT
from npattn.ops.joining import channel_shuffle, concatenate, concatenate_and_shuffle, repeat, split
from npattn.typing import Array, Backward


def are_large_parts(arrays: Sequence[Array], axis: int) -> bool:
    """Tell whether all parts are large; lengths that differ along other axes are the definition's to refuse."""
    if not is_large(arrays[0]):
        return False
    rests = {array.shape[:axis] + array.shape[axis + 1 :] for array in arrays} if axis >= 0 else {}
    return len(rests) == 1 and is_large(*arrays) and all(is_large(array) for array in arrays)


@concatenate.faster(suits=are_large_parts)
def concatenate_in_blocks(arrays: Sequence[Array], axis: int) -> tuple[Array, Backward]:
    """Lay arrays end to end block by block."""
    sizes = [array.shape[axis] for array in arrays]

    def backward(dy):
        return split(dy, sizes, axis)[0]

    return join(arrays, axis), backward


@split.faster(suits=lambda x, sizes, axis: is_large(x) and axis >= 0)
def split_and_join_in_blocks(x: Array, sizes: Sequence[int], axis: int) -> tuple[tuple[Array, ...], Backward]:
    """Lay the gradients of parts end to end block by block."""
    parts, back = split.definition(x, sizes, axis)

    def backward(dparts):
        return join(dparts, axis) if all(is_large(dpart) for dpart in dparts) else back(dparts)

    return parts, backward


def join(parts: Sequence[Array], axis: int) -> Array:
    """Copy parts to where they stand end to end, on all cores."""
    first, ends = parts[0], list(itertools.accumulate(part.shape[axis] for part in parts))
    y = np.empty_like(first, shape=(*first.shape[:axis], ends[-1], *first.shape[axis + 1 :]), order="C")
    places = [y[along(axis, slice(end - part.shape[axis], end))] for end, part in zip(ends, parts, strict=True)]
    copy_in_blocks(*zip(places, parts, strict=True))
    return y


def makes_large(x: Array, times: int, axis: int) -> bool:
    """Tell whether a large map comes of it."""
    if type(x) is not np.ndarray or axis < 0:
        return False
    return x.size > 0 and x.size * times >= MIN_PARALLEL_SIZE and are_machine_floats(x)


@repeat.faster(suits=makes_large)
def repeat_parts_in_blocks(x: Array, times: int, axis: int) -> tuple[Array, Backward]:
    """Write all repetitions of a part at a time, and add up their gradients, on all cores.

    A single part is not written again: what reads its repetitions finds it in the cache.
    """
    shape = *x.shape[: axis + 1], times, *x.shape[axis + 1 :]
    parts = x.reshape(*x.shape[: axis + 1], 1, *x.shape[axis + 1 :])
    y = np.broadcast_to(parts, shape)
    cut = blocks(y, axis=min(axis, 1))
    if x.shape[axis] > 1:
        y = np.empty_like(x, shape=shape, order="C")

        def compute(block):
            y[block] = parts[block]

        parallel_for(compute, cut)

    def backward(dy):
        if not is_large(dy, x):
            return repeat.definition(x, times, axis)[1](dy)
        dx, given = np.empty_like(x, order="C"), dy.reshape(shape)
        parallel_for(lambda block: np.sum(given[block], axis=axis + 1, out=dx[block]), cut)
        return dx

    return y.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :]), backward


@channel_shuffle.faster(suits=lambda x, groups: is_large(x))
def channel_shuffle_in_blocks(x: Array, groups: int) -> tuple[Array, Backward]:
    """Copy some channels of each group at a time to where they go."""
    return shuffle_channels(x, groups), lambda dy: shuffle_channels(dy, dy.shape[1] // groups)


def shuffle_channels(x: Array, groups: int) -> Array:
    """Deal the channels of groups out in turn."""
    shape = len(x), groups, x.shape[1] // groups
    y = np.empty_like(x, shape=(shape[0], shape[2], groups, *x.shape[2:]), order="C")
    copy_in_blocks((y, x.reshape(*shape, *x.shape[2:]).swapaxes(1, 2)))
    return y.reshape(x.shape)


def are_whole_groups(parts: Sequence[Array], count: int, groups: int) -> bool:
    """Tell whether parts are large, no group is dealt out in two, and nobody asks for the joined map."""
    return count % groups == 0 and are_large_parts(parts, 1) and not CONTEXT.get().handlers


@concatenate_and_shuffle.faster(suits=are_whole_groups)
def concatenate_and_shuffle_at_once(parts: Sequence[Array], count: int, groups: int) -> tuple[Array, Backward]:
    """Copy the parts to where their channels go at last: the joined map is not made."""
    sizes, size = [part.shape[1] for part in parts], parts[0].shape[2:]
    shape = len(parts[0]) // count, count // groups, sum(sizes), groups, *size

    def places(y, parts):
        """Pair each part with the place of its channels."""
        joined = np.moveaxis(y.reshape(shape), 3, 1)
        cut = np.split(joined, list(itertools.accumulate(sizes))[:-1], axis=3)
        return [(place, part.reshape(place.shape)) for place, part in zip(cut, parts, strict=True)]

    y = np.empty_like(parts[0], shape=(shape[0], count * sum(sizes), *size), order="C")
    copy_in_blocks(*places(y, parts))

    def backward(dy):
        # In one block of memory: a part that is done with would leave a hole that little fits.
        ends = list(itertools.accumulate(part.size for part in parts))
        sections = np.split(np.empty_like(dy, shape=dy.size), ends[:-1])
        dparts = tuple(section.reshape(part.shape) for section, part in zip(sections, parts, strict=True))
        copy_in_blocks(*((dpart, place) for place, dpart in places(dy, dparts)))
        return dparts

    return y, backward


def copy_in_blocks(*pairs: tuple[Array, Array]) -> None:
    """Copy maps, pairs of (target, source), to where they belong, on all cores."""

    def copy(job):
        target, source, block = job
        copy_block(target[block], source[block])

    parallel_for(copy, [(*pair, block) for pair in pairs for block in blocks(pair[1], min(1, pair[1].ndim - 1))])


def copy_block(target: Array, source: Array) -> None:
    """Copy numbers as products with 1, which are as quick as a copy and keep clear of the C library's.

    On processors of AMD's some versions of it copy rows of several kilobytes at a tenth of their rate where one begins
    16 bytes further in its page than the other: so do large arrays that are made one after the other.
    """
    np.multiply(source, 1, out=target)
