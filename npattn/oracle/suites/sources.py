"""The code of systems of somebody's own, by which a suite knows whether a file was made by it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import linecache
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import Any

from npattn.module import Module
from npattn.oracle.suites.captured import MAX_DEPTH, PLAIN, UnwritableError, hash_captured, is_made, parts_of, write
from npattn.oracle.systems import is_known

__all__ = ["UNREAD", "captured_by", "hash_system"]

UNREAD = "unread"
"""In place of a hash: the code is in no file, so that nobody knows whether it is the same."""
OF_OTHERS = frozenset(("npattn", "numpy", "scipy", *sys.stdlib_module_names)) - {"__main__"}
"""Packages that are known by their versions, or change little."""
MAKERS = frozenset(("abc", "types"))
"""What Python takes for the module of a class that is made by `type` or of fields."""


def hash_system(module: Module) -> str | None:
    """Hash the files that a system of somebody's own stands in, and those of what it calls.

    Parameters
    ----------
    module : Module

    Returns
    -------
    str or None
        `UNREAD` where the text is not at hand; None for a system that npattn brings.

    Examples
    --------
    >>> import npattn
    >>> hash_system(npattn.CBAM(channels=16)) is None
    True
    """
    if is_known(module):
        return None
    met = collect_all(module)
    texts = {text_of(one) for one in met if isinstance(one, FunctionType)}
    if not texts or "" in texts or captured_by(module) == UNREAD:
        return UNREAD
    found = hashlib.sha256()
    for text in (*sorted(texts), *settings_of(met)):
        found.update(f"{len(text)}\n{text}".encode())
    return found.hexdigest()


def settings_of(met: Iterable[Any]) -> list[str]:
    """Write the values that functions may read by a name, of their own module or another, and be set from elsewhere.

    What has no text that is the same in every process is left out.
    """
    found = set()
    for one in met:
        if isinstance(one, FunctionType):
            names = set(names_in(one.__code__)) & one.__globals__.keys()
            for value in (one.__globals__[name] for name in names):
                for each in values_of(value) if isinstance(value, ModuleType) else (value,):
                    if not isinstance(each, ModuleType):
                        with suppress(UnwritableError):
                            found.add(json.dumps(write(each)))
    return sorted(found)


def values_of(module: ModuleType) -> list[Any]:
    """List what stands in a module of somebody's own under a name; nothing of another."""
    return [] if is_of_others(module) else [one for name, one in vars(module).items() if not name.startswith("__")]


def captured_by(module: Module) -> str:
    """Hash the values that code of a system of somebody's own holds beside its text; nothing if it holds none.

    Two classes that a function has made may have one name and one text, and differ in these alone.

    Parameters
    ----------
    module : Module

    Returns
    -------
    str
        `UNREAD` where one of them can't be written.
    """
    if is_known(module):
        return ""
    try:
        return hash_captured(collect_all(module))
    except UnwritableError:
        return UNREAD


def collect_all(module: Module) -> dict[Any, None]:
    """Note the classes and functions of somebody's own that a system is made of."""
    met: dict[Any, None] = {}
    for system in systems_in(module):
        collect(system, met)
    return met


def systems_in(module: Module) -> Iterator[type[Module]]:
    """Go through the classes of a system and of those within it."""
    yield type(module)
    for field in dataclasses.fields(module):
        part = getattr(module, field.name)
        for one in part if isinstance(part, (tuple, list)) else (part,):
            if isinstance(one, Module):
                yield from systems_in(one)


def collect(one: Any, met: dict[Any, None]) -> None:
    """Note a function or a class of somebody's own, and all that it refers to by a name or holds in a value."""
    if not isinstance(one, (FunctionType, type)):
        for code in code_in(one, set()):
            collect(code, met)
        return
    if one in met or is_of_others(one):
        return
    met[one] = None
    if isinstance(one, type):
        for base in (*one.__mro__[1:], type(one)):
            collect(base, met)
        for value in vars(one).values():
            collect(value, met)
    else:
        for name in names_in(one.__code__):
            value = one.__globals__.get(name)
            for each in values_of(value) if isinstance(value, ModuleType) else (value,):
                collect(getattr(each, "definition", each), met)
        for cell in one.__closure__ or ():
            collect(getattr(cell, "cell_contents", None), met)


def code_in(value: Any, met: set[int], depth: int = 0) -> Iterator[Any]:
    """Go through the functions and classes that a value is made of, to the depth to which values are written."""
    if isinstance(value, (FunctionType, type)):
        yield value
    elif id(value) not in met and not isinstance(value, PLAIN) and depth <= MAX_DEPTH:
        met.add(id(value))
        for part in (type(value), *(parts_of(value) or ())):
            yield from code_in(part, met, depth + 1)


def is_of_others(one: Any) -> bool:
    """Tell whether something is of a package whose code is known otherwise."""
    name = one.__name__ if isinstance(one, ModuleType) else str(one.__module__)
    made = name in MAKERS and isinstance(one, type) and is_made(one)
    return name.partition(".")[0] in OF_OTHERS and not made


def names_in(code: CodeType) -> Iterator[str]:
    """Go through the names that some code reads, and the functions in it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from names_in(inner)


def text_of(function: FunctionType) -> str:
    """Return the text of a function's file; of what a dataclass generates, which has none, its name."""
    if function.__code__.co_filename == "<string>" and function.__name__.startswith("__"):
        return f"<{function.__name__}>"
    linecache.checkcache(function.__code__.co_filename)
    return "".join(linecache.getlines(function.__code__.co_filename, function.__globals__))
