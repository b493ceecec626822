"""Reading a state dict; where it doesn't fit a system, what was meant: names, a prefix, a layout, hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.candidates import Shape
from npattn.foreign_arrays import to_numpy
from npattn.pairing import OURS, find_naming, is_unused, pair_all
from npattn.parameters import strip_prefix
from npattn.state_dict_hints import (
    change_hint,
    entry_hint,
    layout_hint,
    name_hint,
    prefix_hint,
    published_hint,
    renaming_hint,
    shape_hint,
    shape_of,
)
from npattn.synonyms import Naming
from npattn.variations import Made, declared
from npattn.wording import describe_type

if TYPE_CHECKING:
    from npattn.module import Module

__all__ = ["check_parameter_names", "check_parameter_shapes", "read_state_dict"]


def read_state_dict(module: Module, mapping: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Take a module's parameters and buffers from a published checkpoint, as `Module.from_state_dict` says."""
    call = f"{module}.from_state_dict"
    if not isinstance(mapping, Mapping):
        pass_on = ": pass its state_dict()" if hasattr(mapping, "state_dict") else ""
        raise TypeError(f"{call}: got {describe_type(mapping)}; expected a mapping of names to arrays{pass_on}")
    whole = {str(name): value for name, value in mapping.items()}
    arrays = {name: value for name, value in strip_prefix(prefix, whole).items() if not is_unused(name)}
    naming = find_naming(module, arrays).prefer(arrays)
    arrays = {naming.translate(name): value for name, value in arrays.items()}
    shapes = check_parameter_names(call, module, arrays, prefix, whole, naming=naming)
    params = {
        name: naming.lay_out(name, to_numpy(arrays[name], f"{call}: {prefix}{naming.restore(name)}"), shape)
        for name, shape in shapes.items()
    }
    check_parameter_shapes(call, module, params, shapes, prefix, naming=naming)
    return {name: np.array(value, value.dtype.newbyteorder("="), order="C") for name, value in params.items()}


def check_parameter_names(
    call: Any,
    module: Module,
    given: Mapping[Any, Any],
    prefix: str | None = None,
    whole: Mapping[str, Any] | None = None,
    *,
    naming: Naming = OURS,
) -> dict[str, Shape]:
    """Refuse missing and unknown names, and say what would make them fit; return the shapes that are declared.

    Parameters
    ----------
    call : object
        What the message begins with.
    module : Module
    given : mapping of str to array
        Without the prefix.
    prefix : str, optional
        Where in `whole` they stand; None where the caller can't be given one.
    whole : mapping of str to array, optional
        Where other prefixes are looked for; `given` by default.
    naming : Naming, optional
        Whose names, translated, are given.

    Returns
    -------
    dict of str to tuple of int

    Raises
    ------
    ValueError
    """
    expected = declared(module)
    if given.keys() == expected.keys():
        return expected
    shapes = {name: shape_of(value) for name, value in given.items()}
    unknown = sorted((name for name in shapes if name not in expected), key=lambda name: is_unused(str(name)))
    missing = [name for name in expected if name not in shapes]
    before = prefix or ""
    found = ""
    if missing:
        found = f"missing parameter {before + naming.restore(missing[0])!r} of shape {expected[missing[0]]}"
    if unknown:
        named = isinstance(unknown[0], str)
        found = f"unknown parameter {(before + naming.restore(unknown[0]) if named else unknown[0])!r}"
    texts = {str(name): shape for name, shape in shapes.items() if not is_unused(str(name))}
    whole = given if whole is None else whole
    pairs, made = pair_all(texts, expected), Made()
    hint = (
        entry_hint(expected, whole)
        or published_hint(module, given, prefix)
        or prefix_hint(module, whole, prefix)
        or change_hint(module, texts, before, made, renamed=False)
        or (len(pairs) == len(missing) and renaming_hint(pairs, texts, expected, before))
        or change_hint(module, texts, before, made)
        or (missing and prefix_hint(module, whole, prefix, renamed=True))
        or renaming_hint(pairs, texts, expected, before)
        or name_hint(expected, texts, before)
    )
    if before and not given:
        hint = f": nothing stands under prefix={prefix!r}" + hint
    names = ", ".join(before + name for name in expected) or "none"
    raise ValueError(f"{call}: {found}{hint}" + (f" (expected {names})" if unknown or not hint else ""))


def check_parameter_shapes(
    call: Any,
    module: Module,
    arrays: Mapping[str, Any],
    expected: Mapping[str, Shape],
    prefix: str = "",
    *,
    naming: Naming = OURS,
) -> None:
    """Refuse an array whose shape is not the one `expected` under its name, and say what would make it fit.

    Raises
    ------
    ValueError
    """
    given = {name: shape_of(arrays[name]) for name in expected}
    if given == expected:
        return
    wrong = [name for name in expected if given[name] != expected[name]]
    names = {name: prefix + naming.restore(name) for name in wrong}
    first = wrong[0]
    hint = layout_hint(names, given, expected) or change_hint(module, given, prefix)
    if not hint:
        hint = shape_hint(given[first], {prefix + naming.restore(name): shape for name, shape in expected.items()})
    raise ValueError(f"{call}: parameter {names[first]!r} has shape {given[first]}; expected {expected[first]}{hint}")
