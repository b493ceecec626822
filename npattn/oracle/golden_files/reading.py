"""Golden files read, of which nothing is trusted."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.case import Case
from npattn.oracle.golden_files.archives import Archive, decode, open_archive, quote, repeated
from npattn.oracle.golden_files.described import Described
from npattn.oracle.golden_files.header import (
    CHECKSUM,
    HEADER,
    NUMBERS,
    OF_STEPS,
    make_header,
    member_name,
    system_from_json,
)
from npattn.oracle.golden_files.reading_header import is_number, read_header
from npattn.oracle.golden_files.validating import validate_case, validate_code, validate_rounded, validate_steps
from npattn.oracle.layouts import lay_out
from npattn.oracle.steps import GoldenStep
from npattn.oracle.tensors import Change
from npattn.wording import brief

__all__ = ["load"]


def load(path: str | os.PathLike[str], *, systems: Collection[type[Module]] = ()) -> Case:
    """Read a case from a file that `Case.save` has written.

    Nothing is trusted: what is cut off, altered, foreign or inconsistent is refused, no pickle is opened, no code is
    imported, and no more memory is taken than the file has bytes, whatever it claims.

    Parameters
    ----------
    path : path
    systems : sequence of class, optional
        Systems that npattn does not bring, of which the file may speak. Results are judged without them: then
        `Case.module` is a description, which can't be called. Of a class that is given, the results have to be the
        file's: that they are is seen by a run.

    Returns
    -------
    Case
        Equal in every bit to the one that was saved.

    Raises
    ------
    TypeError
        If `systems` holds anything but subclasses of `Module`.
    ValueError
        If it is no golden file; one line says why. (It is an `npattn.oracle.ArchiveError`.)
    OSError
        If the file can't be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import npattn
    >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=3, width=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     case.save(os.path.join(folder, "eca.npz"))
    ...     again = load(os.path.join(folder, "eca.npz"))
    >>> again
    Case(EfficientChannelAttention(channels=4), 1x4x3x3, float16, seed 0)
    >>> bool((again.expected["x.grad"] == case.expected["x.grad"]).all())
    True
    """
    own = name_systems(systems)
    expected = "a golden file, as Case.save and npattn golden write them"
    with open_archive(path, expected, holds=HEADER) as archive:
        header = read_header(archive)
        try:
            module = with_axes(system_from_json(header["system"], own), header.get("axes", ""))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise archive.error(f"{HEADER}: {error}") from None
        names = read_names(archive, header)
        arrays, checksums = read_arrays(archive, header, names)
        groups = {group: {name: arrays[member_name(group, name)] for name in names[group]} for group in NUMBERS}
        of_steps = [groups.pop(group) for group in OF_STEPS]
        for group in ("inputs", "upstream"):
            groups[group] = {name: lay_out(a, header["layout"], np.asarray) for name, a in groups[group].items()}
        by_name = {result["name"]: result for result in header["results"]}
        case = Case(
            module=module,
            dtype=header["dtype"],
            seed=header["seed"],
            values=header["values"],
            **groups,
            limits={
                name: (float(result["worst_limit"]), float(result["rms_limit"])) for name, result in by_name.items()
            },
            freedom={name: float(result["freedom"]) for name, result in by_name.items()},
            digits={
                name: np.nan if result["digits"] is None else float(result["digits"])
                for name, result in by_name.items()
            },
            layout=header["layout"],
            given=tuple(header["given"]),
            rounded={name: Change(**change) for name, change in header["rounded"].items()},
        )
        has_steps = "steps" in header
        if has_steps:
            case.keep_steps(make_steps(header["steps"], *of_steps))
        validate_case(archive, case)
        validate_steps(archive, case)
        validate_rounded(archive, case)
        again = make_header(case, checksums, steps=has_steps) | {"npattn": header["npattn"]}
        if "axes" in again.keys() - header.keys():  # an older file, of a class that is given
            again = {name: value for name, value in again.items() if name != "axes"} | {"version": header["version"]}
        wrong = first_difference(header, again)
        if wrong:
            raise archive.error(f"{HEADER}: {wrong}")
        validate_code(archive, case)
    return case


def with_axes(module: Module, axes: str) -> Module:
    """Tell a description what a header says of the axes of inputs."""
    return replace(module, axes=axes) if isinstance(module, Described) else module


def name_systems(systems: Collection[type[Module]]) -> dict[str, type[Module]]:
    """Return classes by their names."""
    if not (
        isinstance(systems, Collection)
        and all(isinstance(system, type) and issubclass(system, Module) for system in systems)
    ):
        raise TypeError(f"load: systems={brief(systems)}; expected a list of subclasses of Module")
    named = {system.__name__: system for system in systems}
    twice = next((system.__name__ for system in systems if named[system.__name__] is not system), None)
    if twice is not None:
        raise ValueError(f"load: systems holds two classes named {twice!r}; expected one, of which the file is to be")
    return named


def read_names(archive: Archive, header: dict[str, Any]) -> dict[str, list[str]]:
    """List the arrays' names, group by group, in order; the archive must hold these members and no others."""
    results = [result["name"] for result in header["results"]]
    steps = [step["name"] for step in header.get("steps", [])]
    names = {
        "inputs": header["inputs"],
        "params": header["params"],
        "upstream": header["outputs"],
        "expected": results,
        "budget": results,
        "steps": steps,
        "step_budgets": steps,
    }
    for listed in names.values():
        wrong = [name for name in listed if not isinstance(name, str)] or repeated(listed)
        if wrong:
            raise archive.error(f"{HEADER} lists {brief(wrong[0])}; expected names, each of them once")
    expected = {member_name(group, name): None for group, listed in names.items() for name in listed}
    for member in archive.sizes:
        if member not in (HEADER, CHECKSUM) and member not in expected:
            raise archive.error(f"holds {quote(member)}, of which {HEADER} says nothing")
    for member in expected:
        if member not in archive.sizes:
            raise archive.error(f"lacks {quote(member)}, of which {HEADER} speaks")
    return names


def read_arrays(
    archive: Archive, header: dict[str, Any], names: dict[str, list[str]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all arrays, and the checksums of what was read, by the member's name."""
    arrays, checksums = {}, {}
    for group, dtype in NUMBERS.items():
        for name in names[group]:
            member = f"{group}/{name}.npy"
            layout = archive.read_layout(member)
            if layout.dtype != dtype or layout.fortran:
                order = ", first index fastest" if layout.fortran else ""
                raise archive.error(
                    f"{quote(member)} holds {brief(layout.dtype)}{order}; expected {dtype!r}, last index fastest"
                )
            data = archive.read(member)
            checksums[member] = hashlib.sha256(data).hexdigest()
            described = header["members"].get(member)
            if not isinstance(described, dict) or described.get("sha256") != checksums[member]:
                raise archive.error(f"{quote(member)} is altered: {HEADER} has another sha256")
            arrays[member] = decode(data, layout)
    return arrays, checksums


def make_steps(
    described: list[dict[str, Any]], expected: Mapping[str, np.ndarray], budgets: Mapping[str, np.ndarray]
) -> dict[str, GoldenStep]:
    """Make steps of what a header says of each, and of their arrays."""
    return {
        step["name"]: GoldenStep(
            name=step["name"],
            expected=expected[step["name"]],
            budget=budgets[step["name"]],
            limits=(float(step["worst_limit"]), float(step["rms_limit"])),
            freedom=float(step["freedom"]),
            line=step["line"],
            feeds=tuple(step["feeds"]),
        )
        for step in described
    }


def first_difference(found: Any, expected: Any, where: str = "") -> str:
    """Say where two values of JSON first differ, by more than the last digits of a float; empty if nowhere."""
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        pairs = [(f"{where}.{name}" if where else name, found[name], value) for name, value in expected.items()]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = [(f"{where}[{i}]", *both) for i, both in enumerate(zip(found, expected, strict=True))]
    elif isinstance(expected, float) and is_number(found):
        return "" if math.isclose(found, expected, rel_tol=1e-9) else f"{where} is {found}; expected {expected}"
    else:
        same = type(found) is type(expected) and found == expected
        return "" if same else f"{where} is {brief(found)}; expected {brief(expected)}"
    return next(filter(None, (first_difference(one, other, place) for place, one, other in pairs)), "")
