"""Traces and equations in plain text."""

import re

import numpy as np

import npattn
from npattn.ops.elementwise import ACTIVATIONS, GATES
from npattn.oracle import golden
from npattn.tracing import trace
from npattn.tracing.pages import equations, forms
from npattn.tracing.plain import to_plain
from npattn.tracing.web.mathml import to_mathml
from tests import interrupts
from tests.naming import for_each
from tests.strategies import SYSTEMS

PAGES = sorted(path.stem for path in (npattn.tracing.pages.PACKAGE.parent / "derivations").glob("*.md"))
X = np.array([[[[1.0, 3.0]], [[0.0, -2.0]]]])


@for_each("page", PAGES)
def test_no_equation_keeps_a_trace_of_latex(page):
    for tag, latex in equations(page).items():
        plain = to_plain(latex)
        assert not {"\\", "$", "&", "\n"} & set(plain), tag
        assert plain.count("(") == plain.count(")"), tag


def test_every_activation_and_gate_has_its_formula_and_its_slope_without_a_trace_of_latex():
    assert forms().keys() == {*ACTIVATIONS, *GATES}
    for pair in forms().values():
        for latex in pair:
            assert not {"\\", "$", "&"} & set(to_plain(latex)), latex
            assert "\\" not in re.sub("<[^>]*>", "", to_mathml(latex)), latex


def test_every_system_has_a_page_with_equations():
    assert all(equations(system.derivation.split("/")[1].removesuffix(".md")) for system in SYSTEMS)
    assert equations("no such page") == {}


@for_each(
    ("latex", "plain"),
    [
        (r"\bar z_{bc} = a_{bc} (1 - a_{bc}) \bar a_{bc}", "z\u0304_bc = a_bc (1 - a_bc) a\u0304_bc"),
        (r"\frac{e^{t_{bj}}}{\sum_m e^{t_{bm}}}", "e^(t_bj)/(Σ_m e^(t_bm))"),
        (r"J_{F_{5a}}^\top \bar u \odot W^{-1}", "J_(F_5a)ᵀ u\u0304 ⊙ W⁻¹"),
        (r"\Bigl( x \Bigr) \text{ for } t \lt H, \qquad \mathbf{1}[h \gt 0]", "(x) for t < H,   1[h > 0]"),
        (r"\unknown x", "unknown x"),
    ],
)
def test_equations_are_written_as_on_a_board(latex, plain):
    assert to_plain(latex) == plain


def test_the_table_names_shapes_and_summarises():
    steps = trace(npattn.EfficientChannelAttention(2), {"conv.weight": np.array([[[2.0]]])}, X)
    steps.backward(X)
    rows = [line.split() for line in str(steps).splitlines()]
    assert ["x", "1x2x1x2", "0.5", "1.871", "-2", "3"] in rows
    assert ["z", "1x2", "1", "3.162", "-2", "4"] in rows
    assert '(2) z, back_conv = layers.conv1d(p, params, "conv")' in str(steps)
    assert rows[-1][0] == "dx"  # which is what is returned: it isn't shown again


def test_a_gradient_that_no_step_shows_is_shown_at_the_end():
    steps = trace(npattn.ChannelAttention(2), {"gamma": np.ones(1)}, X)
    dx, _ = steps.backward(X)
    assert str(steps).splitlines()[-1].split() == ["x.grad", "1x2x1x2", *str(steps).splitlines()[-1].split()[2:]]
    assert f"{dx.mean():.4g}" in str(steps).splitlines()[-1]


def test_interrupts_while_numbers_are_summarised_or_judged_leave_numpy_to_handle_errors_as_before(monkeypatch):
    monkeypatch.setattr(interrupts, "ENTERING", ("_ufunc_config.py",))
    module = npattn.EfficientChannelAttention(channels=2, kernel_size=3)
    steps, case = trace(module, module.init(), X), golden(module, height=1, width=2, certify=False)
    before = np.geterr()
    for call in (lambda: str(steps), lambda: case.compare(case.expected)):
        count = 0
        for _ in interrupts.interrupted_calls(call, ["call", "line"]):
            count += 1
            assert np.geterr() == before
        assert count
