"""Cases kept on a disk, so that a second run of a suite of tests makes none anew."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

from npattn.oracle.case import Case
from npattn.oracle.golden_files.archives import ArchiveError
from npattn.oracle.golden_files.reading import load
from npattn.oracle.recipes import Recipe
from npattn.oracle.suites.manifest import describe_recipe, identify
from npattn.oracle.systems import is_known
from npattn.version import find_source, find_version

__all__ = ["keep_case"]


def keep_case(recipe: Recipe, folder: Path) -> Case:
    """Read a recipe's case from a folder, or make it and keep it there.

    What can't be read, because it is damaged say, is made anew; that it can't be written is no reason to fail. Cases of
    systems that npattn does not bring are always made: nobody knows whether their code is the same. Those of another
    npattn are removed.

    Parameters
    ----------
    recipe : Recipe
    folder : pathlib.Path
        For nothing else.

    Returns
    -------
    Case

    Examples
    --------
    >>> import tempfile
    >>> from npattn.oracle import cases
    >>> recipe = cases("eca", ["float16"], kinds=["ties"])[0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made, read = (keep_case(recipe, Path(folder)) for _ in range(2))
    >>> made.budget["output"].sum() == read.budget["output"].sum()
    np.True_
    """
    if not is_known(recipe.module):
        return recipe.make()
    shelf = folder / f"{find_version()}-{find_source()[:16]}"
    path = shelf / f"{identify(describe_recipe(recipe))}.npz"
    with contextlib.suppress(ArchiveError, OSError):
        return replace(load(path), module=recipe.module)
    case = recipe.make()
    with contextlib.suppress(OSError):  # no room, no right, or another process has just emptied the folder
        if not shelf.is_dir():
            for other in folder.iterdir() if folder.is_dir() else ():
                shutil.rmtree(other, ignore_errors=True)
            shelf.mkdir(parents=True, exist_ok=True)
        case.save(path, force=True)
    return case
