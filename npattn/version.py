"""Which version of the package this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["UNKNOWN", "find_version"]

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
