"""Which version of the package this is."""

from __future__ import annotations

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["UNKNOWN", "find_source", "find_version"]

UNKNOWN = "0+unknown"
"""The version of a folder that merely stands on the path."""


def find_version() -> str:
    """Look up the installed distribution's version, `UNKNOWN` if there is none.

    Examples
    --------
    >>> import npattn
    >>> find_version() == npattn.__version__
    True
    """
    try:
        return version("npattn")
    except PackageNotFoundError:
        return UNKNOWN


@functools.cache
def find_source() -> str:
    """Hash the package's own code: two that share a version, as while one works on it, may not share this.

    Examples
    --------
    >>> len(find_source())
    64
    """
    package = Path(__file__).parent
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()
