"""Equations as a browser shows them, by latex2mathml (extra ``page``)."""

from __future__ import annotations

import functools
import re
from html import escape

from latex2mathml.converter import convert

from npattn.tracing.plain import to_plain

__all__ = ["to_mathml"]

UNKNOWN_COMMAND = re.compile(r"<m(?:i|o|text)>\\(\w+)</m(?:i|o|text)>")
"""A command that latex2mathml hands on as it is, such as that of arg."""
ALIGNED = re.compile(r"\\begin\{(aligned|gathered)\}(.*)\\end\{\1\}", flags=re.DOTALL)
TOKEN = re.compile(r"\\(?:qquad|begin|end|left|right|cr)(?![a-zA-Z])|\\.|.", flags=re.DOTALL)


@functools.cache
def to_mathml(latex: str) -> str:
    r"""Write an equation as MathML, with plain text for whoever listens to it.

    What stands beside each other after a wide space comes below each other.

    Examples
    --------
    >>> to_mathml(r"a \lt b")[:62]
    '<math aria-label="a &lt; b" xmlns="http://www.w3.org/1998/Math'
    """
    return "".join(map(line, split_lines(latex)))


def line(latex: str) -> str:
    """Write one line."""
    written = UNKNOWN_COMMAND.sub(r"<mi>\1</mi>", convert(latex, display="block"))
    return re.sub(r"^<math", f'<math aria-label="{escape(to_plain(latex))}"', written)


def split_lines(latex: str) -> list[str]:
    r"""Split what an equation has beside and below each other, outside of groups: each has a line of its own.

    Examples
    --------
    >>> split_lines(r"a = {b \qquad c}, \qquad d = e")
    ['a = {b \\qquad c},', 'd = e']
    >>> split_lines(r"\begin{aligned} a &= b, & c &= d \\ &+ e \end{aligned}")
    ['a = b,', 'c = d', '+ e']
    """
    whole = ALIGNED.fullmatch(latex.strip())
    lines, depth, columns = [""], 0, 0
    for token in TOKEN.findall(whole[2] if whole else latex):
        depth += (token in ("{", r"\begin", r"\left")) - (token in ("}", r"\end", r"\right"))
        columns += token == "&" and not depth
        if token in (r"\qquad", r"\\", r"\cr") and not depth:
            lines.append("")
            columns = 0 if token != r"\qquad" else columns
        elif token == "&" and whole and not depth:
            lines += [""] * (columns % 2 == 0)  # the first aligns an equation, the second begins another
        else:
            lines[-1] += token
    return [re.sub(r"\s+", " ", line).strip() for line in lines if line.strip()]
