"""What is refused at the door: what was given, what was expected, for which name, what to do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from npattn.synonyms import STAND_INS, is_other_name, is_other_value, is_synonym, same_value
from npattn.wording import brief, describe_type, did_you_mean, suggest

__all__ = [
    "check_array",
    "check_hyperparameters",
    "check_map",
    "check_map_size",
    "check_names",
    "check_positions",
    "check_rows",
    "check_variance",
    "masked",
    "require_booleans",
    "require_choice",
    "require_equal_shares",
    "require_inputs",
    "require_integers",
    "require_numbers",
    "require_selection",
]


def require_integers(call: str, least: int | None = 1, **values: Any) -> None:
    """Refuse what is no integer, or too small.

    Raises
    ------
    TypeError
        If one of them is no integer (a bool is none either).
    ValueError
        If one of them is below `least`.
    """
    for name, value in values.items():
        if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise TypeError(f"{call}: {name}={brief(value)} is {describe_type(value)}; expected an int")
        if least is not None and value < least:
            raise ValueError(f"{call}: {name}={brief(value)}; expected an integer of at least {least}")


def require_numbers(call: str, **values: Any) -> None:
    """Refuse what is no finite real number.

    Raises
    ------
    TypeError
        If one of them is no number (a bool is none either).
    ValueError
        If one of them is infinite or NaN.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{call}: {name}={brief(value)} is {describe_type(value)}; expected a number")
        if not math.isfinite(value):
            raise ValueError(f"{call}: {name}={brief(value)}; expected a finite number")


def require_booleans(call: str, **values: Any) -> None:
    """Refuse what is neither True nor False.

    Raises
    ------
    TypeError
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{call}: {name}={brief(value)} is {describe_type(value)}; expected True or False")


def require_choice(call: str, choices: Collection[str], or_else: str = "", **values: Any) -> None:
    """Refuse what is none of the choices, naming the nearest, and what else the caller takes.

    Raises
    ------
    TypeError
        If one of them is no string.
    ValueError
        If one of them is another string.
    """
    listed = " or ".join(map(repr, choices)) + or_else
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{call}: {name}={brief(value)} is {describe_type(value)}; expected {listed}")
        if value not in choices:
            meant = suggest(same_value(value, choices))
            if not (meant or is_other_value(value, choices)):
                meant = did_you_mean(value, choices)
            raise ValueError(f"{call}: {name}={brief(value)}{meant} (expected {listed})")


def require_selection(call: str, choices: Collection[str], **values: Any) -> None:
    """Refuse what is no tuple or list of some of the choices, each at most once.

    Raises
    ------
    TypeError
        If one of them is neither tuple nor list.
    ValueError
        If one of them is empty, repeats a choice, or holds what is none; the nearest choice is named.
    """
    listed = ", ".join(choices)
    for name, value in values.items():
        if not isinstance(value, (tuple, list)):
            raise TypeError(
                f"{call}: {name}={brief(value)} is {describe_type(value)}; expected a tuple of some of {listed}"
            )
        for chosen in value:
            if not (isinstance(chosen, str) and chosen in choices):
                meant = did_you_mean(chosen, choices)
                raise ValueError(f"{call}: {name} holds an unknown {chosen!r}{meant} (expected some of {listed})")
            if value.count(chosen) > 1:
                raise ValueError(f"{call}: {name}={brief(value)} holds {chosen!r} twice; expected each at most once")
        if not value:
            raise ValueError(f"{call}: {name}={brief(value)}; expected at least one of {listed}")


def require_equal_shares(call: str, name: str, parts: int, of: str, total: int) -> None:
    """Refuse a number of parts that can't share a total equally, and say which totals would do.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> require_equal_shares("MHSA", "heads", 3, "channels", 16)
    Traceback (most recent call last):
    ValueError: MHSA: heads=3; expected a divisor of channels=16, an equal share for each: with 3 heads, 15 or 18 \
channels would do
    """
    if total % parts:
        below = total - total % parts
        fitting = " or ".join(str(fit) for fit in (below, below + parts) if fit)
        raise ValueError(
            f"{call}: {name}={parts}; expected a divisor of {of}={total}, an equal share for each: with {parts} "
            f"{name}, {fitting} {of} would do"
        )


def check_names(
    call: Any, given: Collection[str], expected: Mapping[str, tuple[int, ...]], noun: str = "parameter"
) -> None:
    """Refuse missing and unknown names, naming the nearest valid one.

    Raises
    ------
    ValueError
    """
    unknown = [name for name in given if name not in expected]
    missing = [name for name in expected if name not in given]
    if unknown:
        meant = did_you_mean(unknown[0], missing or expected)
        raise ValueError(f"{call}: unknown {noun} {unknown[0]!r}{meant} (expected {', '.join(expected) or 'none'})")
    if missing:
        raise ValueError(f"{call}: missing {noun} {missing[0]!r} of shape {expected[missing[0]]}")


def check_hyperparameters(
    call: str, given: Collection[str], expected: Collection[str], nested: Sequence[str] = ()
) -> None:
    """Refuse names of hyperparameters that a system lacks, naming those that may be meant, by use or by spelling.

    Parameters
    ----------
    call : str
        What the message begins with.
    given, expected : collection of str
    nested : sequence of str
        Hyperparameters of systems within, which may be meant too: "inner.channels".

    Raises
    ------
    TypeError

    Examples
    --------
    >>> check_hyperparameters("SE", ["ratio"], ["channels", "reduction"])
    Traceback (most recent call last):
    TypeError: SE: unknown hyperparameter 'ratio'; did you mean 'reduction'? (expected channels, reduction)
    """
    for name in given:
        if name not in expected:
            fields = {field: field.rpartition(".")[2] for field in (*expected, *nested)}
            ways = {field: (bare, f"{call.rpartition(' ')[2]}.{bare}") for field, bare in fields.items()}
            known = [field for field, names in ways.items() if any(is_synonym(name, each) for each in names)]
            others = [other for lacking, other in STAND_INS.items() if is_synonym(name, lacking)]
            known = known or [field for field, bare in fields.items() if bare in others]
            free = [field for field in known if field not in given]
            meant = suggest(free or known)
            if not (meant or is_other_name(name, fields.values())):
                meant = did_you_mean(name, (*expected, *nested))
            raise TypeError(
                f"{call}: unknown hyperparameter {name!r}{meant} (expected {', '.join(expected) or 'none'})"
            )


def check_array(
    call: Any, name: str, value: Any, like_name: str, like: Any, *, counts: bool = False, constant: bool = False
) -> None:
    """Refuse what is no array of this machine's floating-point numbers, or differs from `like` in dtype or in kind.

    Where it `counts`, integers and booleans will do as well, as in labels and masks. A `constant` may be real beside
    complex numbers, as in a system within another whose derivative is taken by complex step. NumPy's numbers are arrays
    without axes: what NumPy makes of one by computing with it.
    """
    value, like = (np.asarray(a) if isinstance(a, np.generic) else a for a in (value, like))
    if not (hasattr(value, "__array_ufunc__") and hasattr(value, "__array_function__") and hasattr(value, "shape")):
        raise TypeError(
            f"{call}: {name} is {describe_type(value)}; expected an array that follows NumPy's dispatch protocols: "
            "numpy.asarray(...) makes one on the host, cupy.asarray(...) on a GPU"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise masked(f"{call}: {name}")
    exact = counts and value.dtype.kind in "biu"
    if not (exact or issubclass(value.dtype.type, np.inexact)):
        raise TypeError(f"{call}: {name} has dtype {value.dtype}; expected floating point: convert it with .astype")
    if not (exact or value.dtype.isnative):
        native = value.dtype.newbyteorder("=")
        raise TypeError(
            f"{call}: {name} has dtype {value.dtype}, of another machine's byte order; expected {native}: "
            f".astype({str(native)!r}) makes it that"
        )
    if value is like:
        return
    if not (isinstance(value, type(like)) or isinstance(like, type(value))):
        raise TypeError(
            f"{call}: {name} is {describe_type(value)} but {like_name} is {describe_type(like)}; "
            "expected all on one device, in one kind of array"
        )
    beside = like.dtype.type(0).real.dtype if constant and like.dtype.kind == "c" else like.dtype
    if value.dtype not in (like.dtype, beside) and not exact:
        raise TypeError(
            f"{call}: {name} has dtype {value.dtype} but {like_name} has {like.dtype}; expected one dtype: "
            "convert one of them with .astype"
        )


def masked(name: str) -> TypeError:
    """Say why a masked array is refused: no computation here would leave anything out of it."""
    return TypeError(f"{name} is a masked array, some of whose numbers don't count; expected a plain one: .filled(...)")


def require_inputs(call: Any, inputs: Sequence[Any], names: Sequence[str]) -> None:
    """Refuse another number of inputs than there are names."""
    if len(inputs) != len(names):
        raise TypeError(f"{call}: got {len(inputs)} inputs; expected {len(names)}: {', '.join(names)}")


def check_map(call: Any, name: str, value: Any) -> None:
    """Refuse what is no map (batch, channels, height, width) of floating-point numbers with at least one position."""
    check_array(call, name, value, name, value)
    if value.ndim != 4:
        raise ValueError(
            f"{call}: {name} has shape {value.shape}; expected 4 axes, (batch, channels, height, width)"
            + (
                f"; a single image needs a batch axis: {name}[None]; tokens (batch, positions, channels) become one by "
                f"{name}.transpose(0, 2, 1).reshape(batch, channels, height, width)"
                if value.ndim == 3
                else ""
            )
        )
    if value.shape[2] == 0 or value.shape[3] == 0:
        raise ValueError(f"{call}: {name} has shape {value.shape}; expected at least one position")


def check_map_size(call: Any, inputs: Sequence[Any], size: tuple[int, int], what: str) -> None:
    """Refuse a map of another size than a system has parameters for, if it is a map of its channels at all."""
    for x in inputs[:1]:
        check_map(call, "x", x)
        if x.shape[1] == call.channels and tuple(x.shape[2:]) != size:
            raise ValueError(
                f"{call}: x has shape {x.shape}; expected a map of {size[0]} × {size[1]}, for which {what}: resize the "
                f"map, or set feat_size={tuple(x.shape[2:])}"
            )


def check_variance(call: Any, x: Any, name: str = "x") -> None:
    """Refuse a map whose channels have a single value in the whole batch: batch norm can't learn a variance from it."""
    if x.shape[0] * x.shape[2] * x.shape[3] < 2:
        raise ValueError(
            f"{call}: {name} has shape {x.shape}; expected at least two values in each channel for the variance that "
            "batch norm takes in training: give more images or positions, or set training=False"
        )


def check_positions(call: str, rows: Any, size: tuple[int, int]) -> list[int]:
    """Refuse `rows` that are no sequence of positions of a map of height × width, as `check_rows` does."""
    height, width = size
    hint = f": row r and column c of the map of {height} × {width} are position {width} r + c"
    return check_rows(call, rows, "positions", height * width, hint)


def check_rows(call: str, rows: Any, noun: str, count: int, hint: str = "") -> list[int]:
    """Refuse `rows` that are no sequence of what there are so many of; return a list of ints.

    Raises
    ------
    TypeError
        If it is no sequence, or not of integers.
    ValueError
        If one is none of them.
    """
    try:
        rows = list(rows)
    except TypeError:
        raise TypeError(
            f"{call}: rows={brief(rows)} is {describe_type(rows)}; expected a sequence of {noun}: [{brief(rows)}]"
        ) from None
    for row in rows:
        if isinstance(row, bool) or not isinstance(row, Integral):
            raise TypeError(f"{call}: rows holds {brief(row)}, {describe_type(row)}; expected ints")
        if not 0 <= int(row) < count:
            raise ValueError(f"{call}: rows holds {brief(row)}; expected {noun} from 0 to {count - 1}{hint}")
    return [int(row) for row in rows]
