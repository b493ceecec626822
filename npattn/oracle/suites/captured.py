"""What code that a function has made holds of it: the values that two classes of one text differ in."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Iterable
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

__all__ = ["UnwritableError", "hash_captured", "is_made"]

MAX_DEPTH = 20
"""Values in values."""
PLAIN = (bool, int, float, complex, str, bytes, range, slice, Enum, np.dtype)
"""What Python writes as the same text wherever it is equal."""
DESCRIPTORS = (FunctionType, classmethod, staticmethod, property, functools.cached_property)
"""What of a class is code, which its text tells."""


class UnwritableError(Exception):
    """A value that nothing stable can be written of."""


def hash_captured(code: Iterable[Any]) -> str:
    """Hash the values that classes and functions hold beside their text; nothing if they hold none.

    These are what a function captures, and of what a function has made, or `type`, its defaults and attributes too.

    Raises
    ------
    UnwritableError
        If one of them has no text that is the same in every process.

    Examples
    --------
    >>> def times(factor):
    ...     return lambda x: factor * x
    >>> hash_captured([times(2)]) == hash_captured([times(2)])
    True
    >>> hash_captured([times(2)]) == hash_captured([times(3)])
    False
    """
    held = sorted({json.dumps([name_of(one), values]) for one in code if (values := values_in(one))})
    return hashlib.sha256("\n".join(held).encode()).hexdigest() if held else ""


def values_in(one: Any) -> dict[str, Any]:
    """Write what a class or function holds beside its text, by name."""
    if isinstance(one, type):
        held = {name: value for name, value in vars(one).items() if not is_code(name, value)} if is_made(one) else {}
    elif isinstance(one, FunctionType) and one.__code__.co_filename != "<string>":
        cells = zip(one.__code__.co_freevars, one.__closure__ or (), strict=True)
        held = {name: getattr(cell, "cell_contents", None) for name, cell in cells}
        held = {name: value for name, value in held.items() if not isinstance(value, (type, FunctionType, ModuleType))}
        if is_made(one):
            held |= {"defaults": one.__defaults__, "named defaults": one.__kwdefaults__}
    else:
        return {}
    return {name: write(value) for name, value in sorted(held.items()) if value is not None}


def is_code(name: str, value: Any) -> bool:
    """Tell whether an attribute of a class is code, or Python's own."""
    return name.startswith(("__", "_abc_")) or isinstance(value, DESCRIPTORS) or inspect.isdatadescriptor(value)


def is_made(one: Any) -> bool:
    """Tell whether a class or function stands in no module by its name: a call has made it."""
    found: Any = sys.modules.get(one.__module__)
    for name in one.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is not one


def name_of(one: Any) -> str:
    """Return the name that a class or function has in its module."""
    return f"{one.__module__}.{one.__qualname__}"


def write(value: Any, depth: int = 0) -> list[Any]:
    """Write a value in JSON's terms, the same in every process: its type, and what it is made of."""
    if depth > MAX_DEPTH:
        raise UnwritableError(f"values are nested more than {MAX_DEPTH} times")
    inner = functools.partial(write, depth=depth + 1)
    parts: list[Any]
    if value is None or isinstance(value, PLAIN):
        parts = [repr(value)]
    elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        numbers = np.ascontiguousarray(value)
        parts = [numbers.dtype.str, list(value.shape), hashlib.sha256(numbers.tobytes()).hexdigest()]
    elif isinstance(value, (tuple, list)):
        parts = list(map(inner, value))
    elif isinstance(value, (set, frozenset)):
        parts = sorted(map(inner, value), key=json.dumps)
    elif isinstance(value, dict):
        parts = [[inner(key), inner(one)] for key, one in value.items()]
    elif isinstance(value, functools.partial):
        parts = [inner(value.func), inner(value.args), inner(value.keywords)]
    elif isinstance(value, (ModuleType, np.ufunc)):
        parts = [value.__name__]
    elif isinstance(value, type) or (hasattr(value, "__module__") and hasattr(value, "__qualname__")):
        parts = [name_of(value)]
    elif dataclasses.is_dataclass(value):
        parts = [inner(getattr(value, field.name)) for field in dataclasses.fields(value)]
    else:
        raise UnwritableError(f"{name_of(type(value))} has no text that is the same in every process")
    return [name_of(type(value)), *parts]
