"""What the axes of a result count, in the field's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from npattn.oracle.golden_files.described import axes_of

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["list_plurals", "list_words", "name_axes", "plural", "singular"]

PARAMETER_AXES = {
    1: ("channel",),
    2: ("output channel", "input channel"),
    3: ("output channel", "input channel", "tap"),
    4: ("output channel", "input channel", "kernel row", "kernel column"),
}
MAP_AXES = "image", "channel", "row", "column"


def name_axes(case: Case, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Name what each axis of a result counts; ``"axis 2"`` where that is not known.

    Examples
    --------
    >>> import npattn
    >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=3, width=3)
    >>> name_axes(case, "x.grad", (1, 4, 3, 3))
    ('image', 'channel', 'row', 'column')
    >>> name_axes(case, "conv.weight.grad", (1, 1, 3))
    ('output channel', 'input channel', 'tap')
    """
    return find_names(case, name, shape) or tuple(f"axis {axis}" for axis in range(len(shape)))


def find_names(case: Case, name: str, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Tell the kind of a result by its name and shape."""
    base = name.removesuffix(".grad")
    if base in case.params:
        return PARAMETER_AXES.get(len(shape))
    axes = axes_of(case.module)
    if axes == "heads" and len(shape) == 4:
        if base in ("bias", "mask"):
            return "image", "head", "query", "key"
        return "image", "head", "key" if base in ("key", "value") else "query", "channel"
    first = next(iter(case.inputs.values())).shape if axes == "maps" else ()
    if len(first) == len(shape) == 4 and (shape[2:] == first[2:] or base in (*case.inputs, *case.upstream)):
        return MAP_AXES
    if len(first) == 4 and shape[1:] == first[2:]:
        return "image", "row", "column"
    return MAP_AXES[:2] if len(first) == 4 and shape == first[:2] else None


def plural(name: str) -> str:
    """Return the plural of what an axis counts.

    Examples
    --------
    >>> plural("query"), plural("kernel row"), plural("axis 2")
    ('queries', 'kernel rows', 'indices of axis 2')
    """
    if name.startswith("axis"):
        return f"indices of {name}"
    return f"{name[:-1]}ies" if name.endswith("y") and name != "key" else f"{name}s"


def singular(name: str) -> str:
    """Return what an axis counts.

    Examples
    --------
    >>> singular("query"), singular("axis 2")
    ('query', 'index of axis 2')
    """
    return f"index of {name}" if name.startswith("axis") else name


def list_plurals(names: Sequence[str]) -> str:
    """Join what several axes count.

    Examples
    --------
    >>> list_plurals(["row", "column"]), list_plurals(["axis 0", "axis 2"])
    ('rows and columns', 'axes 0 and 2')
    """
    if len(names) > 1 and all(name.startswith("axis") for name in names):
        return f"axes {list_words([name.removeprefix('axis ') for name in names])}"
    return list_words([plural(name) for name in names])


def list_words(words: Sequence[str], last: str = "and") -> str:
    """Join words as a sentence lists them.

    Examples
    --------
    >>> list_words(["rows", "columns", "channels"])
    'rows, columns and channels'
    """
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
