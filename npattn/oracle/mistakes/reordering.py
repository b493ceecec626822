"""Wrong orders of a system's lines: a step computed before the one whose result it should read."""

from __future__ import annotations

import ast
import copy
import functools
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["exchanged_names", "exchanged_steps"]

MOST_PAIRS = 12
"""Pairs of tensors that stand in each other's place."""


def exchanged_steps(
    definition: ast.FunctionDef, tags: Mapping[int, str]
) -> Iterator[tuple[str, Callable[[], ast.FunctionDef]]]:
    """List pairs of steps, the second of which reads the first, with functions that make the text in the other order.

    Parameters
    ----------
    definition : ast.FunctionDef
    tags : mapping of int to str
        By the statements' ids; what has none is no step.
    """
    numbers = {id(node): i for i, node in enumerate(ast.walk(definition))}
    steps: list[Any] = [node for node in ast.walk(definition) if tags.get(id(node)) and is_step(node)]
    for first in steps:
        readers = [
            (second, i)
            for second in steps
            if second.lineno > first.lineno and same_form(first, second)
            for i, argument in enumerate(second.value.args)
            if ast.dump(argument) == dump(result_of(first))
        ]
        for n, source in enumerate(sources_of(first, steps) if len(readers) == 1 else []):
            second, i = readers[0]
            of = f": {tags[id(second)]} of {ast.unparse(first.value.args[source])} alone" if n else ""
            name = f"{tags[id(first)]} and {tags[id(second)]} in the other order{of}"
            make = functools.partial(exchanged, definition, numbers[id(first)], numbers[id(second)], source, i)
            yield name, make


def exchanged_names(
    definition: ast.FunctionDef, tags: Mapping[int, str]
) -> Iterator[tuple[str, Callable[[], ast.FunctionDef]]]:
    """List pairs of steps of one kind whose results stand in each other's place from then on, as in `exchanged_steps`.

    Parameters
    ----------
    definition : ast.FunctionDef
    tags : mapping of int to str
    """
    numbers = {id(node): i for i, node in enumerate(ast.walk(definition))}
    steps: list[Any] = [node for node in ast.walk(definition) if tags.get(id(node)) and is_step(node)]
    pairs = ((a, b) for a in steps for b in steps if a.lineno < b.lineno and same_kind(a, b))
    for first, second in itertools.islice(pairs, MOST_PAIRS):
        one, other = (name_of(step) for step in (first, second))
        name = f"{tags[id(second)]} {one} and {other} in each other's place"
        yield name, functools.partial(swapped, definition, numbers[id(second)], one, other)


def name_of(step: Any) -> str:
    """Return the name by which a step's result is read; "" if it has none."""
    result = result_of(step)
    return result.id if isinstance(result, ast.Name) else ""


def same_kind(one: Any, other: Any) -> bool:
    """Tell whether two steps call the same, and are read by names."""
    return bool(name_of(one) and name_of(other)) and ast.dump(one.value.func) == ast.dump(other.value.func)


def copy_of(definition: ast.FunctionDef) -> ast.FunctionDef:
    """Copy a function's text."""
    copied: ast.FunctionDef = pickle.loads(written(definition))  # which takes a tenth of the time of `copy.deepcopy`
    return copied


@functools.lru_cache(maxsize=8)
def written(definition: ast.FunctionDef) -> bytes:
    """Write a function's text down, once for all its copies."""
    return pickle.dumps(definition)


def swapped(definition: ast.FunctionDef, second: int, one: str, other: str) -> ast.FunctionDef:
    """Copy a function's text with two tensors in each other's place behind a statement."""
    copied = copy_of(definition)
    node = list(ast.walk(copied))[second]
    swap = ast.parse(f"{one}, {other} = {other}, {one}").body[0]

    class Swap(ast.NodeTransformer):
        def visit(self, found: ast.AST) -> Any:
            return [found, ast.copy_location(swap, found)] if found is node else self.generic_visit(found)

    found: ast.FunctionDef = Swap().visit(copied)
    return found


def is_step(node: Any) -> bool:
    """Tell whether a statement computes one thing by a call."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and result_of(node) is not None


def result_of(statement: Any) -> ast.expr | None:
    """Return the expression by which other statements read a step's result."""
    (target,) = statement.targets[:1]
    if isinstance(target, ast.Tuple):
        while isinstance(target, ast.Tuple):
            target = target.elts[0]
        return ast.Name(target.id, ast.Load()) if isinstance(target, ast.Name) else None
    if isinstance(target, ast.Name):
        return ast.Attribute(ast.Name(target.id, ast.Load()), "output", ast.Load())
    return None


def dump(expression: ast.expr | None) -> str:
    """Write an expression down, to be compared."""
    return "" if expression is None else ast.dump(expression)


def same_form(one: Any, other: Any) -> bool:
    """Tell whether the results of two steps are read in the same way."""
    return type(result_of(one)) is type(result_of(other))


def sources_of(step: Any, steps: list[Any]) -> list[int]:
    """Return the numbers of the arguments that are tensors: the input, or some step's result."""
    results = [dump(result_of(other)) for other in steps]
    return [i for i, a in enumerate(step.value.args) if ast.dump(a) in results or getattr(a, "id", "") == "x"]


def exchanged(definition: ast.FunctionDef, first: int, second: int, source: int, i: int) -> ast.FunctionDef:
    """Copy a function's text with two steps in the other order, both where the second stands."""
    copied = copy_of(definition)
    nodes: list[Any] = list(ast.walk(copied))
    one, other = nodes[first], nodes[second]
    early, late = copy.deepcopy(one), copy.deepcopy(other)
    early.value, late.value = copy.deepcopy(other.value), copy.deepcopy(one.value)
    early.value.args[i] = copy.deepcopy(one.value.args[source])
    late.value.args[source] = result_of(one)

    class Exchange(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            if node is one:
                return ast.copy_location(ast.Pass(), node)
            return [early, late] if node is other else self.generic_visit(node)

    found: ast.FunctionDef = Exchange().visit(copied)
    return found
