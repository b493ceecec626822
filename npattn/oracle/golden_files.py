"""Golden cases as files: plain arrays and a JSON header in an .npz archive, for programs in any language.

``derivations/golden_files.md`` describes the format for those who read it elsewhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from npattn.attention import CATALOGUE
from npattn.checks import brief, describe_type, did_you_mean
from npattn.files import whole_file
from npattn.module import Module
from npattn.oracle.archives import Archive, ArchiveError, Layout, decode, open_archive, quote, repeated
from npattn.oracle.comparison import judge
from npattn.oracle.formats import FORMATS
from npattn.oracle.golden import Case
from npattn.oracle.special import VALUES
from npattn.version import find_version

__all__ = ["load", "read_results", "save", "write"]

FORMAT = "npattn golden case"
VERSION = 2
HEADER = "header.json"
CHECKSUM = "header.sha256"
"""What the header's bytes are checked by, as the arrays' are by the header."""
LONGEST_HEADER = 2**20
"""Bytes of JSON that are read; the largest system's header has a fiftieth of it."""
DEEPEST = 50
"""Systems in systems."""
GROUPS = {"inputs": "<f4", "params": "<f4", "upstream": "<f4", "expected": "<f8", "budget": "<f8"}
"""The arrays of a case, by attribute, and their numbers in the file."""
FIELDS = {
    "format": str,
    "version": int,
    "npattn": str,
    "system": dict,
    "dtype": str,
    "seed": int,
    "values": str,
    "inputs": list,
    "params": list,
    "outputs": list,
    "results": list,
    "members": dict,
}
"""What the header holds."""


def save(case: Case, path: str | os.PathLike[str], force: bool = False) -> None:
    """Write a case to a file, whole or not at all; the same case always gives the same bytes.

    Parameters
    ----------
    case : Case
    path : path
        Ends in ``.npz``, if NumPy's users are to recognise it.
    force : bool, default False
        Whether a regular file that is already there may be replaced; a symbolic link is followed, all else refused.

    Raises
    ------
    TypeError, ValueError
        If the case's system is none of the catalogue, or a hyperparameter can't be written as JSON, or only as too
        much of it.
    OSError
        If the file is there already, or can't be written.
    """
    with whole_file(path, force=force) as temporary:
        write(case, temporary)


def write(case: Case, path: Path) -> None:
    """Write a case to a file that nobody else looks at yet."""
    contents = {
        f"{group}/{name}.npy": npy(array.astype(dtype, order="C", casting="safe", copy=False))
        for group, dtype in GROUPS.items()
        for name, array in getattr(case, group).items()
    }
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    header = (json.dumps(describe(case, checksums), indent=1, allow_nan=False) + "\n").encode("ascii")
    if len(header) > LONGEST_HEADER:
        raise ValueError(f"{case!r} can't be saved: its header has {len(header)} bytes, of {LONGEST_HEADER} at most")
    seal = hashlib.sha256(header).hexdigest().encode("ascii")
    # Stored, not deflated: the bytes then depend on no version of zlib, a reader needs none, and none can be bombed.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {HEADER: header, CHECKSUM: seal, **contents}.items():
            member = zipfile.ZipInfo(name)  # dated 1980-01-01, whatever the clock says
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, data)


def npy(array: np.ndarray) -> bytes:
    """Write an array as the bytes of an .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def describe(case: Case, checksums: Mapping[str, str]) -> dict[str, Any]:
    """Make the header of a case's file."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "npattn": find_version(),
        "system": describe_system(case.module),
        "dtype": case.dtype,
        "seed": int(case.seed),
        "values": case.values,
        "inputs": list(case.inputs),
        "params": list(case.params),
        "outputs": list(case.upstream),
        "results": [describe_result(case, name) for name in case.expected],
        "members": {
            f"{group}/{name}.npy": {
                "dtype": dtype,
                "shape": list(array.shape),
                "sha256": checksums[f"{group}/{name}.npy"],
            }
            for group, dtype in GROUPS.items()
            for name, array in getattr(case, group).items()
        },
    }


def describe_result(case: Case, name: str) -> dict[str, Any]:
    """Say how one result is judged."""
    judgement = judge(case, name, case.expected[name])
    return {
        "name": name,
        "judged": case.budget[name].size - judgement.unjudged,
        "worst_limit": float(case.limits[name][0]),
        "rms_limit": float(case.limits[name][1]),
        "freedom": float(case.freedom[name]),
        "digits": None if math.isnan(case.digits[name]) else float(case.digits[name]),
    }


def describe_system(module: Module) -> dict[str, Any]:
    """Name a system and its hyperparameters."""
    if CATALOGUE.get(getattr(module, "key", "")) is not type(module):
        raise ValueError(
            f"{module} can't be saved: it is no system of the catalogue, by whose key a golden file names its system"
        )
    values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    return {
        "key": module.key,
        "hyperparameters": {name: to_json(value, f"{module}: {name}") for name, value in values.items()},
    }


def to_json(value: Any, name: str) -> Any:
    """Return what stands for a hyperparameter in JSON."""
    if isinstance(value, Module):
        return describe_system(value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, (tuple, list)):
        return [to_json(one, name) for one in value]
    raise TypeError(f"{name} can't be saved: it is {describe_type(value)}, {brief(value)}")


def from_json(value: Any, depth: int) -> Any:
    """Return the hyperparameter that a value in JSON stands for."""
    if depth > DEEPEST:
        raise ValueError(f"hyperparameters are nested more than {DEEPEST} times")
    if isinstance(value, dict):
        return build(value, depth)
    return tuple(from_json(one, depth + 1) for one in value) if isinstance(value, list) else value


def build(described: Any, depth: int = 0) -> Module:
    """Make the module of which a header speaks.

    Raises
    ------
    TypeError, ValueError, ArithmeticError
        If there is none.
    """
    if not (isinstance(described, dict) and described.keys() == {"key", "hyperparameters"}):
        raise ValueError(f"system is {brief(described)}; expected a key and hyperparameters")
    key, values = described["key"], described["hyperparameters"]
    if not (isinstance(key, str) and key in CATALOGUE):
        raise ValueError(f"unknown system {brief(key)}{did_you_mean(key, CATALOGUE, 0.4)}: a newer npattn may know it")
    names = [field.name for field in dataclasses.fields(CATALOGUE[key])]
    if not (isinstance(values, dict) and values.keys() == set(names)):
        given = ", ".join(map(brief, values)) if isinstance(values, dict) else brief(values)
        raise ValueError(f"hyperparameters of {key!r} are {given or 'none'}; expected {', '.join(names) or 'none'}")
    return CATALOGUE[key](**{name: from_json(value, depth + 1) for name, value in values.items()})


def load(path: str | os.PathLike[str]) -> Case:
    """Read a case from a file that `Case.save` has written.

    Nothing is trusted: what is cut off, altered, foreign or inconsistent is refused, no pickle is opened, and no more
    memory is taken than the file has bytes, whatever it claims.

    Parameters
    ----------
    path : path

    Returns
    -------
    Case
        Equal in every bit to the one that was saved.

    Raises
    ------
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
    Case(EfficientChannelAttention(channels=4, kernel_size=None, gamma=2, b=1), 1x4x3x3, float16, seed 0)
    >>> bool((again.expected["x.grad"] == case.expected["x.grad"]).all())
    True
    """
    expected = "a golden file, as Case.save and npattn golden write them"
    with open_archive(path, expected, holds=HEADER) as archive:
        header = read_header(archive)
        try:
            module = build(header["system"])
        except (TypeError, ValueError, ArithmeticError) as error:
            raise archive.error(f"{HEADER}: {error}") from None
        names = names_of_groups(archive, header)
        arrays, checksums = read_members(archive, header, names)
        groups = {group: {name: arrays[f"{group}/{name}.npy"] for name in names[group]} for group in GROUPS}
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
        )
        check_case(archive, case)
        wrong = difference(header, describe(case, checksums) | {"npattn": header["npattn"]})
        if wrong:
            raise archive.error(f"{HEADER}: {wrong}")
    return case


def read_header(archive: Archive) -> dict[str, Any]:
    """Read a golden file's header; see that it is unaltered, and its fields of the kinds that version 2 knows."""
    if archive.sizes[HEADER] > LONGEST_HEADER:
        raise archive.error(f"{HEADER} has {archive.sizes[HEADER]} bytes; expected no more than {LONGEST_HEADER}")
    data = archive.read(HEADER)
    sealed = CHECKSUM in archive.sizes
    if sealed and archive.read(CHECKSUM, 65) != hashlib.sha256(data).hexdigest().encode("ascii"):
        raise archive.error(f"{HEADER} is altered: {CHECKSUM} has another sha256")
    try:
        header = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique,
            parse_float=finite,
            parse_constant=finite,
        )
        check_header(header)
    except ArchiveError:
        raise
    except (ValueError, RecursionError) as error:
        raise archive.error(f"{HEADER}: {error}") from None
    if not sealed:
        raise archive.error(f"lacks {quote(CHECKSUM)}, the sha256 of {HEADER}")
    return header


def check_header(header: Any) -> None:
    """Refuse, by a ValueError, what is not of the kinds that version 2 knows."""
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}; expected the header of a golden file")
    found = header.get("version")
    if type(found) is not int or found != VERSION:
        raise ValueError(
            f"version {brief(found)} of the format; npattn {find_version()} reads version {VERSION}: npattn golden "
            "makes the case again"
        )
    for name in (*FIELDS, *header):
        if name not in header:
            raise ValueError(f"{name!r} is missing")
        if name not in FIELDS:
            raise ValueError(f"unknown field {brief(name)}; expected {', '.join(FIELDS)}")
        if type(header[name]) is not FIELDS[name]:
            raise ValueError(f"{name} is {brief(header[name])}; expected {FIELDS[name].__name__}")
    if header["dtype"] not in FORMATS:
        raise ValueError(f"dtype is {brief(header['dtype'])}; expected one of {', '.join(FORMATS)}")
    if header["values"] not in VALUES:
        raise ValueError(f"values is {brief(header['values'])}; expected one of {', '.join(VALUES)}")
    if header["seed"] < 0:
        raise ValueError(f"seed is {brief(header['seed'])}; expected no negative number")
    for result in header["results"]:
        if not describes_result(result):
            raise ValueError(f"results holds {brief(result)}; expected name, limits, freedom and digits")


def describes_result(result: Any) -> bool:
    """Whether a value of JSON holds what is read of a result; what follows from it is compared later."""
    return (
        isinstance(result, dict)
        and {"name", "worst_limit", "rms_limit", "freedom", "digits"} <= result.keys()
        and all(number(result[name]) and result[name] > 0 for name in ("worst_limit", "rms_limit"))
        and number(result["freedom"])
        and result["freedom"] >= 1
        and (result["digits"] is None or number(result["digits"]))
    )


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of a JSON object's entries; refuse what stands there twice."""
    twice = repeated(name for name, _ in pairs)
    if twice:
        raise ValueError(f"{brief(twice[0])} stands there twice")
    return dict(pairs)


def finite(text: str) -> float:
    """Read a number of JSON; refuse NaN and what is no finite float64."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def number(value: Any) -> bool:
    """Whether a value of JSON is a number that float64 holds."""
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def names_of_groups(archive: Archive, header: dict[str, Any]) -> dict[str, list[str]]:
    """List the arrays' names, group by group, in order; see that the archive holds these members and no others."""
    results = [result["name"] for result in header["results"]]
    names = {
        "inputs": header["inputs"],
        "params": header["params"],
        "upstream": header["outputs"],
        "expected": results,
        "budget": results,
    }
    for listed in names.values():
        wrong = [name for name in listed if not isinstance(name, str)] or repeated(listed)
        if wrong:
            raise archive.error(f"{HEADER} lists {brief(wrong[0])}; expected names, each of them once")
    expected = {f"{group}/{name}.npy": None for group, listed in names.items() for name in listed}
    for member in archive.sizes:
        if member not in (HEADER, CHECKSUM) and member not in expected:
            raise archive.error(f"holds {quote(member)}, of which {HEADER} says nothing")
    for member in expected:
        if member not in archive.sizes:
            raise archive.error(f"lacks {quote(member)}, of which {HEADER} speaks")
    return names


def read_members(
    archive: Archive, header: dict[str, Any], names: dict[str, list[str]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all arrays, and the checksums of what was read, by the member's name."""
    arrays, checksums = {}, {}
    for group, dtype in GROUPS.items():
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


def check_case(archive: Archive, case: Case) -> None:
    """Refuse arrays that are not what the case's module takes and gives, and budgets by which nothing can be judged."""
    module = case.module
    if list(case.inputs) != list(module.input_shapes(1, 1, 1)):
        raise archive.error(
            f"{HEADER} lists the inputs {', '.join(case.inputs)}; expected {', '.join(module.input_shapes(1, 1, 1))}"
        )
    try:
        module.check_inputs(tuple(case.inputs.values()))
    except (TypeError, ValueError) as error:
        raise archive.error(str(error)) from None
    batch, _, height, width = next(iter(case.inputs.values())).shape
    outputs = module.output_shapes(batch, height, width)
    results = {
        **outputs,
        **{f"{name}.grad": x.shape for name, x in case.inputs.items() if f"{name}.grad" in case.expected},
        **{f"{name}.grad": shape for name, shape in module.parameter_shapes().items()},
    }
    for group, expected in {
        "params": module.parameter_shapes() | module.buffer_shapes(),
        "upstream": outputs,
        "expected": results,
        "budget": results,
    }.items():
        found = {name: array.shape for name, array in getattr(case, group).items()}
        for name in (*expected, *found):
            if name not in found or name not in expected:
                raise archive.error(f"{group}: {quote(name)} is {'missing' if name in expected else 'unknown'}")
        if list(found) != list(expected):
            raise archive.error(f"{group}: {HEADER} does not list them in order")
        for name, shape in expected.items():
            if found[name] != tuple(shape):
                raise archive.error(f"{group}/{name}.npy has shape {found[name]}; expected {tuple(shape)}")
    for name, budget in case.budget.items():
        if not (budget > 0).all():
            raise archive.error(f"budget/{name}.npy holds what is not above 0")
        if np.isnan(case.expected[name][np.isfinite(budget)]).any():
            raise archive.error(f"expected/{name}.npy is NaN where its budget is finite")


def difference(found: Any, expected: Any, where: str = "") -> str:
    """Say where two values of JSON first differ, by more than the last digits of a float; empty if nowhere."""
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        pairs = [(f"{where}.{name}" if where else name, found[name], value) for name, value in expected.items()]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = [(f"{where}[{i}]", *both) for i, both in enumerate(zip(found, expected, strict=True))]
    elif isinstance(expected, float) and number(found):
        return "" if math.isclose(found, expected, rel_tol=1e-9) else f"{where} is {found}; expected {expected}"
    else:
        same = type(found) is type(expected) and found == expected
        return "" if same else f"{where} is {brief(found)}; expected {brief(expected)}"
    return next(filter(None, (difference(one, other, place) for place, one, other in pairs)), "")


def read_results(path: str | os.PathLike[str], case: Case) -> dict[str, np.ndarray]:
    """Read a kernel's results from an .npz file, as safely as `load` reads golden ones.

    Parameters
    ----------
    path : path
        Holds any subset of the case's results, as members named ``output.npy``, ``x.grad.npy`` and so on, stored or
        deflated, of any floating dtype and byte order.
    case : Case

    Returns
    -------
    dict of numpy.ndarray
        For `Case.compare`. An array of a wrong shape is not read: it has the shape, and no numbers.

    Raises
    ------
    ValueError
        If it is no such file; one line says why. (It is an `npattn.oracle.ArchiveError`.)
    OSError
        If the file can't be read.
    """
    some = f"some of {', '.join(case.expected)}"
    found = {}
    with open_archive(path, "an .npz file of results", deflated=True) as archive:
        if HEADER in archive.sizes:
            raise archive.error(f"holds a {HEADER}, as golden files do; expected the results of a kernel")
        if not archive.sizes:
            raise archive.error(f"holds no results; expected {some}")
        for member in archive.sizes:
            name = member.removesuffix(".npy")
            if name == member or name not in case.expected:
                meant = did_you_mean(member, [f"{result}.npy" for result in case.expected], 0.6)
                raise archive.error(f"holds {quote(member)}, which is no result{meant} (expected {some}, as .npy)")
            layout = archive.read_layout(member)
            if "V" in layout.dtype:
                raise archive.error(
                    f"{quote(member)} has dtype {layout.dtype!r}, as NumPy writes formats that it lacks, such as "
                    "bfloat16; write float32, which holds their numbers exactly: .astype(numpy.float32)"
                )
            found[name] = read_result(archive, member, layout, case.expected[name].shape)
    return found


def read_result(archive: Archive, member: str, layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """Read one result; of a wrong shape only the shape."""
    try:
        dtype = np.dtype(layout.dtype) if re.fullmatch(r"[<>|=]?[fc]\d+", layout.dtype) else None
    except TypeError:  # of a size that the machine lacks
        dtype = None
    if dtype is None:
        raise archive.error(f"{quote(member)} has dtype {brief(layout.dtype)}; expected floating point")
    if layout.shape != shape:
        return np.broadcast_to(np.array(np.nan), layout.shape)
    return archive.read_numbers(member, layout)
