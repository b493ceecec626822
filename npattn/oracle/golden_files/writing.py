"""Golden files written: whole or not at all, and the same bytes for the same case."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from npattn.checks import require_booleans
from npattn.files import whole_file
from npattn.oracle.golden_files.header import (
    CHECKSUM,
    HEADER,
    MAX_HEADER_SIZE,
    NUMBERS,
    arrays_of,
    make_header,
    member_name,
)

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["save", "write"]


def save(case: Case, path: str | os.PathLike[str], force: bool = False, *, steps: bool = False) -> None:
    """Write a case to a file, whole or not at all; the same case always gives the same bytes.

    Parameters
    ----------
    case : Case
    path : path
        Ends in ``.npz``, if NumPy's users are to recognise it.
    force : bool, default False
        Whether a regular file that is already there may be replaced; a symbolic link is followed, all else refused.
    steps : bool, default False
        Whether it holds the steps too.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter of the case's system can't be written as JSON, or only as too much of it.
    OSError
        If the file is there already, or can't be written.
    """
    require_booleans("save", force=force, steps=steps)
    with whole_file(path, force=force) as temporary:
        write(case, temporary, steps=steps)


def write(case: Case, path: Path | IO[bytes], *, steps: bool = False) -> None:
    """Write a case to a file that nobody else looks at yet, open or by its path."""
    contents = {
        member_name(group, name): npy_bytes(array.astype(NUMBERS[group], order="C", casting="safe", copy=False))
        for group, arrays in arrays_of(case, steps=steps).items()
        for name, array in arrays.items()
    }
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    header = (json.dumps(make_header(case, checksums, steps=steps), indent=1, allow_nan=False) + "\n").encode("ascii")
    if len(header) > MAX_HEADER_SIZE:
        raise ValueError(f"{case!r} can't be saved: its header has {len(header)} bytes, of {MAX_HEADER_SIZE} at most")
    seal = hashlib.sha256(header).hexdigest().encode("ascii")
    # Stored, not deflated: the bytes then depend on no version of zlib, a reader needs none, and none can be bombed.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {HEADER: header, CHECKSUM: seal, **contents}.items():
            member = zipfile.ZipInfo(name)  # dated 1980-01-01, whatever the clock says
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, data)


def npy_bytes(array: np.ndarray) -> bytes:
    """Write an array as the bytes of an .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return file.getvalue()
