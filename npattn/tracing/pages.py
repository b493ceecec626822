"""The equations of the pages in ``derivations/``, by their numbers."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

from npattn.module import Module

__all__ = ["equation_of", "equations"]

PACKAGE = Path(__file__).parent.parent
FOLDERS = PACKAGE / "derivations", PACKAGE.parent / "derivations"
"""Where the pages lie: in an installed package, in the repository."""
DISPLAY = re.compile(r"^(?:\$\$|```math)\n(.*?)^(?:\$\$|```)$", flags=re.MULTILINE | re.DOTALL)
CHOSEN_BY_DEFAULT = re.compile(r"(\\\w+)_\{\\text\{(\w+)\}\}('?)\([^()]*\) = .*", flags=re.DOTALL)
"""How an equation ends that says what a function is, by the name that a hyperparameter has for it by default."""
FORMS_PAGE = "squeeze_excitation"
"""Whose table has all such functions with their slopes, by name."""
FORM = re.compile(r"^\| `(\w+)`.*? \| \$(.*?)\$ \| \$(.*?)\$ \|$", flags=re.MULTILINE)
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
    displays = re.findall(DISPLAY, text_of(page))
    return {
        f"({number[1]})": TAG_COMMAND.sub("", latex).strip()
        for latex in displays
        if (number := TAG_COMMAND.search(latex))
    }


def equation_of(page: str, tag: str, system: Module | None = None) -> str | None:
    r"""Return the LaTeX of an equation, if the page has one of this number, with the functions that are chosen.

    Parameters
    ----------
    page, tag : str
    system : Module, optional
        Whose step it is. Where the equation says what the default activation is, and the system has another, that one's
        formula takes its place; one that the pages don't know is left out.

    Returns
    -------
    str, optional

    Examples
    --------
    >>> from npattn import SqueezeExcitation
    >>> print(equation_of("squeeze_excitation", "(3)"))
    r_{bm} = \varphi(h_{bm}), \qquad \varphi_{\text{relu}}(h) = \max(h, 0)
    >>> print(equation_of("squeeze_excitation", "(3)", SqueezeExcitation(channels=8, activation="gelu")))
    r_{bm} = \varphi(h_{bm}), \qquad \varphi_{\text{gelu}}(h) = h \Phi(h)
    """
    latex = equations(page).get(tag)
    found = CHOSEN_BY_DEFAULT.search(latex or "")
    if latex is None or system is None or found is None:
        return latex
    function, default, prime = found.groups()
    names = [getattr(system, field.name) for field in dataclasses.fields(system) if field.default == default]
    if names in ([], [default]):
        return latex
    if names[0] not in forms():
        return re.sub(r", \\qquad $", "", latex[: found.start()])
    formula, slope = forms()[names[0]]
    variable = "z" if function == r"\sigma" else "h"  # as in the table
    named = f"{function}_{{\\text{{{names[0].replace('_', ' ')}}}}}{prime}({variable})"
    return f"{latex[: found.start()]}{named} = {slope if prime else formula}"


@functools.cache
def forms() -> dict[str, tuple[str, str]]:
    """Read the LaTeX of every activation and gate, and of its slope, by name."""
    return {name: (formula, slope) for name, formula, slope in FORM.findall(text_of(FORMS_PAGE))}


def text_of(page: str) -> str:
    """Read a page; empty if there is none."""
    path = next((found for folder in FOLDERS if (found := folder / f"{page}.md").is_file()), None)
    return "" if path is None else path.read_text(encoding="utf-8")
