"""Equations as a terminal can show them: LaTeX to plain text with Unicode's letters and signs."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["to_plain"]

SYMBOLS = r"""
alpha α beta β gamma γ delta δ epsilon ε varepsilon ε zeta ζ eta η theta θ iota ι kappa κ lambda λ mu μ nu ν xi ξ pi π
rho ρ sigma σ varsigma ς tau τ phi φ varphi φ chi χ psi ψ omega ω ell ℓ Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π
Sigma Σ Phi Φ Psi Ψ Omega Ω sum Σ prod Π int ∫ partial ∂ infty ∞ top ᵀ ast * dots … ldots … cdots … cdot · times ×
odot ⊙ pm ± in ∈ le ≤ ge ≥ ne ≠ lt < gt > approx ≈ equiv ≡ cup ∪ cap ∩ to → rightarrow → leftarrow ← Rightarrow ⇒
circ ∘ mid | forall ∀ langle ⟨ rangle ⟩ lvert | rvert | lVert ‖ rVert ‖ lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉
lbrace { rbrace } lbrack [ rbrack ] colon : sim ~ | ‖ { { } } _ _ % %
"""
SPACES = {",": " ", ";": " ", ":": " ", " ": " ", "!": "", "quad": "  ", "qquad": "   ", "\\": "; ", "cr": "; "}
SIGNS = SPACES | dict(zip(SYMBOLS.split()[::2], SYMBOLS.split()[1::2], strict=True))
"""What stands for a command."""
ACCENTS = {"bar": "\u0304", "hat": "\u0302", "tilde": "\u0303", "overline": "\u0304", "dot": "\u0307", "vec": "\u20d7"}
STYLES = {"text", "mathrm", "mathbf", "mathbb", "mathcal", "mathit", "mathrel", "mathbin", "mathop", "textstyle"}
DELIMITER_SIZES = {
    "left",
    "right",
    "big",
    "Big",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "bigg",
    "Bigg",
    "biggl",
    "biggr",
    "displaystyle",
}
LISTS = {"aligned", "gathered"}
"""Surroundings of equations below each other, which need no brackets."""
RAISED = str.maketrans("0123456789+-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻")
TIDIED = [
    (r"(?<=[(\[⟨]) +| +(?=[,;)\]⟩])", ""),
    (r",;", ",   "),
    (r"\s+(?==)", " "),
    (r"\s{3,}", "   "),
    (r"\b(exp|log|max|min) (?=\()", r"\1"),
]
"""Spaces that LaTeX doesn't show, or shows narrower."""
TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\s+|.", flags=re.DOTALL)


def to_plain(latex: str) -> str:
    r"""Write an equation in plain text.

    Parameters
    ----------
    latex : str

    Returns
    -------
    str
        On one line. A command that is not known stands there by its name.

    Examples
    --------
    >>> to_plain(r"p_{bc} = \frac{1}{N} \sum_n x_{bcn}")
    'p_bc = 1/N Σ_n x_bcn'
    >>> to_plain(r"\sigma(z) = \frac{1}{1 + e^{-z}}, \qquad d^{-1/2} \le \sqrt{u^2 + 1}")
    'σ(z) = 1/(1 + e^(-z)),   d^(-1/2) ≤ √(u² + 1)'
    >>> to_plain(r"\begin{aligned} u & = 2 v, \\ w & = \begin{bmatrix} 1 \cr 2 \end{bmatrix} \end{aligned}")
    'u = 2 v,   w = [1; 2]'
    """
    tokens = Tokens(TOKEN.findall(latex))
    text = "".join(write_group(tokens))
    for pattern, tidy in TIDIED:
        text = re.sub(pattern, tidy, text)
    return text.strip()


class Tokens:
    """LaTeX's tokens, of which the first is taken in turn."""

    def __init__(self, tokens: list[str]) -> None:
        self.left = tokens[::-1]

    def next(self) -> str | None:
        """Take the next."""
        return self.left.pop() if self.left else None

    def skip_space(self) -> None:
        """Take the space that comes next, if some does."""
        while self.left and self.left[-1].isspace():
            self.left.pop()


def write_group(tokens: Tokens) -> Iterator[str]:
    """Write tokens up to the end of their group."""
    while (token := tokens.next()) not in (None, "}"):
        assert token is not None
        yield from write_one(token, tokens)


def write_one(token: str, tokens: Tokens) -> Iterator[str]:
    """Write what a token begins."""
    name = token.removeprefix("\\") if len(token) > 1 else ""
    if token == "{":
        yield from write_group(tokens)
    elif token in "_^":
        yield script(token, argument(tokens))
    elif token.isspace() or token == "&":
        yield " "
    elif not token.startswith("\\"):
        yield token
    elif name in ("frac", "tfrac", "dfrac"):
        above, below = argument(tokens), argument(tokens)
        yield f"{bracketed(above)}/{bracketed(below)}"
    elif name == "sqrt":
        yield f"√{bracketed(argument(tokens))}"
    elif name in ACCENTS:
        inner = argument(tokens)
        yield inner + ACCENTS[name] if len(inner) == 1 else f"{name}({inner})"
    elif name in STYLES:
        yield argument(tokens)
    elif name in ("begin", "end"):
        listed = argument(tokens) in LISTS
        yield "" if listed else "[" if name == "begin" else "]"
        tokens.skip_space()
    elif name in DELIMITER_SIZES:
        tokens.skip_space()
        if tokens.left and tokens.left[-1] == ".":
            tokens.next()
    else:
        yield SIGNS.get(name, name)


def argument(tokens: Tokens) -> str:
    """Write a command's argument: a group, or the one token that comes next."""
    tokens.skip_space()
    token = tokens.next()
    return "" if token is None else "".join(write_one(token, tokens)).strip()


def script(token: str, inner: str) -> str:
    """Write an index or exponent."""
    if token == "^" and inner in ("ᵀ", "*"):
        return inner
    if token == "^" and re.fullmatch(r"[+-]?\d+", inner):
        return inner.translate(RAISED)
    return f"{token}{inner}" if re.fullmatch(r"(?:[^\W_]|[,*'\u0300-\u036f])*", inner) else f"{token}({inner})"


def bracketed(inner: str) -> str:
    """Put brackets round what a line or a root would hold together."""
    return inner if re.fullmatch(r"√?[\w.\u0300-\u036f]*([_^]?\([^()]*\))?", inner) else f"({inner})"
