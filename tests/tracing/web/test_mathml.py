"""Equations as MathML."""

import re

from npattn.tracing.pages import equations
from npattn.tracing.web.mathml import split_lines, to_mathml
from tests.naming import for_each
from tests.tracing.test_text import PAGES


@for_each("page", PAGES)
def test_no_equation_keeps_a_trace_of_latex(page):
    for tag, latex in equations(page).items():
        for line in split_lines(latex):
            written = to_mathml(line)
            text = re.sub("<[^>]*>", "", written)
            assert text.strip(), tag
            assert "\\" not in text, tag
            assert "&amp;" not in text, tag
            assert 'aria-label=""' not in written, tag
        assert to_mathml(latex).count("<math ") == len(split_lines(latex)), tag


@for_each(
    ("latex", "lines"),
    [
        (r"a = b", ["a = b"]),
        (r"a = b, \qquad c = d", ["a = b,", "c = d"]),
        (r"\left( a \qquad b \right)", [r"\left( a \qquad b \right)"]),
        (r"\begin{gathered} a \\ b \qquad c \end{gathered}", ["a", "b", "c"]),
        (r"\begin{aligned} a &= b, & c &= d \cr &+ e \end{aligned}", ["a = b,", "c = d", "+ e"]),
        (r"\begin{cases} a & b \\ c & d \end{cases}", [r"\begin{cases} a & b \\ c & d \end{cases}"]),
    ],
)
def test_what_stands_beside_each_other_has_lines_of_its_own(latex, lines):
    assert split_lines(latex) == lines
