"""A kernel's results read from a file, for comparison with a golden case."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npattn.oracle.golden_files.archives import Layout, Members, open_archive, quote
from npattn.oracle.golden_files.folders import open_folder
from npattn.oracle.golden_files.header import HEADER
from npattn.wording import brief, did_you_mean, results_meant, suggest

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["read_results"]


def read_results(path: str | os.PathLike[str], case: Case) -> dict[str, np.ndarray]:
    """Read a kernel's results from an .npz file or a folder of .npy files, as safely as `load` reads golden ones.

    Parameters
    ----------
    path : path
        Holds any subset of the case's results and steps, as members named ``output.npy``, ``(3) a.npy`` and so on,
        stored or deflated, of any floating dtype and byte order; or a folder that holds them as files, in whose names
        ``" - "`` stands for ``" / "``: ``sa - (4) o.npy``.
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
    if os.fspath(path) and Path(path).is_dir():
        return read_members(open_folder(path), case)
    with open_archive(path, "an .npz file of results, or a folder of .npy files", deflated=True) as archive:
        return read_members(archive, case)


def read_members(archive: Members, case: Case) -> dict[str, np.ndarray]:
    """Read results from whatever holds them."""
    some = f"some of {', '.join(case.expected)}"
    if HEADER in archive.sizes:
        raise archive.error(f"holds a {HEADER}, as golden files do; expected the results of a kernel")
    if not archive.sizes:
        raise archive.error(f"holds no results; expected {some}")
    names = {member: result_name(member) for member in archive.sizes}
    steps = case.measured_steps or {}
    try:
        case = case.with_steps(names.values())
    except (TypeError, ValueError) as error:  # a misspelt step, or a system whose steps nobody knows
        raise archive.error(str(error)) from None
    found = {}
    for member, name in names.items():
        if name in found:
            raise archive.error(f"holds {quote(name)} twice, under two names; expected one of them")
        if name not in case.expected or not member.endswith(".npy"):
            meant = suggest([f"{known}.npy" for known in results_meant(name, case.expected)])
            meant = meant or did_you_mean(member, [f"{known}.npy" for known in (*case.expected, *steps)], 0.6)
            raise archive.error(f"holds {quote(member)}, which is no result{meant} (expected {some}, as .npy)")
        layout = archive.read_layout(member)
        if "V" in layout.dtype:
            raise archive.error(
                f"{quote(member)} has dtype {layout.dtype!r}, as NumPy writes formats that it lacks, such as "
                "bfloat16; write float32, which holds their numbers exactly: .astype(numpy.float32)"
            )
        found[name] = read_one(archive, member, layout, case.expected[name].shape)
    return found


def result_name(member: str) -> str:
    """Return the name of a result or step that a member holds; a file's has no slash, and hyphens for it."""
    name = member.removesuffix(".npy")
    return " / ".join(name.split(" - ")) if "(" in name else name


def read_one(archive: Members, member: str, layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
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
