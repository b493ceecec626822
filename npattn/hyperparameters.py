"""Hyperparameters written as text, as on a command line: ``channels=64``."""

from __future__ import annotations

import ast
import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

from npattn.attention import CATALOGUE
from npattn.checks import check_hyperparameters
from npattn.module import Module
from npattn.parameters import strip_prefix
from npattn.wording import brief, key_meant

__all__ = ["override", "read_settings"]


def override(module: Module, settings: Mapping[str, str]) -> Module:
    """Return a module like this one but for some hyperparameters.

    Parameters
    ----------
    module : Module
    settings : mapping of str to str
        Text by the hyperparameter's name: a Python literal, or a string without quotes. Where the hyperparameter is a
        tuple of strings, these may stand without quotes too, with commas between them. Where it is a system, the text
        is the key of one, which stands for its example; ``inner.channels`` names a hyperparameter of it.

    Returns
    -------
    Module

    Raises
    ------
    TypeError
        If a name is unknown (what it may mean is said), or whatever the module refuses.
    ValueError, ArithmeticError
        If a system's key is unknown, or whatever the module refuses.

    Examples
    --------
    >>> override(CATALOGUE["eca"].example(), {"channels": "64", "kernel_size": "5"})
    EfficientChannelAttention(channels=64, kernel_size=5, gamma=2, b=1)
    >>> override(CATALOGUE["cbam"].example(), {"pools": "max,lse"}).pools
    ('max', 'lse')
    >>> override(CATALOGUE["residual"].example(), {"inner": "cam", "inner.variant": "code"})
    Residual(inner=ChannelAttention(channels=32, variant='code'))
    """
    return dataclasses.replace(module, **read_settings(module, settings))


def read_settings(module: Module, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of hyperparameters that are written as text, as `override` has them, in the order of fields.

    Examples
    --------
    >>> read_settings(CATALOGUE["mhsa"].example(), {"heads": "3", "causal": "top-left"})
    {'heads': 3, 'causal': 'top-left'}
    """
    name = type(module).__name__
    values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    parts = {field: value for field, value in values.items() if isinstance(value, Module)}
    nested = [f"{field}.{inner.name}" for field, part in parts.items() for inner in dataclasses.fields(part)]
    check_hyperparameters(name, [path.partition(".")[0] for path in settings], values, nested)
    changes = {}
    for path, text in settings.items():
        field, dot, _ = path.partition(".")
        if not isinstance(values[field], Module):
            if dot:
                raise ValueError(
                    f"{name}: {path}: {field} is no system and has no hyperparameters; expected {field}=VALUE"
                )
            changes[field] = split_words(literal(text), values[field])
        elif not dot:
            changes[field] = example(text, f"{name}: {field}")
    for field, value in values.items():
        inner = strip_prefix(f"{field}.", settings)
        if inner:
            changes[field] = override(changes.get(field, value), inner)
    return {field: changes[field] for field in values if field in changes}


def literal(text: str) -> Any:
    """Read a Python literal; other text stands for itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser's doubts about what is no Python
            return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def split_words(value: Any, current: Any) -> Any:
    """Make a tuple of words with commas between them, where there is a tuple of strings now."""
    several = isinstance(current, tuple) and all(isinstance(word, str) for word in current)
    return tuple(filter(None, value.split(","))) if several and isinstance(value, str) else value


def example(key: str, name: str) -> Module:
    """Return the example of the system with a key."""
    if key not in CATALOGUE:
        meant = key_meant(key, CATALOGUE)
        raise ValueError(f"{name}={brief(key)} is no key of a system{meant} (npattn list names them all)")
    return CATALOGUE[key].example()
