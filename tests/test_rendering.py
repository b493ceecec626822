"""The pages and the README show on GitHub what is written: maths that Markdown leaves alone, code that fits."""

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.naming import for_each

REPOSITORY = Path(__file__).parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "derivations").glob("*.md"))]
every_page = for_each("page", PAGES)
GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
MARKUP = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for whatever Markdown made of a part of the text
EVALUATE = """
const katex = require("katex");
const errors = [];
for (const [formula, displayMode] of JSON.parse(require("fs").readFileSync(0, "utf8"))) {
  try {
    katex.renderToString(formula, {displayMode, strict: "error", throwOnError: true});
  } catch (error) {
    errors.push(`${error.message} in ${formula}`);
  }
}
console.log(JSON.stringify(errors));
"""


def between_dollars(text):
    return [code or formula for code, formula in re.findall(r"\$`([^`]+)`\$|\$([^$`]*)\$", text)]


def as_shown(part):
    if part.type == "code_inline":
        return f"`{part.content.replace('$', MARKUP)}`"
    return {"text": part.content, "softbreak": "\n"}.get(part.type, MARKUP)


parse = functools.cache(GITHUB.parse)


@functools.cache
def inline_formulas(text):
    """The formulas between dollars after Markdown's inline parsing: there GitHub looks for them."""
    found = []
    for block in parse(text):
        if block.type == "inline":
            found += between_dollars("".join(as_shown(part) for part in block.children))
    return found


def prose(text):
    """The text without its code; a formula between backticks and dollars is none."""
    return re.sub(r"^```.*?^```$|(\$`[^`]+`\$)|`[^`\n]+`", r"\1", text, flags=re.DOTALL | re.MULTILINE)


def written_formulas(text):
    """The same as they stand in the source."""
    return between_dollars(prose(text))


def displays(text):
    return [block.content for block in parse(text) if block.type == "fence" and block.info == "math"]


@every_page
def test_markdown_leaves_every_formula_as_it_is_written(page):
    text = page.read_text(encoding="utf-8")
    assert "$$" not in text, "a display stands in a ```math fence, where Markdown changes nothing"
    assert inline_formulas(text) == written_formulas(text)


@every_page
def test_formulas_keep_to_what_github_allows(page):
    text = page.read_text(encoding="utf-8")
    for formula in inline_formulas(text) + displays(text):
        assert "\\operatorname" not in formula, formula
        assert "<" not in formula, formula  # may open a tag: \lt
    for line in prose(text).splitlines():
        # A formula begins after a space or an opening bracket and ends before a space or punctuation.
        assert not re.search(r"[\w-]§|§\w", re.sub(r"\$`[^`]+`\$|\$[^$]+\$", "§", line)), line
        # An underscore after punctuation, or a star, may open emphasis, whether or not another closes it today.
        for formula in re.findall(r"\$([^$]+)\$", re.sub(r"\$`[^`]+`\$", "", line)):
            assert not re.search(r"[^\w\s]_|\*", formula), formula


@for_each(
    "formula",
    [
        r"\bar x^{a}_{b} + \bar y_{c}",
        r"x^*_a y^*",
        r"a*b*c",
        r"\{x\}",
        r"x~~y~~z",
        r"[a](b)",
        r"a \\ b",
        r"a<b>c",
        r"x `y` z",
    ],
)
def test_a_formula_of_which_markdown_takes_something_is_seen(formula):
    assert formula not in inline_formulas(f"Here ${formula}$ stands.")


@pytest.mark.parametrize(
    "formula", [r"x_{bcn} = \frac{1}{N} \sum_n p_{bc}", r"\bar x_b^{\text{gate}} y_c", r"\sigma'(z_c)"]
)
def test_a_formula_that_markdown_leaves_alone_is_found_whole(formula):
    assert inline_formulas(f"- Here ${formula}$ stands, and *there* ${formula}$.") == [formula, formula]
    assert inline_formulas(f"| a | ${formula}$ |\n|---|---|\n| b | ${formula}$ |\n") == [formula, formula]
    assert displays(f"```math\n{formula}\n```\n") == [formula + "\n"]


@pytest.mark.skipif(shutil.which("node") is None, reason="node, which runs KaTeX, is not installed")
def test_katex_in_strict_mode_typesets_every_formula():
    if subprocess.run(["node", "-e", 'require.resolve("katex")'], capture_output=True, check=False).returncode:
        pytest.skip("npm's katex is not installed where node finds it: npm install katex, or set NODE_PATH")
    formulas = []
    for text in (page.read_text(encoding="utf-8") for page in PAGES):
        formulas += [[formula, True] for formula in displays(text)]
        formulas += [[formula, False] for formula in inline_formulas(text)]
    given = json.dumps([*formulas, [r"\unknown", False], ["é", True]])
    run = subprocess.run(["node", "-e", EVALUATE], input=given, capture_output=True, check=True, encoding="utf-8")
    *errors, unknown, strict = json.loads(run.stdout)
    assert "unknown" in unknown
    assert "unicodeTextInMathMode" in strict
    assert errors == []


def blocks(page, *, of=None, but=()):
    """The fenced blocks of a page, of one language or of all but some."""
    fences = [block for block in parse(page.read_text(encoding="utf-8")) if block.type == "fence"]
    return [block.content for block in fences if of in (None, block.info) and block.info not in but]


@every_page
def test_code_fits_the_page(page):
    lines = "".join(blocks(page, but=("math", "mermaid"))).splitlines()
    assert [line for line in lines if len(line) > 88] == []


@every_page
def test_shapes_in_tables_stay_on_one_line(page):
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    shapes = [formula for row in rows for formula in between_dollars(row) if "\\times" in formula]
    assert [shape for shape in shapes if not re.fullmatch(r"\{.*\}", shape)] == []  # a line never ends within braces


def arrows(diagram):
    return re.findall(r'^ *(\w+)(?:[\[{].*?[\]}])? --(?: "?([^"\n]*?)"? --)?> (\w+)', diagram, flags=re.MULTILINE)


def width(diagram):
    """How many pixels a diagram takes from left to right, nearly: a box and its arrow, and every letter in a row."""
    texts, edges = dict(re.findall(r'(\w+)\["?(.*?)"?\]', diagram)), arrows(diagram)

    def from_box_on(box):
        behind = [8.5 * len(label) + from_box_on(head) for tail, label, head in edges if tail == box]
        return 110 + 8.5 * len(texts[box]) + max(behind, default=0)

    return max(map(from_box_on, texts))


@every_page
def test_diagrams_from_left_to_right_fit_the_page(page):
    for diagram in blocks(page, of="mermaid"):
        assert len(arrows(diagram)) == diagram.count("-->") > 0
        if diagram.startswith("graph LR"):  # wider ones are shown smaller than they are, or run down the page: graph TD
            assert width(diagram) <= 800
