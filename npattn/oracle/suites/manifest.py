"""The manifest of a suite's folder: which golden file is of which recipe, its hash, and what made it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npattn.files import one_line, whole_file
from npattn.oracle.golden_files.archives import ArchiveError
from npattn.oracle.golden_files.header import system_to_json
from npattn.oracle.recipes import Recipe
from npattn.oracle.suites.sources import captured_by
from npattn.version import find_source, find_version
from npattn.wording import brief, describe_type

__all__ = ["MANIFEST", "Entry", "describe_recipe", "find_versions", "identify", "read_manifest", "write_manifest"]

MANIFEST = "manifest.json"
"""Its name in the folder."""
FORMAT_NAME = "npattn suite"
VERSION = 1
MAX_SIZE = 2**28
"""Bytes of JSON that are read: those of half a million cases."""


@dataclass(frozen=True)
class Entry:
    """What a manifest says of one golden file.

    Attributes
    ----------
    file : str
        Its name in the folder.
    id : str
        The recipe's.
    recipe : dict
        What the case is made of, for JSON.
    sha256 : str or None
        Of the file; None as long as it is not made.
    bytes : int or None
        The file's length.
    versions : dict of str
        Of what made it: "npattn", "source" (a hash of npattn's own code) and "numpy"; of a system of someone's own
        "system", a hash of its code.
    error : str or None
        Why it could not be made.
    """

    file: str
    id: str
    recipe: dict[str, Any]
    sha256: str | None
    bytes: int | None
    versions: dict[str, str]
    error: str | None


ENTRY_FIELDS = {field.name for field in dataclasses.fields(Entry)}


def find_versions() -> dict[str, str]:
    """Say what makes cases here."""
    return {"npattn": find_version(), "source": find_source(), "numpy": np.__version__}


def describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """Say in JSON's terms what a case is made of.

    Raises
    ------
    TypeError
        If a hyperparameter, or another value of the recipe, can't be written so.

    Examples
    --------
    >>> from npattn.oracle import cases
    >>> describe_recipe(cases("eca", ["float16"], kinds=["ties"])[0])["values"]
    'ties'
    """
    fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    described = {name: value for name, value in fields.items() if name not in ("module", "label")}
    for name, value in described.items():
        if not isinstance(value, int | str):
            raise TypeError(
                f"Recipe: {name}={brief(value)} is {describe_type(value)}; expected an int or a string, which JSON has"
            )
    captured = captured_by(recipe.module)
    return {"system": system_to_json(recipe.module), **({"captured": captured} if captured else {}), **described}


def identify(described: Mapping[str, Any]) -> str:
    """Return a hash of what a case is made of."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Entry]:
    """Read a folder's manifest, of which nothing is trusted.

    Returns
    -------
    dict of Entry
        By the file's name.

    Raises
    ------
    ValueError
        If it is no manifest; one line says why. (It is an `npattn.oracle.ArchiveError`.)
    OSError
        If it can't be read.
    """
    path = Path(folder) / MANIFEST
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise refusal(path, "no regular file")
    if status.st_size > MAX_SIZE:
        raise refusal(path, f"has {status.st_size} bytes; expected no more than {MAX_SIZE}")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise refusal(path, f"cut off or altered ({error})") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT_NAME:
        raise refusal(path, f"its format is not {FORMAT_NAME!r}")
    if found.get("version") != VERSION:
        raise refusal(path, f"version {brief(found.get('version'))}; npattn {find_version()} reads version {VERSION}")
    listed = found.get("cases")
    entries = [read_entry(path, one) for one in (listed if isinstance(listed, list) else [None])]
    names = {entry.file: entry for entry in entries}
    if len(names) != len(entries):
        raise refusal(path, "lists a file twice")
    return names


def read_entry(path: Path, value: Any) -> Entry:
    """Read what a manifest says of one file, whose name leads nowhere else."""
    if not isinstance(value, dict) or value.keys() != ENTRY_FIELDS:
        raise refusal(path, f"cases holds {brief(value)}; expected {', '.join(sorted(ENTRY_FIELDS))} of each")
    entry = Entry(**value)
    kinds = (
        isinstance(entry.file, str)
        and isinstance(entry.id, str)
        and isinstance(entry.recipe, dict)
        and isinstance(entry.sha256, (str, type(None)))
        and type(entry.bytes) in (int, type(None))
        and isinstance(entry.versions, dict)
        and isinstance(entry.error, (str, type(None)))
    )
    if not kinds or "/" in entry.file or "\\" in entry.file or "\0" in entry.file or not entry.file.endswith(".npz"):
        raise refusal(path, f"cases holds {brief(value)}; expected the name of an .npz file, its recipe and its hash")
    return entry


def write_manifest(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Write a folder's manifest, whole or not at all."""
    cases = [dataclasses.asdict(entries[name]) for name in sorted(entries)]
    text = json.dumps({"format": FORMAT_NAME, "version": VERSION, "cases": cases}, indent=1)
    with whole_file(folder / MANIFEST, force=True) as temporary:
        temporary.write_text(text + "\n", encoding="ascii")


def refusal(path: Path, reason: str) -> ArchiveError:
    """Return an exception that names the manifest and says what is wrong with it."""
    return ArchiveError(f"{one_line(str(path))}: {one_line(reason, 280)}: expected a manifest, as a suite writes it")
