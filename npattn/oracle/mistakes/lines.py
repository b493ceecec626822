"""Mistakes made by rule in a system's own lines of NumPy: each line read wrongly, in forward or in backward."""

from __future__ import annotations

import ast
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.mistakes.forwarding import Instead, in_forward
from npattn.oracle.mistakes.mistake import Mistake, always
from npattn.oracle.mistakes.reordering import copy_of, exchanged_names, exchanged_steps
from npattn.oracle.mistakes.variants import Variant, variants
from npattn.tracing.rewriting import OPENED, compile_definition, open_definition
from npattn.tracing.source import Text, text_of

__all__ = ["rules_of_lines"]

MOST = 300
"""Wrong readings that are made of one system."""
MOST_READ = 4
"""Tensors, of those computed last, that may be read in another's place."""


def rules_of_lines(module: Module) -> list[Mistake]:
    """List wrong readings of the lines of a system's forward pass, and of the backward pass defined in it.

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
    function: Any = type(module).forward
    return list(rules_of_function(function)) if isinstance(function, FunctionType) else []


@functools.lru_cache(maxsize=16)
def rules_of_function(function: FunctionType) -> list[Mistake]:
    """List wrong readings of a forward pass, once for all searches: to list and compile them takes a tenth of one."""
    text = text_of(function)
    found = text.find(function) if text else None
    if text is None or found is None:
        return []
    definition, around = found
    numbers = {id(node): i for i, node in enumerate(ast.walk(definition))}
    mistakes: list[Mistake] = []
    seen = [argument.arg for argument in definition.args.args[2:]]
    for statement, inner in statements(definition):
        tag = text.statement(statement).tag
        for node in ast.walk(statement):
            others = [] if inner else list(readings_of_others(node, seen))
            lost = lost_gradients(statement, node, function.__globals__) if inner else ()
            layers = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            for words, make in [*variants(node, function.__globals__), *others, *lost]:
                new = ast.unparse(ast.fix_missing_locations(make(copy.deepcopy(node))))
                name = f"{tag} {words}: `{new}` for `{ast.unparse(node)}`".strip()
                replaced = functools.partial(replaced_node, definition, numbers[id(node)], make)
                wrong = Wrong(replaced, text, around, function)
                mistakes += in_pass(name, wrong, backward=inner)
                if layers and (words, make) in others:
                    mistakes.append(of_parameters(name, wrong, layers))
        for words, make in [] if inner else readings_in_backward(statement, seen):
            call: Any = getattr(statement, "value", None)
            replaced = functools.partial(replaced_node, definition, numbers[id(call)], make)
            mistakes += in_pass(f"{tag} gradient: {words}", Wrong(replaced, text, around, function), backward=True)
        seen += [] if inner else assigned(statement)
    tags = {id(statement): text.statement(statement).tag for statement, inner in statements(definition) if not inner}
    for name, make_definition in (*exchanged_steps(definition, tags), *exchanged_names(definition, tags)):
        wrong = Wrong(make_definition, text, around, function)
        mistakes += in_forward(name, wrong.forward, wrong.of)
    return mistakes[:MOST]


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
    """Go through the statements that hold no others, each with whether it stands in a function within."""

    def within(body: list[ast.stmt], inner: bool) -> Iterator[tuple[ast.stmt, bool]]:
        for node in body:
            blocks = [getattr(node, name) for name in ("body", "orelse") if getattr(node, name, None)]
            if not blocks:
                yield node, inner
            for block in blocks:
                yield from within(block, inner or isinstance(node, ast.FunctionDef))

    return within(definition.body, False)


def replaced_node(definition: ast.FunctionDef, number: int, make: Callable[[Any], ast.expr]) -> ast.FunctionDef:
    """Copy a function's text with another expression in the place of that of a number."""
    copied = copy_of(definition)
    old = list(ast.walk(copied))[number]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            return ast.copy_location(make(node), node) if node is old else self.generic_visit(node)

    found: ast.FunctionDef = Replace().visit(copied)
    return found


class Wrong:
    """A system's forward pass with one line read wrongly; compiled when it is first run.

    Parameters
    ----------
    replaced : callable
        Makes the wrong definition.
    text : Text
        Of the file of the right one.
    around : str
        The class that it stands in.
    function : function
        The right forward pass.
    """

    def __init__(
        self, replaced: Callable[[], ast.FunctionDef], text: Text, around: str, function: FunctionType
    ) -> None:
        self.replaced, self.text, self.around, self.right = replaced, text, around, function

    @functools.cached_property
    def function(self) -> FunctionType:
        """The wrong forward pass; a TypeError where it takes an index of a number, of which Python warns."""
        definition, right = self.replaced(), self.right
        for node in ast.walk(definition):
            if isinstance(getattr(node, "value" if isinstance(node, ast.Subscript) else "func", None), ast.Constant):
                raise TypeError(f"{ast.unparse(node)}: a number has no index and can't be called")
        code = compile_definition(definition, self.around, right.__code__)
        cells = dict(zip(right.__code__.co_freevars, right.__closure__ or (), strict=True))
        closure = tuple(cells[name] for name in code.co_freevars)
        return FunctionType(code, right.__globals__, right.__name__, right.__defaults__, closure)

    @functools.cached_property
    def open_function(self) -> Any:
        """The same, with its steps where a trace finds them."""
        function: Any = self.function
        definition = ast.fix_missing_locations(self.replaced())
        setattr(function, OPENED, open_definition(self.text, definition, self.around, self.right.__code__))
        return function

    def of(self, module: Module) -> Any:
        """Return a module that runs it."""
        return Instead(module, functools.partial(self.forward, module), functools.partial(self.as_module, module))

    def as_module(self, module: Module) -> Module:
        """Make a module of which it is the method: one that can be traced."""
        made: Module = object.__new__(type(type(module).__name__, (type(module),), {"forward": self.open_function}))
        vars(made).update(vars(module))
        return made

    def forward(self, module: Module, *arguments: Any) -> Any:
        """Run forward."""
        return self.function(module, *arguments)


def in_pass(name: str, wrong: Wrong, *, backward: bool) -> list[Mistake]:
    """Make the mistakes that a wrong line is: in backward; in forward alone; carried through backward; read by it."""

    def misread(run: Any, module: Module, *given: Any) -> Any:
        return run(wrong.of(module), *given)

    if backward:
        return [Mistake("", name, "backward", misread, always)]  # the tag, or the line, says that it is in backward
    read = Mistake("", f"{name}, and what backward reads of it", "both", misread, always)
    return [*in_forward(name, wrong.forward, wrong.of), read]


def of_parameters(name: str, wrong: Wrong, layers: Sequence[str]) -> Mistake:
    """Make the mistake that the gradients of a layer's parameters come from another tensor than the layer has read."""

    def apply(run: Any, *given: Any) -> Any:
        right = run(*given)
        if not any(one.startswith(tuple(layers)) for one in right):
            raise ValueError("there are no such parameters")
        results = run(wrong.of(given[0]), *given[1:])
        own = {n: g for n, g in results.items() if n.endswith(".grad") and n.startswith(tuple(layers))}
        return right | own

    return Mistake("", f"gradient: {name}: in the parameters' gradients alone", "backward", apply, always)
