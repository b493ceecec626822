"""The caller's tensors in place of those that a golden case draws: read, checked, and rounded to the format."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from npattn.foreign_arrays import to_numpy
from npattn.module import Module
from npattn.oracle.formats import Format, representable
from npattn.wording import describe_type, did_you_mean, several_meant

__all__ = [
    "Change",
    "describe_changes",
    "describe_overflow",
    "read_inputs",
    "read_params",
    "read_upstream",
    "require_kept",
    "round_arrays",
]

Arrays = dict[str, np.ndarray]
MAX_DESCRIBED = 3
"""Arrays whose changes are told one by one."""


class Change(NamedTuple):
    """What rounding to a format has changed of an array.

    Attributes
    ----------
    changed, size : int
        Values that the format doesn't hold, and all values.
    largest : float
        The largest change of those within the format's range.
    beyond : int
        Values beyond its range, which have become infinite, or its largest number where the format saturates.

    Examples
    --------
    >>> print(Change(changed=3, size=20, largest=0.00012, beyond=1))
    3 of 20 values by at most 0.00012, 1 of them beyond its range
    """

    changed: int
    size: int
    largest: float
    beyond: int

    def __str__(self) -> str:
        beyond = f", {self.beyond} of them beyond its range" if self.beyond else ""
        return f"{self.changed} of {self.size} values by at most {self.largest:.2g}{beyond}"


def describe_changes(changes: Mapping[str, Change]) -> str:
    """Say what was rounded and how far: of a few arrays one by one, of more all at once.

    Examples
    --------
    >>> describe_changes({"inputs/x": Change(3, 20, 0.00012, 0), "params/w": Change(2, 2, 0.5, 0)})
    'inputs/x rounded in 3 of 20 values by at most 0.00012, params/w rounded in 2 of 2 values by at most 0.5'
    >>> describe_changes({name: Change(3, 20, 0.00012, 1) for name in ("inputs/x", "params/a", "params/b", "params/c")})
    'inputs/x, params/a, params/b, params/c rounded in 12 of 80 values by at most 0.00012, 4 of them beyond its range'
    """
    if len(changes) <= MAX_DESCRIBED:
        return ", ".join(f"{name} rounded in {change}" for name, change in changes.items())
    changed, size, largest, beyond = zip(*changes.values(), strict=True)
    return f"{', '.join(changes)} rounded in {Change(sum(changed), sum(size), max(largest), sum(beyond))}"


def describe_overflow(changes: Mapping[str, Change], format: Format) -> str:
    """Say what has become infinite by being rounded to a format; nothing if nothing has.

    Examples
    --------
    >>> from npattn.oracle.formats import FORMATS
    >>> describe_overflow({"inputs/x": Change(3, 20, 0.00012, 1)}, FORMATS["float16"])
    'inputs/x became infinite in 1 of 20 values when rounded to float16, whose largest number is 65504'
    """
    told = {name: one for name, one in changes.items() if one.beyond}
    beyond = [f"{name} became infinite in {one.beyond} of {one.size} values" for name, one in told.items()]
    if not beyond or format.saturates:
        return ""
    return f"{', '.join(beyond)} when rounded to {format.name}, whose largest number is {format.largest:.6g}"


def read_inputs(module: Module, given: Any) -> Arrays:
    """Read inputs, in float64, and check them as a call of the module does.

    Parameters
    ----------
    module : Module
    given : array, tuple of array or mapping of str to array
        The one input, all in call order, or all by name.

    Raises
    ------
    TypeError, ValueError
        If a name or shape is not what the module expects, or one of them is no array of real floating-point numbers.

    Examples
    --------
    >>> import npattn
    >>> read_inputs(npattn.EfficientChannelAttention(channels=4), np.ones((1, 5, 2, 2), np.float32))
    Traceback (most recent call last):
    ValueError: EfficientChannelAttention(...): x has shape (1, 5, 2, 2); expected (1, 4, 2, 2); the map has 5 ...
    """
    inputs = read_named("inputs", given, list(module.input_shapes(1, 1, 1)), counts=module.without_gradient)
    module.check_inputs(tuple(inputs.values()))
    return inputs


def read_params(module: Module, given: Any) -> Arrays:
    """Read parameters and buffers, in float64, as `Module.from_state_dict` takes them.

    Raises
    ------
    TypeError, ValueError
        As there, or if one of them is complex.
    """
    return {name: as_float64(f"params[{name!r}]", a) for name, a in module.from_state_dict(given).items()}


def read_upstream(given: Any, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """Read upstream gradients, in float64, for outputs of some shapes.

    Parameters
    ----------
    given : array, tuple of array or mapping of str to array
        That of the one output, of all in order, or of all by the output's name.
    shapes : mapping of str to tuple of int
        Of the outputs, by name.

    Raises
    ------
    TypeError, ValueError
        If a name or shape is another, or one of them is no array of real floating-point numbers.
    """
    upstream = read_named("upstream", given, list(shapes))
    for name, dy in upstream.items():
        if dy.shape != tuple(shapes[name]):
            raise ValueError(
                f"golden: upstream[{name!r}] has shape {dy.shape}; expected the output's, {tuple(shapes[name])}: "
                "give the inputs that it belongs to, or batch, height and width"
            )
    return upstream


def read_named(group: str, given: Any, names: list[str], counts: Collection[str] = ()) -> Arrays:
    """Read arrays under the names that are expected, in their order; some may be of integers or Booleans."""
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                left = [other for other in names if other not in given] or names
                meant = several_meant(name, names) or did_you_mean(name, left)
                raise ValueError(f"golden: {group} holds an unknown {name!r}{meant} (expected {', '.join(names)})")
        for name in names:
            if name not in given:
                raise ValueError(f"golden: {group} lacks {name!r} (expected {', '.join(names)})")
        values = {name: given[name] for name in names}
    else:
        several = given if isinstance(given, tuple) else (given,)
        if len(several) != len(names):
            what = f"a tuple of {len(several)}" if isinstance(given, tuple) else describe_type(given)
            raise TypeError(f"golden: {group} is {what}; expected a dict or tuple of {len(names)}: {', '.join(names)}")
        values = dict(zip(names, several, strict=True))
    return {name: as_float64(f"{group}[{name!r}]", value, counts=name in counts) for name, value in values.items()}


def as_float64(name: str, value: Any, *, counts: bool = False) -> np.ndarray:
    """Bring an array of any library to the host, in float64."""
    array = to_numpy(value, f"golden: {name}", counts=counts)
    if np.iscomplexobj(array):
        raise TypeError(f"golden: {name} has dtype {array.dtype}; expected real numbers")
    with np.errstate(over="ignore"):
        return array.astype(np.float64, order="C")


def round_arrays(arrays: Mapping[str, np.ndarray], format: Format) -> tuple[Arrays, dict[str, Change]]:
    """Round arrays to a format; tell what has changed of those of which something has.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray, float64
    format : Format

    Returns
    -------
    rounded : dict of numpy.ndarray, float64
    changes : dict of Change

    Examples
    --------
    >>> from npattn.oracle.formats import FORMATS
    >>> _, changes = round_arrays({"x": np.array([1.0, 1.001, 1e5]), "w": np.array([0.5])}, FORMATS["float16"])
    >>> {name: str(change) for name, change in changes.items()}
    {'x': '2 of 3 values by at most 2.3e-05, 1 of them beyond its range'}
    """
    rounded = {name: representable(values, format) for name, values in arrays.items()}
    changes = {name: change_of(values, rounded[name], format) for name, values in arrays.items()}
    return rounded, {name: change for name, change in changes.items() if change.changed}


def change_of(before: np.ndarray, after: np.ndarray, format: Format) -> Change:
    """Tell what rounding has changed."""
    changed = (before != after) & ~np.isnan(before)
    beyond = changed & (np.abs(before) > format.largest)
    within = changed & ~beyond
    largest = np.max(np.abs(after[within] - before[within]), initial=0.0)
    return Change(int(changed.sum()), before.size, float(largest), int(beyond.sum()))


def require_kept(call: str, name: str, values: np.ndarray, converted: Any) -> None:
    """Refuse an array of a kernel's dtype that holds other lengths, labels or the like than it was made of.

    Raises
    ------
    ValueError
    """
    try:
        made = to_numpy(converted, name, counts=True)
    except TypeError:  # of a library that can't be looked into
        return
    if made.shape != values.shape:
        return
    for index in np.argwhere(made != values)[:1]:
        one, other = values[tuple(index)], made[tuple(index)]
        raise ValueError(
            f"{call}: {name} has {one:g} at [{', '.join(map(str, index))}], of which convert makes {other:g}: say by "
            "exact=, as in exact=torch.tensor, how inputs without a gradient are made"
        )
