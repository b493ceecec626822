"""Mistakes made by rule in a system's own lines of NumPy: each line read wrongly, in forward or in backward."""

from __future__ import annotations

import ast
import copy
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.mistakes.forwarding import in_forward
from npattn.oracle.mistakes.misreading import Helper, Wrong, helpers_of, in_pass, of_parameters
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.reordering import copy_of, exchanged_names, exchanged_steps
from npattn.oracle.mistakes.variants import Variant, variants
from npattn.tracing.source import text_of

__all__ = ["rules_of_lines"]

MOST = 300
"""Wrong readings that are made of one system."""
MOST_READ = 4
"""Tensors, of those computed last, that may be read in another's place."""


def rules_of_lines(module: Module) -> list[Mistake]:
    """List wrong readings of the lines of a system's forward pass, and of the backward pass defined in it.

    Of a system of somebody's own those of the functions and methods that its forward pass calls are listed too.

    Parameters
    ----------
    module : Module

    Returns
    -------
    list of Mistake
        Of whole passes; the line's tag stands before the name. None where the code is not at hand.

    Examples
    --------
    >>> import npattn
    >>> names = [one.name for one in rules_of_lines(npattn.FlexibleAttention(channels=4, reduction=2))]
    >>> [name for name in names if "not added" in name][:2]
    ['(6) v[batch:] not added: `v[:batch]` for `v[:batch] + v[batch:]`, in forward alone', \
'(6) v[batch:] not added: `v[:batch]` for `v[:batch] + v[batch:]`']
    """
    return list(rules_of_system(type(module)))


@functools.lru_cache(maxsize=16)
def rules_of_system(system: type[Module]) -> list[Mistake]:
    """List wrong readings of a system's lines, once for all searches: to list and compile them takes a tenth of one."""
    function: Any = system.forward
    if not isinstance(function, FunctionType):
        return []
    found = rules_of_function(function)
    for called in helpers_of(system, function):
        found += rules_of_function(called.function, called)
    return found[:MOST]


def rules_of_function(function: Any, helper: Helper | None = None) -> list[Mistake]:
    """List wrong readings of a forward pass, or of a function that it calls."""
    text = text_of(function)
    found = text.find(function) if text else None
    if text is None or found is None:
        return []
    definition, around = found
    numbers = {id(node): i for i, node in enumerate(ast.walk(definition))}
    nested = {node.name for node in ast.walk(definition) if isinstance(node, ast.FunctionDef)}
    mistakes: list[Mistake] = []
    seen = [argument.arg for argument in definition.args.args[2 if helper is None else helper.is_method :]]
    where = "" if helper is None else f"in {helper.name}: "
    for statement, inner in statements(definition):
        tag = text.statement(statement).tag
        for node in ast.walk(statement):
            others = [] if inner else list(readings_of_others(node, seen))
            lost = lost_gradients(statement, node, function.__globals__) if inner else ()
            layers = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            skipped = calls_left_out(node, nested, function.__globals__)
            for words, make in [*variants(node, function.__globals__), *skipped, *others, *lost]:
                new = ast.unparse(ast.fix_missing_locations(make(copy.deepcopy(node))))
                name = f"{tag} {where}{words}: `{new}` for `{ast.unparse(node)}`".strip()
                replaced = functools.partial(replaced_node, definition, numbers[id(node)], make)
                wrong = Wrong(replaced, text, around, function, helper)
                mistakes += in_pass(name, wrong, backward=inner)
                if layers and (words, make) in others:
                    mistakes.append(of_parameters(name, wrong, layers))
        for words, make in [] if inner else readings_in_backward(statement, seen):
            call: Any = getattr(statement, "value", None)
            replaced = functools.partial(replaced_node, definition, numbers[id(call)], make)
            mistakes += in_pass(
                f"{tag} {where}gradient: {words}", Wrong(replaced, text, around, function, helper), backward=True
            )
        seen += [] if inner else assigned(statement)
    tags = {id(statement): text.statement(statement).tag for statement, inner in statements(definition) if not inner}
    for name, make_definition in (*exchanged_steps(definition, tags), *exchanged_names(definition, tags)):
        wrong = Wrong(make_definition, text, around, function, helper)
        mistakes += in_forward(f"{where}{name}", wrong.forward, wrong.of)
    return mistakes[:MOST]


def calls_left_out(node: ast.AST, nested: Collection[str], names: dict[str, Any]) -> Iterator[Variant]:
    """List calls of somebody's own functions, of one argument, in the place of which that may be taken as it is."""
    name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    known = names.get(name)
    own = name in nested or (isinstance(known, FunctionType) and not known.__module__.startswith("npattn."))
    if isinstance(node, ast.Call) and own and len(node.args) == 1 and not node.keywords:
        yield f"{name} left out", lambda call: call.args[0]


def lost_gradients(statement: ast.stmt, node: ast.AST, names: dict[str, Any]) -> Iterator[Variant]:
    """List gradients that backward makes by a function of NumPy, and may lose."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    function = node.func if isinstance(node, ast.Call) and node is getattr(statement, "value", None) else None
    owner = function.value if isinstance(function, ast.Attribute) else None
    if isinstance(target, ast.Name) and isinstance(owner, ast.Name) and names.get(owner.id) is np:
        yield f"{target.id} lost", lambda call: ast.BinOp(ast.Constant(0), ast.Mult(), call)


def assigned(statement: ast.stmt) -> list[str]:
    """Name the tensors that a statement computes together with their backward, or takes out of a pass."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    value = getattr(statement, "value", None)
    if targets and isinstance(targets[0], ast.Name) and getattr(value, "attr", "") == "output":
        return [targets[0].id]
    return [name for target in targets for name in computed(target)]


def computed(target: ast.expr) -> list[str]:
    """Name the tensors in the target of a step, which stand before its backward, running statistics left out."""
    if not isinstance(target, ast.Tuple) or not getattr(target.elts[-1], "id", "").startswith("back"):
        return []
    values = target.elts[0].elts if isinstance(target.elts[0], ast.Tuple) else target.elts[:1]
    names = [y.id for y in values if isinstance(y, ast.Name)]
    return [name for name in names if not name.startswith(("running", "_"))]


def readings_in_backward(statement: ast.stmt, seen: Sequence[str]) -> Iterator[Variant]:
    """List steps whose backward alone reads another tensor than it should, as one that was saved under its name."""
    if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call) and assigned(statement)):
        return
    for words, make in readings_of_others(statement.value, seen):
        yield f"backward, where {words}", functools.partial(in_backward, make)


def in_backward(make: Callable[[Any], ast.expr], call: Any) -> ast.expr:
    """Take a call's value, and the backward of another."""
    parts = (call, make(copy.deepcopy(call)))
    taken = [ast.Subscript(part, ast.Constant(i), ast.Load()) for i, part in enumerate(parts)]
    return ast.Tuple([*taken], ast.Load())


def readings_of_others(node: ast.AST, seen: Sequence[str]) -> Iterator[Variant]:
    """List calls that read another tensor than they should: one of those computed last, or an input."""
    for i, argument in enumerate(node.args if isinstance(node, ast.Call) else ()):
        name = argument.id if isinstance(argument, ast.Name) else ""
        if name in seen or getattr(argument, "attr", "") == "output":
            for other in dict.fromkeys([*seen[:1], *seen[-MOST_READ:]]):
                if other != name:
                    yield f"{other} read, not {ast.unparse(argument)}", with_argument(i, other)


def with_argument(i: int, name: str) -> Callable[[Any], ast.expr]:
    def make(call: Any) -> ast.expr:
        arguments = [*call.args[:i], ast.Name(name, ast.Load()), *call.args[i + 1 :]]
        return ast.Call(call.func, arguments, call.keywords)

    return make


def statements(definition: ast.FunctionDef) -> Iterator[tuple[ast.stmt, bool]]:
    """Go through the statements that hold no others, each with whether it stands in a function within.

    What stands in one that the forward pass itself calls is a part of that.
    """
    called = called_within(definition)

    def within(body: list[ast.stmt], inner: bool) -> Iterator[tuple[ast.stmt, bool]]:
        for node in body:
            blocks = [getattr(node, name) for name in ("body", "orelse") if getattr(node, name, None)]
            if not blocks:
                yield node, inner
            for block in blocks:
                yield from within(block, inner or (isinstance(node, ast.FunctionDef) and node not in called))

    return within(definition.body, False)


def called_within(definition: ast.FunctionDef) -> list[ast.FunctionDef]:
    """List the functions defined in a function that it calls itself, or one of them, by name or by `map`."""
    found: list[ast.FunctionDef] = []
    scopes: list[tuple[ast.FunctionDef, dict[str, ast.FunctionDef]]] = [(definition, {})]
    for scope, around in scopes:
        nodes = list(walk_scope(scope))
        known = around | {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
        for call in nodes:
            mapped = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "map"
            function = (call.args[0] if mapped and call.args else call.func) if isinstance(call, ast.Call) else None
            one = known.get(function.id) if isinstance(function, ast.Name) else None
            if one is not None and one not in found:
                found.append(one)
                scopes.append((one, known))
    return found


def walk_scope(definition: ast.FunctionDef) -> Iterator[ast.AST]:
    """Go through the nodes of a function, but not into the functions that are defined in it."""
    left: list[ast.AST] = list(definition.body)
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, ast.FunctionDef):
            left += ast.iter_child_nodes(node)


def replaced_node(definition: ast.FunctionDef, number: int, make: Callable[[Any], ast.expr]) -> ast.FunctionDef:
    """Copy a function's text with another expression in the place of that of a number."""
    copied = copy_of(definition)
    old = list(ast.walk(copied))[number]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            return ast.copy_location(make(node), node) if node is old else self.generic_visit(node)

    found: ast.FunctionDef = Replace().visit(copied)
    return found
