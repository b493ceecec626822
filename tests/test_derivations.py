"""The pages and the code tell the same story."""

import ast
import functools
import inspect
import re
import textwrap
from pathlib import Path

import npattn
from tests.naming import for_each

REPOSITORY = Path(__file__).parent.parent
PAGES = sorted((REPOSITORY / "derivations").glob("*.md"))
SYSTEM_FILES = sorted(
    path for path in Path(npattn.attention.__file__).parent.glob("*.py") if path.name != "__init__.py"
)
COURSE = [path for path in PAGES if path.name != "README.md"]
TAGGED_FILES = [*SYSTEM_FILES, Path(npattn.layers.__file__)]
every_tagged_file = for_each("path", TAGGED_FILES)
every_page = for_each("path", COURSE)
ARTICLE, BEYOND = "The article, term by term", "Beyond the article"
SECTIONS = [
    "A case by hand",
    "Notation",
    "Forward",
    "Backward",
    "The gradient, expanded",
    "Pictures",
    "Cost",
    "Published code and the paper",
    "Common mistakes",
    "Exercises",
    "The same in PyTorch",
    "Reference",
]
OTHERWISE = {"winograd": {"Forward"}}
"""Sections under another heading: a forward pass in several sections."""
PRIMITIVES = (
    "batch_norm",
    "bilinear_upsampling",
    "channel_shuffle",
    "cross_entropy",
    "depth_wise_convolution",
    "dot_product_attention",
    "global_pooling",
    "layer_norm",
    "linear_attention",
    "nearest_upsampling",
    "relative_logits",
    "softmax_over_branches",
    "window_partition",
    "winograd",
)
ON_EVERY_PAGE = ["A case by hand", "Notation", "Common mistakes", "Exercises", "The same in PyTorch", "Reference"]

WITHOUT_NUMBERS = {
    "cross_entropy": ("3'", "2'"),
    "training": ("7'", "6'", "5'", "4'", "3'", "2'"),
}
"""Equations that are checked together with the next."""


def page_of(path):
    return (REPOSITORY / "derivations" / f"{path.stem}.md").read_text(encoding="utf-8")


@every_tagged_file
def test_equations_of_code_and_page_have_the_same_numbers(path):
    in_code = re.findall(r"# \((\d+'?)\)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    on_page = re.findall(r"^\\tag\{(\d+'?)\}$", page_of(path), flags=re.MULTILINE)
    assert in_code
    assert sorted(in_code) == sorted(on_page)


@every_tagged_file
def test_forward_steps_are_numbered_in_order_and_backward_mirrors_them(path):
    source = path.read_text(encoding="utf-8")
    for forward in re.split(r"\n    def forward|\ndef ", source)[1:]:
        steps = re.findall(r"# \((\d+)\)$", forward, flags=re.MULTILINE)
        mirrored = re.findall(r"# \((\d+)'\)$", forward, flags=re.MULTILINE)
        assert steps == sorted(steps, key=int)
        assert mirrored == steps[::-1]


@every_tagged_file
def test_equation_numbers_stand_in_one_column(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for function in functions_with_tags(path):
        tagged = [line for line in lines[function.lineno - 1 : function.end_lineno] if re.search(r"# \(\d+'?\)$", line)]
        assert len({line.rindex("# (") for line in tagged}) == 1, function.name


def functions_with_tags(path):
    """The outermost functions and methods of a file that hold tagged lines."""
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines(keepends=True)
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    functions = [node for body in bodies for node in body if isinstance(node, ast.FunctionDef)]
    return [node for node in functions if re.search(r"# \(\d+\)\n", "".join(lines[node.lineno - 1 : node.end_lineno]))]


def test_readme_quotes_the_code_as_it_is():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    quoted = re.findall(r"```python\n(def .*?)```", readme, flags=re.DOTALL)
    source = textwrap.dedent(inspect.getsource(npattn.EfficientChannelAttention.forward))
    signature, docstring, *steps = source.splitlines(keepends=True)
    assert docstring.strip().startswith('"""')
    assert quoted == ["".join([signature, *steps])]


@for_each("system", npattn.CATALOGUE.values())
def test_every_system_leads_to_its_paper_and_its_page(system):
    assert (REPOSITORY / system.derivation).is_file()
    assert 1990 < system.paper.year < 2100
    assert str(system.paper.year) in str(system.paper)
    assert system.paper.url.startswith("https://")
    assert npattn.CATALOGUE[system.key] is system
    assert Path(system.derivation).name in (REPOSITORY / "derivations/README.md").read_text(encoding="utf-8")


@for_each("system", npattn.CATALOGUE.values())
def test_every_page_of_a_system_names_the_command_that_steps_through_it(system):
    head = (REPOSITORY / system.derivation).read_text(encoding="utf-8").partition("\n## ")[0]
    assert f"`npattn trace {system.key} --page {system.key}.html`" in head


def rows_of(heading):
    """The table of a section that maps terms to pages and names: the cells of each row."""
    readme = (REPOSITORY / "derivations/README.md").read_text(encoding="utf-8")
    section = readme.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", section, flags=re.MULTILINE)
    return [row.split(" | ") for row in rows[1:]]


def test_every_term_of_the_article_leads_to_its_page_and_to_what_is_exported():
    rows = rows_of(ARTICLE)
    assert len(rows) >= 9
    for term, english, pages, names in [*rows, *([term, term, *rest] for term, *rest in rows_of(BEYOND))]:
        assert term, english
        targets = re.findall(r"\]\((.*?)\)", pages)
        assert targets
        assert all((REPOSITORY / "derivations" / target).is_file() for target in targets), pages
        exported = re.findall(r"`(.*?)`", names)
        assert exported
        for name in exported:
            functools.reduce(getattr, name.split("."), npattn)


def test_every_system_has_its_place_in_the_article_or_beyond():
    named = " ".join(names for *_, names in rows_of(ARTICLE) + rows_of(BEYOND))
    assert [system.__name__ for system in npattn.CATALOGUE.values() if f"`{system.__name__}`" not in named] == []


@every_tagged_file
def test_page_has_all_its_sections_in_order(path):
    headings = re.findall(r"^## (.*)$", page_of(path), flags=re.MULTILINE)
    assert headings == SECTIONS
    assert f"({path.stem}.md)" in (REPOSITORY / "derivations/README.md").read_text(encoding="utf-8")
    assert "```mermaid" in page_of(path)


@for_each("name", PRIMITIVES)
def test_page_of_a_primitive_has_the_sections_of_a_systems_in_order(name):
    text = (REPOSITORY / "derivations" / f"{name}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    expected = [section for section in SECTIONS if section not in OTHERWISE.get(name, ())]
    assert [heading for heading in headings if heading in SECTIONS] == expected
    assert "```mermaid" in text
    assert "](pictures/" in text
    assert re.search(r"^\\tag\{1'\}$", text, flags=re.MULTILINE) or name == "winograd"  # its tags run on


@every_page
def test_every_page_begins_with_a_case_by_hand_and_ends_with_exercises(path):
    headings = re.findall(r"^## ([^:\n]*)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [heading for heading in headings if heading in ON_EVERY_PAGE] == ON_EVERY_PAGE


@every_page
def test_every_page_says_its_problem_in_two_sentences_at_most(path):
    _, problem, *_ = path.read_text(encoding="utf-8").split("\n\n")
    assert len(re.findall(r"[.?!](?=\s|$)", problem)) <= 2


@every_page
def test_every_exercise_has_an_answer_that_is_computed(path):
    exercises = path.read_text(encoding="utf-8").partition("\n## Exercises\n")[2].partition("\n## ")[0]
    answers = re.split(r"^\*\*\d\.\*\* ", exercises, flags=re.MULTILINE)[1:]
    assert len(answers) >= 2
    assert all("<details><summary>Answer</summary>" in answer and "\n>>> " in answer for answer in answers)


@every_tagged_file
def test_every_backward_equation_is_followed_by_a_check(path):
    blocks = re.split(r"^```math\n(.*?)^```\n", page_of(path), flags=re.MULTILINE | re.DOTALL)
    for formula, text in zip(blocks[1::2], blocks[2::2], strict=True):
        if "'}" in formula:
            check = text.partition("\n**")[0]
            assert re.search(r"^>>> same\(|^\.\.\. +same\(|gradcheck\(", check, flags=re.MULTILINE), formula


@every_page
def test_every_backward_equation_is_followed_by_numbers(path):
    blocks = re.split(r"^```math\n(.*?)^```\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for formula, text in zip(blocks[1::2], blocks[2::2], strict=True):
        tag = re.search(r"^\\tag\{(\d+')\}$", formula, flags=re.MULTILINE)
        if tag and tag[1] not in WITHOUT_NUMBERS.get(path.stem, ()):
            code = "".join(re.findall(r"^```python\n(.*?)^```$", text.partition("\n**(")[0], re.MULTILINE | re.DOTALL))
            assert re.search(r"^(?!>>>|\.\.\. ).*\d", code, flags=re.MULTILINE), formula


@for_each("heading", ["Forward", "Backward", "The gradient, expanded"])
@every_page
def test_the_first_doctest_after_a_display_formula_shows_numbers(path, heading):
    section = path.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    fences = re.findall(r"^```(math|python)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    for place, (language, formula) in enumerate(fences):
        if language == "math":
            doctest = next((code for _, code in fences[place + 1 :] if code.startswith(">>> ")), "")
            assert re.search(r"^(?!>>>|\.\.\. ).*\b\d", doctest, flags=re.MULTILINE), formula


@for_each("path", [*PAGES, REPOSITORY / "README.md"])
def test_no_page_changes_how_the_next_prints_numbers(path):
    assert "set_printoptions" not in path.read_text(encoding="utf-8")


@for_each("path", [*PAGES, REPOSITORY / "README.md"])
def test_links_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", path.read_text(encoding="utf-8")):
        page = path.parent / target if target else path
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
