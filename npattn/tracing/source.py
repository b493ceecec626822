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

__all__ = ["Statement", "Text", "text_of"]

TAG = re.compile(r"#\s*(\(\w+'?\))\s*(?:#.*)?")
"""A comment that is an equation number and nothing else, but for another comment behind it, such as a linter's."""


@dataclass(frozen=True)
class Statement:
    """A statement as a reader sees it.

    Attributes
    ----------
    tag : str
        Its equation number, ``"(3)"``; empty where it has none.
    names : tuple of str
        What it assigns; of a statement that computes and assigns nothing, the expressions.
    line : str
        Its code, on one line and without comments; of a block, the head.
    """

    tag: str = ""
    names: tuple[str, ...] = ()
    line: str = ""


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
        return Statement(tags[-1] if tags else "", tuple(dict.fromkeys(assigned(node))), code)


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
    if isinstance(node, (ast.Expr, ast.Return)) and node.value is not None:
        parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        yield from map(ast.unparse, parts)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):  # e[0] = ... changes e
        base = node.value
        while isinstance(base, ast.Subscript):
            base = base.value
        if isinstance(base, ast.Name):
            yield base.id
    elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.comprehension)):
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.Expr, ast.Return)):
                yield from assigned(child)
