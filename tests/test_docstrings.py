"""What docstrings say of parameters: the names are there, and the defaults are those."""

import ast
import itertools
import re
from pathlib import Path

import pytest

import npattn

SECTION = re.compile(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-{3,}$|\Z)", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^([*\w]+(?:, [*\w]+)*)(?: : ([^\n]*))?$", re.MULTILINE)


def described(docstring):
    """What a docstring says of each parameter, by name: its type and default, as written."""
    section = SECTION.search(docstring or "")
    found = {}
    for listed, text in ENTRY.findall(section[1] if section else ""):
        names = [name.strip("*") for name in listed.split(", ")]
        stated = re.search(r"default (.+)$", text)
        each = stated[1].split(", ") if stated and not stated[1].startswith(("(", '"')) else [stated and stated[1]]
        found |= dict(zip(names, each if len(each) > 1 else each * len(names), strict=True))
    return found


def defaults(node):
    """The parameters of a function or the fields of a class, with the text of each default, or None."""
    if isinstance(node, ast.ClassDef):
        made = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        if made:
            return defaults(made)
        values = {field.target.id: field.value for field in node.body if isinstance(field, ast.AnnAssign)}
        for name, value in values.items():
            if isinstance(value, ast.Call):  # one of `npattn.fields`, or `dataclasses.field`
                values[name] = next((word.value for word in value.keywords if word.arg == "default"), None)
    else:
        positional = [*node.args.posonlyargs, *node.args.args]
        given = [None] * (len(positional) - len(node.args.defaults)) + node.args.defaults
        pairs = itertools.chain(
            zip(positional, given, strict=True), zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        )
        values = {argument.arg: value for argument, value in pairs}
        values |= {extra.arg: None for extra in (node.args.vararg, node.args.kwarg) if extra}
    return {name: None if value is None else ast.unparse(value) for name, value in values.items()}


def is_stated(stated, default):
    """Whether a docstring's words are those of a default: the same value, or the name that it is called by."""
    if default.isupper():
        return True  # a constant of another file
    try:
        return ast.literal_eval(stated) == ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return re.split(r"[.]", stated.strip("`"))[-1] == re.split(r"[.]", default.partition("(")[0])[-1]


def wrong(text):
    """Parameters that a file's docstrings describe and that are not there, or have another default."""
    tree = ast.parse(text)
    constants = {
        ast.unparse(target): ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            there = {name: constants.get(default or "", default) for name, default in defaults(node).items()}
            for name, stated in described(ast.get_docstring(node)).items():
                if isinstance(node, ast.FunctionDef) and name not in there and not node.args.kwarg:
                    yield f"{node.name}: {name} is no parameter"
                elif stated and not is_stated(stated, there.get(name) or "none"):
                    yield f"{node.name}: {name} has the default {there.get(name)}, not {stated}"


def test_defaults_are_what_docstrings_say():
    folder = Path(npattn.__file__).parent
    found = {str(path.relative_to(folder)): list(wrong(path.read_text("utf-8"))) for path in folder.rglob("*.py")}
    assert {name: complaints for name, complaints in found.items() if complaints} == {}


@pytest.mark.parametrize(
    ("signature", "said", "complaint"),
    [
        ("x, n=2", "x : array\nn : int, default 2", None),
        ("x, n=2", "x : array\nn : int, default 3", "f: n has the default 2, not 3"),
        ("x, n=2", "x, m : array", "f: m is no parameter"),
        ("*, a=1, b=0", "a, b : int, default 1, 0", None),
        ("*, a=1, b=0", "a, b : int, default 1", "f: b has the default 0, not 1"),
        ("dtype=np.float64", "dtype : dtype, default float64", None),
        ("*rest, size=(1, 2)", "*rest : array\nsize : pair of int, default (1, 2)", None),
        ("n", "n : int, default 3", "f: n has the default None, not 3"),
    ],
)
def test_another_default_is_told(signature, said, complaint):
    body = said.replace("\n", "\n    ")
    text = f'def f({signature}):\n    """Compute.\n\n    Parameters\n    ----------\n    {body}\n    """'
    assert list(wrong(text)) == ([complaint] if complaint else [])


def test_a_fields_default_is_told():
    said = '"""A class.\n\n    Parameters\n    ----------\n    n : int, default 16\n    """'
    assert list(wrong(f"class C:\n    {said}\n    n: int = integer(least=1, default=16)")) == []
    assert list(wrong(f"N = 24\nclass C:\n    {said}\n    n: int = N")) == ["C: n has the default 24, not 16"]
