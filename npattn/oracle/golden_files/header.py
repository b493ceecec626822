"""What a golden file holds: its members, the fields of its header, and how a system is named in JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.equality import held
from npattn.module import Module
from npattn.oracle.golden_files.described import Described, axes_of
from npattn.oracle.systems import SYSTEMS, is_known
from npattn.version import find_version
from npattn.wording import brief, describe_type, did_you_mean

if TYPE_CHECKING:
    from npattn.oracle.case import Case
    from npattn.oracle.steps import GoldenStep

__all__ = [
    "CHECKSUM",
    "FIELDS",
    "FORMAT_NAME",
    "GROUPS",
    "HEADER",
    "MAX_HEADER_SIZE",
    "NUMBERS",
    "OF_STEPS",
    "VERSION",
    "VERSION_WITH_AXES",
    "VERSION_WITH_STEPS",
    "arrays_of",
    "make_header",
    "member_name",
    "system_from_json",
    "system_to_json",
]

FORMAT_NAME = "npattn golden case"
VERSION, VERSION_WITH_STEPS, VERSION_WITH_AXES = 3, 4, 5
"""Of a file without steps, and of one with them; of one that says what the axes of a named system's inputs are, with
steps or without."""
HEADER = "header.json"
CHECKSUM = "header.sha256"
"""What the header's bytes are checked by, as the arrays' are by the header."""
MAX_HEADER_SIZE = 2**20
"""Bytes of JSON that are read; the largest system's header has a fiftieth of it."""
MAX_NAME_LENGTH = 100
"""Characters of a class's name."""
MAX_DEPTH = 50
"""Systems in systems."""
GROUPS = {"inputs": "<f4", "params": "<f4", "upstream": "<f4", "expected": "<f8", "budget": "<f8"}
"""The arrays of a case, by attribute, and their numbers in the file."""
OF_STEPS = {"steps": "<f8", "step_budgets": "<f8"}
"""Those of its steps."""
NUMBERS = GROUPS | OF_STEPS
FIELDS: dict[str, type] = {
    "format": str,
    "version": int,
    "npattn": str,
    "system": dict,
    "dtype": str,
    "seed": int,
    "values": str,
    "layout": str,
    "given": list,
    "rounded": dict,
    "inputs": list,
    "params": list,
    "outputs": list,
    "results": list,
    "members": dict,
}
"""What the header holds; 'steps' too, where the file has them, and 'axes' of a system that npattn does not bring."""


def member_name(group: str, name: str) -> str:
    """Return the name of an array's member in the archive."""
    return f"{group}/{name}.npy"


def arrays_of(case: Case, *, steps: bool) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of a case's file by group and name."""
    arrays = {group: getattr(case, group) for group in GROUPS}
    if steps:
        arrays["steps"] = {name: step.expected for name, step in case.steps().items()}
        arrays["step_budgets"] = {name: step.budget for name, step in case.steps().items()}
    return arrays


def make_header(case: Case, checksums: Mapping[str, str], *, steps: bool = False) -> dict[str, Any]:
    """Make the header of a case's file.

    Parameters
    ----------
    case : Case
    checksums : mapping of str to str
        Of each array's bytes, by the member's name.
    steps : bool, default False
        Whether the file holds the steps too.

    Returns
    -------
    dict
        For JSON.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter can't be written as JSON.
    """
    told = "" if is_known(case.module) else axes_of(case.module)
    axes = {"axes": told} if told else {}
    members = {}
    for group, arrays in arrays_of(case, steps=steps).items():
        for name, array in arrays.items():
            member = member_name(group, name)
            members[member] = {"dtype": NUMBERS[group], "shape": list(array.shape), "sha256": checksums[member]}
    return {
        "format": FORMAT_NAME,
        "version": VERSION_WITH_AXES if axes else VERSION_WITH_STEPS if steps else VERSION,
        "npattn": find_version(),
        "system": system_to_json(case.module),
        **axes,
        "dtype": case.dtype,
        "seed": int(case.seed),
        "values": case.values,
        "layout": case.layout,
        "given": list(case.given),
        "rounded": {name: change._asdict() for name, change in case.rounded.items()},
        "inputs": list(case.inputs),
        "params": list(case.params),
        "outputs": list(case.upstream),
        "results": [result_to_json(case, name) for name in case.expected],
        **({"steps": [step_to_json(step) for step in case.steps().values()]} if steps else {}),
        "members": members,
    }


def result_to_json(case: Case, name: str) -> dict[str, Any]:
    """Say how one result is judged."""
    worst_limit, rms_limit = case.limits[name]
    return {
        "name": name,
        "judged": int(np.isfinite(case.budget[name]).sum()),
        "worst_limit": float(worst_limit),
        "rms_limit": float(rms_limit),
        "freedom": float(case.freedom[name]),
        "digits": None if math.isnan(case.digits[name]) else float(case.digits[name]),
    }


def step_to_json(step: GoldenStep) -> dict[str, Any]:
    """Say how one step is judged, and where it stands."""
    worst_limit, rms_limit = step.limits
    return {
        "name": step.name,
        "line": step.line,
        "feeds": list(step.feeds),
        "judged": int(np.isfinite(step.budget).sum()),
        "worst_limit": float(worst_limit),
        "rms_limit": float(rms_limit),
        "freedom": float(step.freedom),
    }


def system_to_json(module: Module) -> dict[str, Any]:
    """Name a system and its hyperparameters: by its key if npattn brings it, else by its class's name."""
    if isinstance(module, Described):
        named, values = {"name": module.name}, dict(module.hyperparameters)
    else:
        require_fields(module)
        named = {"key": module.key} if is_known(module) else {"name": type(module).__name__}
        values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module) if field.init}
    return named | {
        "hyperparameters": {name: hyperparameter_to_json(value, f"{module}: {name}") for name, value in values.items()}
    }


def require_fields(module: Module) -> None:
    """Refuse a system that holds what is no field, as one whose class is no dataclass: nobody could make it again."""
    others = held(module).keys() - {field.name for field in dataclasses.fields(module)}
    if others and "__dataclass_fields__" not in vars(type(module)):
        name = type(module).__name__
        raise TypeError(
            f"{module} can't be saved: it holds {min(others)!r}, and {name} is no dataclass; put "
            f"@dataclass(frozen=True) on {name}, and declare its hyperparameters there"
        )


def hyperparameter_to_json(value: Any, name: str) -> Any:
    """Return what stands for a hyperparameter in JSON."""
    if isinstance(value, Module):
        return system_to_json(value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, (tuple, list)):
        return [hyperparameter_to_json(one, name) for one in value]
    raise TypeError(
        f"{name} can't be saved: it is {describe_type(value)}, {brief(value)}; expected a finite number, a string, "
        "True, False or None, a tuple of such, or a system"
    )


def system_from_json(value: Any, own: Mapping[str, type[Module]], depth: int = 0) -> Module:
    """Make the module of which a header speaks.

    Parameters
    ----------
    value : object
        Of JSON.
    own : mapping of str to class
        Systems that npattn does not bring, by name. No code is looked for elsewhere: of others there is a description.
    depth : int, default 0
        How many systems it is within.

    Raises
    ------
    TypeError, ValueError, ArithmeticError
        If there is none.
    """
    fields = value.keys() if isinstance(value, dict) else set()
    if fields not in ({"key", "hyperparameters"}, {"name", "hyperparameters"}):
        raise ValueError(f"system is {brief(value)}; expected a key or a name, and hyperparameters")
    values = value["hyperparameters"]
    if "key" in fields:
        key = value["key"]
        if not (isinstance(key, str) and key in SYSTEMS):
            meant = did_you_mean(key, SYSTEMS, 0.6)
            raise ValueError(f"unknown system {brief(key)}{meant}: a newer npattn may know it")
        system: type[Module] | None = SYSTEMS[key]
    else:
        key = value["name"]
        if not (isinstance(key, str) and key.isidentifier() and len(key) <= MAX_NAME_LENGTH):
            raise ValueError(f"the system's name is {brief(key)}; expected that of a class")
        system = own.get(key)
    if system is not None:
        names = [field.name for field in dataclasses.fields(system) if field.init]
    else:
        names = list(values) if isinstance(values, dict) else ["an object"]
    if not (isinstance(values, dict) and values.keys() == set(names)):
        given = ", ".join(map(brief, values)) if isinstance(values, dict) else brief(values)
        raise ValueError(f"hyperparameters of {key!r} are {given or 'none'}; expected {', '.join(names) or 'none'}")
    found = {name: hyperparameter_from_json(one, own, depth + 1) for name, one in values.items()}
    if system is None and not any(isinstance(one, Described) for one in found.values()):
        system = find_composed(key, names)
    return Described(key, tuple(found.items())) if system is None else system(**found)


def find_composed(name: str, names: list[str]) -> type[Module] | None:
    """Find the system of npattn's that has a name and hyperparameters: it holds one that npattn does not bring."""
    brought = {system.__name__: system for system in SYSTEMS.values()}
    found = brought.get(name)
    return found if found and {field.name for field in dataclasses.fields(found)} == set(names) else None


def hyperparameter_from_json(value: Any, own: Mapping[str, type[Module]], depth: int) -> Any:
    """Return the hyperparameter that a value in JSON stands for."""
    if depth > MAX_DEPTH:
        raise ValueError(f"hyperparameters are nested more than {MAX_DEPTH} times")
    if isinstance(value, dict):
        return system_from_json(value, own, depth)
    if isinstance(value, list):
        return tuple(hyperparameter_from_json(one, own, depth + 1) for one in value)
    return value
