"""What is refused of hyperparameters and names: what was given, what was expected, for which name, what to do."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from npattn.synonyms import STAND_INS, is_other_name, is_other_value, is_synonym, same_value
from npattn.wording import brief, describe_type, did_you_mean, suggest

__all__ = [
    "check_hyperparameters",
    "check_names",
    "require_addressable",
    "require_booleans",
    "require_choice",
    "require_equal_shares",
    "require_inexact",
    "require_integers",
    "require_numbers",
    "require_seed",
    "require_selection",
]


MAX_SEED = 2**32 - 1
"""Of `RandomState`."""
MAX_NUMBERS = sys.maxsize // 16
"""Numbers of an array whose bytes can be addressed, of the longest real ones too."""


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


def require_addressable(call: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse sizes that make arrays which no memory holds; to any less, the memory of the machine has its say.

    Raises
    ------
    ValueError
    """
    for name, shape in shapes.items():
        if math.prod(map(int, shape)) > MAX_NUMBERS:
            raise ValueError(
                f"{call}: {name} would be of shape {brief(tuple(shape))}, more numbers than any memory holds; "
                "expected smaller sizes"
            )


def require_seed(call: str, seed: Any) -> int:
    """Return a seed of NumPy's frozen `RandomState` as an int; refuse what is none.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is negative, or of more than 32 bits.
    """
    require_integers(call, least=0, seed=seed)
    if seed > MAX_SEED:
        raise ValueError(f"{call}: seed={brief(seed)}; expected an integer of at most 2**32 - 1")
    return int(seed)


def require_numbers(call: str, **values: Any) -> None:
    """Refuse what is no finite real number.

    Raises
    ------
    TypeError
        If one of them is no number (a bool is none either).
    ValueError
        If one of them is infinite or NaN, or beyond what a float holds.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{call}: {name}={brief(value)} is {describe_type(value)}; expected a number")
        try:
            finite = math.isfinite(value)
        except OverflowError:  # an integer, or a fraction
            finite = False
        if not finite:
            raise ValueError(f"{call}: {name}={brief(value)}; expected a finite number")


def require_inexact(call: str, dtype: Any) -> np.dtype[Any]:
    """Return a dtype; refuse what is none, or not of floating-point or complex numbers.

    Raises
    ------
    TypeError

    Examples
    --------
    >>> require_inexact("init", int)
    Traceback (most recent call last):
    TypeError: init: dtype=<class 'int'>; expected one of floating-point or complex numbers, such as np.float32
    """
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(
            f"{call}: dtype={brief(dtype)} is {describe_type(dtype)}, and no dtype of NumPy; expected one, such as "
            "np.float32"
        ) from None
    added = found.kind == "V" and found.type is not np.void  # by other packages, as bfloat16 is
    if found.kind not in "fc" and not added:
        raise TypeError(
            f"{call}: dtype={brief(dtype)}; expected one of floating-point or complex numbers, such as np.float32"
        )
    return found


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
