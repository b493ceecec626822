"""The text of a function: its statements, the names that they assign, and the equation numbers at their ends."""

from __future__ import annotations

import ast
import functools
import io
import linecache
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType

__all__ = ["Statement", "Text", "text_of", "written_to"]

TAG = re.compile(r"#\s*(\(\w+'?\))\s*(?:#.*)?")
"""A comment that is an equation number and nothing else, but for another comment behind it, such as a linter's."""

WRITING = "copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"
"""NumPy's functions that write to their first argument, as ``np.add.at`` does, whatever kind of number it is of."""
NUMPY = "np", "numpy", "cp", "cupy"


@dataclass(frozen=True)
class Statement:
    """A statement as a reader sees it.

    Attributes
    ----------
    tag : str
        Its equation number, ``"(3)"``; empty where it has none.
    names : tuple of str
        What it assigns, or a call writes to as its `out`; of a statement that computes and assigns nothing, the
        expressions.
    line : str
        Its code, on one line and without comments; of a block, the head.
    arguments : tuple of str
        Of a statement that is a call and no more: what the call may write to, if it returns nothing.
    """

    tag: str = ""
    names: tuple[str, ...] = ()
    line: str = ""
    arguments: tuple[str, ...] = ()


class Text:
    """The text of a file, parsed.

    Parameters
    ----------
    source : str
    """

    def __init__(self, source: str) -> None:
        self.lines = source.splitlines(keepends=True)
        self.tree = ast.parse(source)
        self.comments: dict[int, tuple[int, str]] = {}  # by line: where it begins, what it says
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                self.comments[token.start[0]] = token.start[1], token.string

    def find(self, function: FunctionType) -> tuple[ast.FunctionDef, str] | None:
        """Find the definition of a function, and the name of the class around it, which is empty if there is none."""
        code = function.__code__
        for node, around in functions_in(self.tree, ""):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if node.name == code.co_name and first == code.co_firstlineno:
                return node, around
        return None

    def statement(self, node: ast.stmt) -> Statement:
        """Read a statement."""
        last = node.end_lineno or node.lineno
        if hasattr(node, "body"):  # what stands in a block has lines of its own
            last = node.body[0].lineno - 1
        rows = range(node.lineno, last + 1)
        tags = [found[1] for row in rows if (found := TAG.fullmatch(self.comments.get(row, (0, ""))[1]))]
        parts = [self.lines[row - 1][: self.comments.get(row, (None, ""))[0]].strip() for row in rows]
        code = " ".join(filter(None, parts))
        if len(parts) > 1:
            code = re.sub(r"(?<=[(\[{]) | (?=[)\]}])", "", code)
        return Statement(tags[-1] if tags else "", tuple(dict.fromkeys(assigned(node))), code, tuple(given(node)))


@functools.lru_cache(maxsize=64)
def parse(source: str) -> Text | None:
    """Parse a file, once."""
    try:
        return Text(source)
    except (SyntaxError, ValueError):
        return None


def text_of(function: FunctionType) -> Text | None:
    """Return the text of the file that a function is from; None if there is none, as of code that was never in one."""
    lines = linecache.getlines(function.__code__.co_filename, function.__globals__)
    return parse("".join(lines)) if lines else None


def functions_in(node: ast.AST, around: str) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Go through the functions of a file, each with the class that it is in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child, around
        yield from functions_in(child, child.name if isinstance(child, ast.ClassDef) else around)


def assigned(node: ast.AST) -> Iterator[str]:
    """Go through the names that a statement assigns; of one that only computes, the expression stands for a name."""
    out = written_to(node)
    if out is not None:
        yield from out
    elif isinstance(node, (ast.Expr, ast.Return)) and node.value is not None:
        parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        yield from map(ast.unparse, parts)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):  # e[0] = ... changes e
        yield from owner_of(node)
    elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.comprehension)):
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.Expr, ast.Return)):
                yield from assigned(child)


def owner_of(node: ast.expr) -> list[str]:
    """Name what an expression is, or a part of; nothing where it is another expression."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return [node.id] if isinstance(node, ast.Name) else []


def written_to(node: ast.AST) -> list[str] | None:
    """Name what a statement that is a call and no more says that it writes to; None where it doesn't say."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return None
    out = [one.value for one in call.keywords if one.arg == "out"]
    if isinstance(call.func, ast.Attribute) and (
        call.func.attr == "at" or (call.func.attr in WRITING and ast.unparse(call.func.value) in NUMPY)
    ):
        out += call.args[:1]
    parts = [part for one in out for part in (one.elts if isinstance(one, ast.Tuple) else [one])]
    return [name for part in parts for name in owner_of(part)] or None


def given(node: ast.AST) -> Iterator[str]:
    """Go through the names that a statement calls a method of, or gives to what it calls."""
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call):
        methods = [call.func.value] if isinstance(call.func, ast.Attribute) else []
        for one in (*methods, *call.args):
            yield from owner_of(one)
