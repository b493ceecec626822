"""The equations of the pages in ``derivations/``, by their numbers."""

from __future__ import annotations

import functools
import re
from pathlib import Path

__all__ = ["equation_of", "equations"]

PACKAGE = Path(__file__).parent.parent
FOLDERS = PACKAGE / "derivations", PACKAGE.parent / "derivations"
"""Where the pages lie: in an installed package, in the repository."""
DISPLAY = re.compile(r"^(?:\$\$|```math)\n(.*?)^(?:\$\$|```)$", flags=re.MULTILINE | re.DOTALL)
TAG_COMMAND = re.compile(r"\s*\\tag\{(\w+'?)\}\s*")


@functools.cache
def equations(page: str) -> dict[str, str]:
    """Read the numbered equations of a page, in their order.

    Parameters
    ----------
    page : str
        Its name, such as ``"efficient_channel"``.

    Returns
    -------
    dict of str
        LaTeX by tag; empty if there is no such page.

    Examples
    --------
    >>> equations("efficient_channel")["(4)"]
    'y_{bcn} = a_{bc} x_{bcn}'
    """
    path = next((found for folder in FOLDERS if (found := folder / f"{page}.md").is_file()), None)
    text = "" if path is None else path.read_text(encoding="utf-8")
    displays = re.findall(DISPLAY, text)
    return {
        f"({number[1]})": TAG_COMMAND.sub("", latex).strip()
        for latex in displays
        if (number := TAG_COMMAND.search(latex))
    }


def equation_of(page: str, tag: str) -> str | None:
    """Return the LaTeX of an equation, if the page has one of this number."""
    return equations(page).get(tag)
