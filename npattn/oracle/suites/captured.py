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
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

import numpy as np

__all__ = ["UnwritableError", "hash_captured", "is_made"]

MAX_DEPTH = 20
"""Values in values."""
PLAIN = (bool, int, float, complex, str, bytes, range, slice, Enum, np.dtype)
"""What Python writes as the same text wherever it is equal."""
DESCRIPTORS = (FunctionType, classmethod, staticmethod, property, functools.cached_property)
"""What of a class is code, which its text tells."""
METHODS = (MethodType, BuiltinFunctionType, MethodWrapperType)
"""What may be bound to a value."""
CACHES = type(functools.lru_cache(abs))
"""What holds a function, whose attributes it has."""


class UnwritableError(Exception):
    """A value that nothing stable can be written of."""


def hash_captured(code: Iterable[Any]) -> str:
    """Hash the values that classes and functions hold beside their text; nothing if they hold none.

    These are what a function captures, and of what a function has made, or `type`, its defaults and attributes too.
    Functions and classes among them are known by their names, and by what they hold in turn.

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


def values_in(one: Any, met: dict[int, int] | None = None, depth: int = 0) -> dict[str, Any]:
    """Write what a class or function holds beside its text, by name."""
    held: dict[str, Any] = {}
    if isinstance(one, type) and is_made(one):
        held = {name: value for name, value in vars(one).items() if not is_text(one, name, value)}
        held |= {"metaclass": type(one)} if is_made(type(one)) else {}
    elif isinstance(one, FunctionType) and not is_generated(one):
        cells = zip(one.__code__.co_freevars, one.__closure__ or (), strict=True)
        held = {name: getattr(cell, "cell_contents", None) for name, cell in cells if name != "__class__"}
        if is_made(one):
            held |= vars(one) | {"defaults": one.__defaults__, "named defaults": one.__kwdefaults__}
    met = {id(one): 0} if met is None else met
    return {name: write(value, depth, met) for name, value in sorted(held.items()) if value is not None}


def is_text(owner: type, name: str, value: Any) -> bool:
    """Tell whether an attribute of a class is Python's own, or code of the class that holds nothing beside its text."""
    if name.startswith("_abc_") or (name.startswith("__") and not isinstance(value, DESCRIPTORS)):
        return True
    if not isinstance(value, DESCRIPTORS):
        return inspect.isdatadescriptor(value)
    inside = f"{name_of(owner)}.{name}"
    functions = [one for one in parts_of(value) or [value] if isinstance(one, FunctionType)]
    return all(is_generated(one) or (name_of(one) == inside and not values_in(one)) for one in functions)


def is_generated(function: FunctionType) -> bool:
    """Tell whether Python wrote a function's text, as those of dataclasses."""
    return getattr(function, "__wrapped__", function).__code__.co_filename == "<string>"


def is_made(one: Any) -> bool:
    """Tell whether a class or function stands in no module by its name: a call has made it."""
    if isinstance(one, type) and "__module__" not in vars(one):  # of Python's own, and of C
        return False
    found: Any = sys.modules.get(one.__module__)
    for name in one.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is not one


def name_of(one: Any) -> str:
    """Return the name that a class or function has in its module."""
    return f"{one.__module__}.{one.__qualname__}"


def parts_of(value: Any) -> list[Any] | None:
    """List what a value is made of; None if it is no collection, no record, and no function that holds another."""
    parts = None
    if isinstance(value, (tuple, list, set, frozenset)):
        parts = [*value, *attributes_of(value)]
    elif isinstance(value, dict):
        parts = [*(one for pair in value.items() for one in pair), *attributes_of(value)]
    elif isinstance(value, functools.partial):
        parts = [value.func, value.args, value.keywords, *attributes_of(value)]
    elif isinstance(value, METHODS):
        parts = [getattr(value, "__func__", value.__name__), value.__self__]
    elif isinstance(value, CACHES):
        parts = [value.__wrapped__]
    elif isinstance(value, property):
        parts = [value.fget, value.fset]
    elif isinstance(value, functools.cached_property):
        parts = [value.func]
    elif isinstance(value, (classmethod, staticmethod)):
        parts = [value.__func__]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return parts


def attributes_of(value: Any) -> list[dict[str, Any]]:
    """List the attributes that a subclass of Python's or NumPy's own gives a value, if it has some."""
    found = getattr(value, "__dict__", None)
    return [found] if found else []


def write(value: Any, depth: int = 0, met: dict[int, int] | None = None) -> list[Any]:
    """Write a value in JSON's terms, the same in every process: its type, and what it is made of.

    Of a function or class these are its name and what it holds; where it is met once more, a number.
    """
    if depth > MAX_DEPTH:
        raise UnwritableError(f"values are nested more than {MAX_DEPTH} times")
    met = {} if met is None else met
    inner = functools.partial(write, depth=depth + 1, met=met)
    kind: Any = name_of(type(value))
    if isinstance(value, (type, FunctionType)):
        if id(value) in met:
            return [kind, met[id(value)]]
        met[id(value)] = len(met)
        return [kind, name_of(value), values_in(value, met, depth + 1)]
    parts = parts_of(value)
    if value is None or isinstance(value, PLAIN):
        written = [repr(value)]
    elif isinstance(value, (ModuleType, np.ufunc)):
        written = [value.__name__]
    elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        written = [value.dtype.str, list(value.shape), digest, *map(inner, attributes_of(value))]
    elif isinstance(value, (set, frozenset)):  # in no order, so that none is numbered by another
        written = sorted((write(one, depth + 1, dict(met)) for one in parts or []), key=json.dumps)
    elif parts is not None:
        kind = inner(type(value)) if is_made(type(value)) else kind
        written = list(map(inner, parts))
    elif hasattr(value, "__module__") and hasattr(value, "__qualname__"):
        written = [name_of(value)]
    else:
        raise UnwritableError(f"{kind} has no text that is the same in every process")
    return [kind, *written]
