"""The systems that npattn brings, by their keys: those of the catalogue, and the primitives."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from npattn import ops
from npattn.attention import CATALOGUE
from npattn.module import Module
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS
from npattn.wording import brief, describe_type, did_you_mean

__all__ = ["MOST_CALLERS", "SYSTEMS", "as_step", "callers_of", "is_known", "is_ours", "name_system", "require_system"]

SYSTEMS: dict[str, type[Module]] = dict(CATALOGUE) | PRIMITIVE_SYSTEMS
"""Whatever has a key: a golden file names its system by it, and the tests hold its gradients to the complex step."""
MOST_CALLERS = 5
"""Systems that are named of those which call a primitive."""


def callers_of(primitive: str) -> list[str]:
    """List the systems of the catalogue whose code calls a primitive, that which calls the fewest others first.

    Examples
    --------
    >>> callers_of("ops.masked_attention")[:2]
    ['sdpa', 'mhsa']
    """
    called: dict[str, set[str]] = {}
    for key, system in CATALOGUE.items():
        with suppress(OSError):  # an installation without sources
            source = inspect.getsource(inspect.getmodule(system) or system)
            called[key] = set(re.findall(r"\b(?:ops|layers)\.(\w+)\(", source))
    name = primitive.removeprefix("ops.")
    return sorted((key for key in called if name in called[key]), key=lambda key: len(called[key]))


def as_step(key: str) -> str:
    """Say of a primitive that is no system by itself of which it is a step; nothing of any other name.

    Examples
    --------
    >>> as_step("ops.cyclic_shift"), as_step("ops.softmax")
    ('is no system, but a step of some; expected one of these: window', '')
    """
    name = key.removeprefix("ops.")
    callers = callers_of(name) if name in ops.__all__ and f"ops.{name}" not in SYSTEMS else []
    return (
        f"is no system, but a step of some; expected one of these: {', '.join(callers[:MOST_CALLERS])}"
        if callers
        else ""
    )


def is_ours(module: Module) -> bool:
    """Tell whether a module is of a system that npattn brings, whatever is within it."""
    return SYSTEMS.get(getattr(module, "key", "")) is type(module)


def is_known(module: Module) -> bool:
    """Tell whether a module, and each within it, is of a system that npattn brings.

    Examples
    --------
    >>> import npattn
    >>> is_known(npattn.Residual(npattn.CBAM(channels=16)))
    True
    >>> class Own(npattn.CBAM):
    ...     pass
    >>> is_known(npattn.Residual(Own(channels=16)))
    False
    """
    parts = [getattr(module, field.name) for field in dataclasses.fields(module)]
    return is_ours(module) and all(is_known(part) for part in parts if isinstance(part, Module))


def name_system(module: Module) -> str:
    """Return a module's key, or the name of a class that has none but what it has inherited.

    Examples
    --------
    >>> import npattn
    >>> class Own(npattn.CBAM):
    ...     pass
    >>> name_system(npattn.CBAM(channels=16)), name_system(Own(channels=16))
    ('cbam', 'Own')
    """
    key = getattr(module, "key", None)
    inherited = key is None or (key in SYSTEMS and not is_ours(module))
    return type(module).__name__ if inherited else str(key)


def require_system(call: str, module: Any, settings: Mapping[str, Any] | None = None) -> None:
    """Refuse what is no system, but may be the key or the class of one.

    Parameters
    ----------
    call : str
    module : object
    settings : mapping, optional
        What else was given, where it may be hyperparameters of the system that the key names.

    Raises
    ------
    TypeError
        If it is none.
    ValueError
        If it is a string that is no key.

    Examples
    --------
    >>> require_system("golden", "eca")
    Traceback (most recent call last):
    TypeError: golden: module is the key 'eca'; expected an instance: golden(npattn.EfficientChannelAttention(...))
    """
    if isinstance(module, str):
        if module not in SYSTEMS:
            steps = as_step(module)
            if steps:
                raise ValueError(f"{call}: module={brief(module)} {steps}")
            raise ValueError(
                f"{call}: module={brief(module)} is no key of a system{did_you_mean(module, SYSTEMS, 0.6) or ';'} "
                "expected an instance, such as CATALOGUE['pam'].example()"
            )
        given = ", ".join(f"{name}={brief(value)}" for name, value in (settings or {}).items()) or "..."
        ours = f"npattn.{SYSTEMS[module].__name__}({given})"
        how = ours if module in CATALOGUE else f"cases({module!r})[0].module"
        raise TypeError(f"{call}: module is the key {module!r}; expected an instance: {call}({how})")
    if not isinstance(module, Module):
        raise TypeError(
            f"{call}: module is the class {module.__name__}; expected an instance, such as {module.__name__}.example()"
            if isinstance(module, type)
            else f"{call}: module is {describe_type(module)}; expected a system, such as CATALOGUE['pam'].example()"
        )
