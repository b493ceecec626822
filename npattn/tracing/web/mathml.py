"""Equations as a browser shows them, by latex2mathml (extra ``page``)."""

from __future__ import annotations

import functools
import re
from html import escape

from latex2mathml.converter import convert

from npattn.tracing.plain import to_plain

__all__ = ["to_mathml"]


@functools.cache
def to_mathml(latex: str) -> str:
    r"""Write an equation as MathML, with plain text for whoever listens to it.

    Examples
    --------
    >>> to_mathml(r"a \lt b")[:62]
    '<math aria-label="a &lt; b" xmlns="http://www.w3.org/1998/Math'
    """
    written = convert(latex, display="block")
    return re.sub(r"^<math", f'<math aria-label="{escape(to_plain(latex))}"', written)
