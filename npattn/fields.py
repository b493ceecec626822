"""Hyperparameters declared with what they may be: ``channels: int = integer(least=1)``.

Each function here makes a dataclass's field, and puts beside it the check that `npattn.Module` runs when an instance is
made. Without a `default` the hyperparameter has to be given; where the default is None, None is allowed as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from numbers import Integral
from typing import Any

from npattn.checks import (
    require_booleans,
    require_choice,
    require_equal_shares,
    require_integers,
    require_numbers,
    require_selection,
)
from npattn.scalars import python_scalar
from npattn.wording import brief, describe_type

__all__ = [
    "boolean",
    "check_fields",
    "check_value",
    "checked",
    "choice",
    "choices",
    "integer",
    "integers",
    "number",
    "positive",
    "probability",
    "side",
    "two_integers",
]

REQUIRED = dataclasses.MISSING
"""The default of what has none."""


def checked(
    check: Callable[[str, str, Any], Any], default: Any = REQUIRED, *, divides: str = "", options: Collection[str] = ()
) -> Any:
    """Declare a hyperparameter with a check of one's own.

    Parameters
    ----------
    check : callable
        ``check(system, name, value)`` returns the value to keep, or raises; `system` is the class's name.
    default : optional
        Without it the hyperparameter has to be given.
    divides : str, optional
        Another hyperparameter, of which it must be a divisor.
    options : collection of str, optional
        The strings that it is one of, or a tuple of some of.

    Returns
    -------
    dataclasses.Field

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from npattn import SqueezeExcitation
    >>> def even(system, name, value):
    ...     if value % 2:
    ...         raise ValueError(f"{system}: {name}={value}; expected an even number")
    ...     return value
    >>> @dataclass(frozen=True)
    ... class Grouped(SqueezeExcitation):
    ...     groups: int = checked(even, default=2)
    >>> Grouped(channels=8, groups=3)
    Traceback (most recent call last):
    ValueError: Grouped: groups=3; expected an even number
    """
    return dataclasses.field(default=default, metadata={"check": check, "divides": divides, "options": options})


def integer(
    least: int,
    default: Any = REQUIRED,
    *,
    most: int | None = None,
    odd: bool = False,
    even: bool = False,
    divides: str = "",
) -> Any:
    """Declare an integer that is at least so large; no larger than `most`, odd or even, and a divisor, if it is to be.

    Examples
    --------
    >>> import npattn
    >>> npattn.SqueezeExcitation(channels=0)
    Traceback (most recent call last):
    ValueError: SqueezeExcitation: channels=0; expected an integer of at least 1
    >>> npattn.MultiHeadSelfAttention(channels=16, heads=3)
    Traceback (most recent call last):
    ValueError: MultiHeadSelfAttention: heads=3; expected a divisor of channels=16, an equal share for each: with 3 \
heads, 15 or 18 channels would do
    """

    def check(system: str, name: str, value: Any) -> Any:
        check_integer(system, name, value, least, odd)
        if even and value % 2:
            raise ValueError(f"{system}: {name}={value}; expected an even number: {value - 1} or {value + 1}")
        if most is not None and value > most:
            either = f"{least} or {most}" if most == least + 1 else f"an integer from {least} to {most}"
            raise ValueError(f"{system}: {name}={value}; expected {either}")
        return value

    return checked(check, default, divides=divides)


def integers(least: int, default: tuple[int, ...], *, odd: bool = False) -> Any:
    """Declare a tuple of at least one integer, each as `integer` would have it; a list is kept as a tuple.

    Examples
    --------
    >>> import npattn
    >>> npattn.MultiScaleConcat(8, 4, rates=())
    Traceback (most recent call last):
    ValueError: MultiScaleConcat: rates=(); expected at least one integer, such as (12, 24, 36)
    """

    def check(system: str, name: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, (tuple, list)):
            raise TypeError(f"{system}: {name}={brief(value)} is {describe_type(value)}; expected a tuple of ints")
        if not value:
            raise ValueError(f"{system}: {name}={value}; expected at least one integer, such as {default}")
        for i, one in enumerate(value):
            check_integer(system, f"{name}[{i}]", one, least, odd)
        return tuple(value)

    return checked(check, default)


def check_integer(system: str, name: str, value: Any, least: int, odd: bool) -> None:
    """Refuse what is no integer, too small or, where it is to be odd, even."""
    require_integers(system, least, **{name: value})
    if odd and value % 2 == 0:
        raise ValueError(
            f"{system}: {name}={value}; expected an odd number, which has as many neighbours on either side: "
            f"{value - 1} or {value + 1}"
        )


def number(default: Any = REQUIRED, *, nonzero: bool = False) -> Any:
    """Declare a finite real number, other than 0 if it is to be.

    Examples
    --------
    >>> import npattn
    >>> npattn.EfficientChannelAttention(channels=8, gamma=0)
    Traceback (most recent call last):
    ValueError: EfficientChannelAttention: gamma=0; expected a number other than 0
    """

    def check(system: str, name: str, value: Any) -> Any:
        require_numbers(system, **{name: value})
        if nonzero and value == 0:
            raise ValueError(f"{system}: {name}={value}; expected a number other than 0")
        return int_or_float(value)

    return checked(check, default)


def int_or_float(value: Any) -> int | float:
    """Return a number as Python's own: a fraction can't be computed with, and NumPy's would lift arrays."""
    return value if type(value) in (int, float) else int(value) if isinstance(value, Integral) else float(value)


def positive(default: Any = REQUIRED) -> Any:
    """Declare a finite real number above 0.

    Examples
    --------
    >>> import npattn
    >>> npattn.SimAM(channels=8, e_lambda=0)
    Traceback (most recent call last):
    ValueError: SimAM: e_lambda=0; expected a number above 0
    """

    def check(system: str, name: str, value: Any) -> Any:
        require_numbers(system, **{name: value})
        if value <= 0:
            either = ", or None" if default is None else ""
            raise ValueError(f"{system}: {name}={value}; expected a number above 0{either}")
        return int_or_float(value)

    return checked(check, default)


def probability(default: Any = REQUIRED) -> Any:
    """Declare a probability that is not 1."""

    def check(system: str, name: str, value: Any) -> Any:
        require_numbers(system, **{name: value})
        if not 0 <= value < 1:
            raise ValueError(f"{system}: {name}={value}; expected a probability of at least 0 and below 1")
        return int_or_float(value)

    return checked(check, default)


def boolean(default: Any = REQUIRED) -> Any:
    """Declare what is True or False."""

    def check(system: str, name: str, value: Any) -> Any:
        require_booleans(system, **{name: value})
        return value

    return checked(check, default)


def choice(options: Collection[str], default: Any = REQUIRED) -> Any:
    """Declare one of some strings."""

    def check(system: str, name: str, value: Any) -> Any:
        require_choice(system, options, ", or None" if default is None else "", **{name: value})
        return next(option for option in options if option == value)

    return checked(check, default, options=options)


def choices(options: Collection[str], default: Any = REQUIRED) -> Any:
    """Declare a tuple of some of some strings, each at most once; a list is kept as a tuple."""

    def check(system: str, name: str, value: Any) -> tuple[str, ...]:
        require_selection(system, options, **{name: value})
        return tuple(next(option for option in options if option == chosen) for chosen in value)

    return checked(check, default, options=options)


def two_integers(default: Any = REQUIRED, *, least: int = 1, names: tuple[str, str] = ("height", "width")) -> Any:
    """Declare a pair of integers of at least so much; a list is kept as a tuple.

    Parameters
    ----------
    default : optional
        Without it the hyperparameter has to be given.
    least : int, default 1
    names : pair of str, default ("height", "width")
        What the two are.

    Returns
    -------
    dataclasses.Field

    Examples
    --------
    >>> import npattn
    >>> npattn.BottleneckAttention(channels=16, feat_size=7)
    Traceback (most recent call last):
    ValueError: BottleneckAttention: feat_size=7; expected a pair (height, width)
    """

    def check(system: str, name: str, value: Any) -> tuple[int, int]:
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            either = "None or " if default is None else ""
            raise ValueError(f"{system}: {name}={value!r}; expected {either}a pair ({', '.join(names)})")
        first, second = value
        require_integers(system, least, **{f"{name}[0]": first, f"{name}[1]": second})
        return first, second

    return checked(check, default)


def side(least: int, default: Any = REQUIRED) -> Any:
    """Declare an integer, or a pair of integers for height and width, of at least so much; a list is kept as a tuple.

    Examples
    --------
    >>> import npattn
    >>> npattn.WindowAttention(8, heads=2, window=(7, 0))
    Traceback (most recent call last):
    ValueError: WindowAttention: window[1]=0; expected an integer of at least 1
    """

    def check(system: str, name: str, value: Any) -> int | tuple[int, int]:
        if not isinstance(value, (tuple, list)):
            require_integers(system, least, **{name: value})
            return value
        if len(value) != 2:
            raise ValueError(f"{system}: {name}={value!r}; expected an integer, or a pair (height, width)")
        height, width = value
        require_integers(system, least, **{f"{name}[0]": height, f"{name}[1]": width})
        return height, width

    return checked(check, default)


def check_fields(module: Any) -> None:
    """Check every field of a dataclass's instance that was declared with a check; keep what the check returns.

    Scalars of NumPy are kept as Python's: an `eps` of float64 would lift a map of float32.
    """
    name, declared = type(module).__name__, dataclasses.fields(module)
    for field in declared:
        if "check" in field.metadata:
            value = value_of(module, field.name)
            kept = check_value(name, field, value)
            if kept is not value:
                object.__setattr__(module, field.name, kept)
    for field in declared:
        if whole := field.metadata.get("divides"):
            require_equal_shares(name, field.name, getattr(module, field.name), whole, value_of(module, whole))


def check_value(system: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """Check a value as its field declares it, whatever others are; return what is kept."""
    check = field.metadata.get("check")
    if check is None or (value is None and field.default is None):
        return value
    return python_scalar(check(system, field.name, value))


def value_of(module: Any, name: str) -> Any:
    """Return what a field holds; say what to do about one that no argument sets, where it is looked at too early."""
    try:
        return getattr(module, name)
    except AttributeError:
        raise TypeError(
            f"{type(module).__name__}: {name} has no value yet when it is checked; set it before "
            f"super().__post_init__(), by object.__setattr__(self, {name!r}, ...)"
        ) from None
