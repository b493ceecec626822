"""The systems that npattn brings, by their keys: those of the catalogue, and the primitives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from npattn.attention import CATALOGUE
from npattn.module import Module
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS
from npattn.wording import brief, describe_type, did_you_mean

__all__ = ["SYSTEMS", "is_known", "is_ours", "name_system", "require_system"]

SYSTEMS: dict[str, type[Module]] = dict(CATALOGUE) | PRIMITIVE_SYSTEMS
"""Whatever has a key: a golden file names its system by it, and the tests hold its gradients to the complex step."""


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
