"""The systems that npattn brings, by their keys: those of the catalogue, and the primitives."""

from __future__ import annotations

import dataclasses

from npattn.attention import CATALOGUE
from npattn.module import Module
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS

__all__ = ["SYSTEMS", "is_known", "is_ours", "name_system"]

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
