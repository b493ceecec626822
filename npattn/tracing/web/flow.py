"""What flows into which line of a function, read from its text: the wires of a circuit."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from npattn.tracing.source import Statement, Text, assigned
from npattn.tracing.steps import is_array

__all__ = ["Flow", "Wire", "flow_of"]

SHAPE_ATTRIBUTES = {"shape", "ndim", "size", "dtype"}
"""Attributes through which a size passes on, not a value."""


@dataclass(frozen=True)
class Wire:
    """A value that a line reads.

    Attributes
    ----------
    name : str
        The variable that it was first assigned to.
    source : int, optional
        The line that computes it, by its place among the nodes; None for an argument of the function.
    """

    name: str
    source: int | None


@dataclass(frozen=True)
class Flow:
    """The lines of a function that are steps, in order, and what each reads.

    Attributes
    ----------
    nodes : tuple of Statement
    wires : tuple of tuple of Wire
        What each node reads.
    results : tuple of tuple of Wire
        What the function returns first; where that depends on a condition, both.
    arguments : dict
        Those that hold arrays, by name; what is taken out of a sequence of them has a name too.
    """

    nodes: tuple[Statement, ...]
    wires: tuple[tuple[Wire, ...], ...]
    results: tuple[tuple[Wire, ...], ...]
    arguments: Mapping[str, Any]


def flow_of(
    text: Text, definition: ast.FunctionDef, steps: Collection[tuple[str, str]], arguments: Mapping[str, Any]
) -> Flow:
    """Follow values through a function.

    Parameters
    ----------
    text : Text
        The file that it stands in.
    definition : ast.FunctionDef
    steps : collection of (str, str)
        Tag and line of those statements that are steps. Others hand on to what they assign all that they read.
    arguments : mapping
    """
    reader = FlowReader(text, steps, arguments)
    reader.run(definition.body)
    return Flow(tuple(reader.nodes), tuple(reader.wires), tuple(reader.results), reader.arguments)


def holds_array(value: Any) -> bool:
    """Whether an argument is an array, or a sequence of arrays."""
    return is_array(value) or (isinstance(value, (tuple, list)) and any(is_array(one) for one in value))


class FlowReader:
    """Goes through a function's statements, and knows of each variable where its value is from."""

    def __init__(self, text: Text, steps: Collection[tuple[str, str]], arguments: Mapping[str, Any]) -> None:
        self.text, self.steps = text, steps
        self.arguments = {name: value for name, value in arguments.items() if holds_array(value)}
        self.sources: dict[str, tuple[Wire, ...]] = {name: (Wire(name, None),) for name in self.arguments}
        self.nodes: list[Statement] = []
        self.wires: list[tuple[Wire, ...]] = []
        self.results: list[tuple[Wire, ...]] = []

    def run(self, body: list[ast.stmt]) -> None:
        """Go through statements, those in blocks included; functions that are defined there are the way back."""
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            statement = self.text.statement(node)
            if (statement.tag, statement.line) in self.steps:
                self.add(node, statement)
            elif isinstance(node, ast.Return):
                self.results += map(self.read, returned(node))
            elif hasattr(node, "body"):
                self.run(node.body)
                self.run(getattr(node, "orelse", []))
            elif not statement.tag:  # a tagged line that is no step was not run
                self.assign(node, self.read(node))

    def add(self, node: ast.stmt, statement: Statement) -> None:
        """Make a node of a statement."""
        index = len(self.nodes)
        self.nodes.append(statement)
        self.wires.append(self.read(node))
        for name in assigned(node):
            self.sources[name] = (Wire(name, index),)
        if isinstance(node, ast.Return):
            self.results.append((Wire(statement.names[0], index),))

    def assign(self, node: ast.stmt, wires: tuple[Wire, ...]) -> None:
        """Hand on what a statement reads to all that it assigns; take a sequence of arguments apart."""
        for name in assigned(node):
            self.sources[name] = wires
        for name, value in self.taken_apart(node):
            self.sources[name] = (Wire(name, None),) if holds_array(value) else ()
            self.arguments[name] = value

    def taken_apart(self, node: Any) -> Iterator[tuple[str, Any]]:
        """Go through what ``x, *others = inputs`` takes out of an argument."""
        value = self.arguments.get(node.value.id) if is_unpacking(node) else None
        if not isinstance(value, (tuple, list)):
            return
        targets = node.targets[0].elts
        starred = next((i for i, one in enumerate(targets) if isinstance(one, ast.Starred)), len(targets))
        after = len(targets) - starred - 1
        for i, target in enumerate(targets):
            if i == starred and isinstance(target.value, ast.Name):
                yield target.value.id, value[i : len(value) - after]
            elif i != starred and isinstance(target, ast.Name):
                yield target.id, value[i if i < starred else i - len(targets)]

    def read(self, node: ast.AST | None) -> tuple[Wire, ...]:
        """List what an expression or statement reads, in order, each once."""
        found = [] if node is None else [wire for name in loaded(node) for wire in self.sources.get(name, ())]
        return tuple(dict.fromkeys(found))


def is_unpacking(node: Any) -> bool:
    """Whether a statement assigns the elements of a variable to several."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and isinstance(node.targets[0], ast.Tuple)


def loaded(node: ast.AST) -> Iterator[str]:
    """Go through the names whose values an expression reads; of an array's size nothing is read."""
    sized = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"
    if sized or (isinstance(node, ast.Attribute) and node.attr in SHAPE_ATTRIBUTES):
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
        yield from loaded(node.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from loaded(child)


def returned(node: ast.Return) -> list[ast.expr | None]:
    """Find the value among what is returned with its way back: the output of a `Pass`, the first of a tuple."""
    value = node.value
    if isinstance(value, ast.Call) and value.args:
        value = value.args[0]
    elif isinstance(value, ast.Tuple) and value.elts:
        value = value.elts[0]
    return [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
