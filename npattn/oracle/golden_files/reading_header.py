"""A golden file's header read, of which nothing is trusted: its fields must be those that its version knows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from npattn.oracle.formats import FORMATS
from npattn.oracle.golden_files.archives import Archive, ArchiveError, quote, repeated
from npattn.oracle.golden_files.described import AXES
from npattn.oracle.golden_files.header import (
    CHECKSUM,
    FIELDS,
    FORMAT_NAME,
    HEADER,
    MAX_HEADER_SIZE,
    VERSION,
    VERSION_WITH_AXES,
    VERSION_WITH_STEPS,
)
from npattn.oracle.layouts import LAYOUTS
from npattn.oracle.special import VALUES
from npattn.oracle.steps import looks_like_step
from npattn.oracle.tensors import Change
from npattn.version import find_version
from npattn.wording import brief

__all__ = ["is_number", "read_header"]

GIVEN = ("inputs", "params", "upstream")
"""What a caller may have given."""


def read_header(archive: Archive) -> dict[str, Any]:
    """Read a golden file's header, which must be unaltered and hold what its version knows."""
    if archive.sizes[HEADER] > MAX_HEADER_SIZE:
        raise archive.error(f"{HEADER} has {archive.sizes[HEADER]} bytes; expected no more than {MAX_HEADER_SIZE}")
    data = archive.read(HEADER)
    sealed = CHECKSUM in archive.sizes
    if sealed and archive.read(CHECKSUM, 65) != hashlib.sha256(data).hexdigest().encode("ascii"):
        raise archive.error(f"{HEADER} is altered: {CHECKSUM} has another sha256")
    try:
        header = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique_names,
            parse_float=finite_number,
            parse_constant=finite_number,
        )
        validate_header(header)
    except ArchiveError:
        raise
    except (ValueError, RecursionError) as error:
        raise archive.error(f"{HEADER}: {error}") from None
    if not sealed:
        raise archive.error(f"lacks {quote(CHECKSUM)}, the sha256 of {HEADER}")
    return header


def validate_header(header: Any) -> None:
    """Validate a header: its fields must be those that its version knows, each of its kind.

    Raises
    ------
    ValueError
    """
    if not isinstance(header, dict) or header.get("format") != FORMAT_NAME:
        raise ValueError(f"its format is not {FORMAT_NAME!r}; expected the header of a golden file")
    found = header.get("version")
    if type(found) is not int or not VERSION <= found <= VERSION_WITH_AXES:
        raise ValueError(
            f"version {brief(found)} of the format; npattn {find_version()} reads versions {VERSION} to "
            f"{VERSION_WITH_AXES}: npattn golden makes the case again"
        )
    known = FIELDS | ({"axes": str} if found == VERSION_WITH_AXES else {})
    if found == VERSION_WITH_STEPS or (found == VERSION_WITH_AXES and "steps" in header):
        known = known | {"steps": list}
    for name in (*known, *header):
        if name not in header:
            raise ValueError(f"{name!r} is missing")
        if name not in known:
            raise ValueError(f"unknown field {brief(name)}; expected {', '.join(known)}")
        if type(header[name]) is not known[name]:
            raise ValueError(f"{name} is {brief(header[name])}; expected {known[name].__name__}")
    validate_choices(header)
    for result in header["results"]:
        if not is_result(result):
            raise ValueError(f"results holds {brief(result)}; expected name, limits, freedom and digits")
    for step in header.get("steps", []):
        if not is_step(step):
            raise ValueError(f"steps holds {brief(step)}; expected name, line, feeds, limits and freedom")


def validate_choices(header: Mapping[str, Any]) -> None:
    """Validate the fields of a header that hold one or some of a few words, the seed, and what was rounded.

    Raises
    ------
    ValueError
    """
    for name, choices in {"dtype": FORMATS, "values": VALUES, "layout": LAYOUTS, "axes": AXES}.items():
        if name in header and header[name] not in choices:
            raise ValueError(f"{name} is {brief(header[name])}; expected one of {', '.join(choices)}")
    if header["given"] != [group for group in GIVEN if group in header["given"]]:
        raise ValueError(f"given is {brief(header['given'])}; expected some of {', '.join(GIVEN)}, in this order")
    for name, change in header["rounded"].items():
        if not is_change(change) or name.partition("/")[0] not in header["given"]:
            raise ValueError(f"rounded holds {brief(name)}: {brief(change)}; expected changes of what was given")
    if header["seed"] < 0:
        raise ValueError(f"seed is {brief(header['seed'])}; expected no negative number")


def is_change(change: Any) -> bool:
    """Tell whether a value of JSON says what rounding has changed of an array."""
    return (
        isinstance(change, dict)
        and list(change) == list(Change._fields)
        and all(type(change[name]) is int for name in ("changed", "size", "beyond"))
        and 0 <= change["beyond"] <= change["changed"] <= change["size"]
        and change["changed"] > 0
        and is_number(change["largest"])
        and change["largest"] >= 0
    )


def is_result(result: Any) -> bool:
    """Tell whether a value of JSON holds what is read of a result; what follows from it is compared later."""
    return has_limits(result) and "digits" in result and (result["digits"] is None or is_number(result["digits"]))


def is_step(step: Any) -> bool:
    """Tell whether a value of JSON holds what is read of a step; what follows from it is compared later."""
    return (
        has_limits(step)
        and isinstance(step["name"], str)
        and looks_like_step(step["name"])
        and isinstance(step.get("line"), str)
        and isinstance(step.get("feeds"), list)
        and all(isinstance(name, str) for name in step["feeds"])
    )


def has_limits(judged: Any) -> bool:
    """Tell whether a value of JSON holds the name and the limits of a result or a step."""
    return (
        isinstance(judged, dict)
        and {"name", "worst_limit", "rms_limit", "freedom"} <= judged.keys()
        and all(is_number(judged[name]) and judged[name] > 0 for name in ("worst_limit", "rms_limit"))
        and is_number(judged["freedom"])
        and judged["freedom"] >= 1
    )


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of a JSON object's entries, whose names must be different."""
    twice = repeated(name for name, _ in pairs)
    if twice:
        raise ValueError(f"{brief(twice[0])} stands there twice")
    return dict(pairs)


def finite_number(text: str) -> float:
    """Read a number of JSON, which must be a finite float64."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def is_number(value: Any) -> bool:
    """Tell whether a value of JSON is a number that float64 holds."""
    return type(value) is float or (type(value) is int and abs(value) < 2**53)
