"""What the README says of the code is so, and a package index shows it without links that lead nowhere."""

import ast
import difflib
import re
import tomllib
from pathlib import Path

import pytest

from npattn import CATALOGUE
from npattn.cli.systems import group_by_family

REPOSITORY = Path(__file__).parent.parent
README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "derivations").glob("*.md"))]


def bare_blocks(page):
    """The Python blocks of a page that are no doctests, each with the paragraph before it."""
    parts = re.split(r"^```(\w*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    for text, language, code in zip(parts[0::3], parts[1::3], parts[2::3], strict=False):
        if language == "python" and ">>>" not in code:
            yield text.strip().rpartition("\n\n")[2], code


def quotations():
    """The blocks that quote a file of the package, which the paragraph before them links to: page, file, code."""
    for path in PAGES:
        for paragraph, code in bare_blocks(path.read_text(encoding="utf-8")):
            for target in re.findall(r"\]\(([^)]*\.py)\)", paragraph):
                yield path, path.parent / target, code


def code_lines(source):
    """Lines of code without docstrings, indentation and blank lines; one space is as good as several."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            lines[first.lineno - 1 : first.end_lineno] = [""] * (first.end_lineno - first.lineno + 1)
    return [" ".join(line.split()) for line in lines if line.strip()]


def differences(quoted, source):
    """What a quotation has that the file lacks in the place where most of it stands, and the other way round."""
    theirs, ours = code_lines(source), code_lines(quoted)
    starts = [i for i, line in enumerate(theirs) if line == ours[0]] or range(len(theirs))
    there = (theirs[start : start + len(ours)] for start in starts)
    nearest = max(there, key=lambda lines: difflib.SequenceMatcher(None, ours, lines, autojunk=False).ratio())
    return [line for line in difflib.ndiff(nearest, ours) if line[0] in "-+"]


@pytest.mark.parametrize(("page", "file", "code"), list(quotations()), ids=lambda value: getattr(value, "stem", ""))
def test_quoted_code_is_the_files(page, file, code):
    changed = differences(code, file.read_text(encoding="utf-8"))
    assert not changed, f"{page.name} (+) differs from {file.relative_to(REPOSITORY)} (-):\n" + "\n".join(changed)


def test_the_readme_quotes_a_system():
    assert "def forward" in "".join(code for page, _, code in quotations() if page == README)


def test_a_system_is_quoted_from_a_file_that_is_named():
    quoted = [code for *_, code in quotations()]
    blocks = [code for path in PAGES for _, code in bare_blocks(path.read_text(encoding="utf-8"))]
    assert [code for code in blocks if re.search(r"\bops\.", code) and code not in quoted] == []


def test_one_altered_line_of_a_quotation_is_told_and_nothing_else():
    source = '"""Module."""\n\ndef f(x):\n    """Double."""\n    y = 2 * x        # (1)\n\n    return y\n'
    assert differences("def f(x):\n  y = 2 * x  # (1)\n  return y\n", source) == []
    assert differences("def f(x):\n  y = 3 * x  # (1)\n  return y\n", source)[:2] == [
        "- y = 2 * x # (1)",
        "+ y = 3 * x # (1)",
    ]
    assert differences("y = 2 * x # (1)\n", source) == []


def index_readme():
    """The README as a package index gets it: fragments put together, then changed by each substitution in turn."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    hook = settings["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    parts = [
        (REPOSITORY / part["path"]).read_text(encoding="utf-8") if "path" in part else part["text"]
        for part in hook["fragments"]
    ]
    text = "".join(parts)
    for substitution in hook["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    return text


def test_on_a_package_index_no_link_leads_nowhere_and_every_file_is_named_by_its_path():
    text = index_readme()
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []
    links = re.findall(r"\[(.*?)\]\((?!https?:)([^)]*)\)", README.read_text(encoding="utf-8"))
    assert links
    for label, target in links:
        named = re.search(r"`([^`]+)`", label) if "`" in label else None
        assert f"`{named[1] if named else target}`" in text, target


def test_on_a_package_index_formulas_are_code_that_markdown_leaves_alone():
    text = index_readme()
    formulas = re.findall(r"\$([^$\n]+)\$", README.read_text(encoding="utf-8"))
    assert formulas
    assert all(f"`{formula}`" in text for formula in formulas)
    assert "$" not in text


def test_every_system_stands_in_the_table_below_its_family_with_its_page_and_year():
    table = README.read_text(encoding="utf-8").partition("## The systems\n")[2].partition("\n## ")[0]
    _, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    assert {family: systems for family, _, systems in rows} == {
        family: ", ".join(
            f"[{CATALOGUE[key].__name__}]({CATALOGUE[key].derivation}) {CATALOGUE[key].paper.year}" for key in keys
        )
        for family, keys in group_by_family().items()
    }
