"""A system's forward pass, or a function that it calls, with one line read wrongly, and the mistakes that it makes."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any, NamedTuple

from npattn.module import Module
from npattn.oracle.mistakes.forwarding import Instead, in_forward
from npattn.oracle.mistakes.mistake import Mistake, always
from npattn.tracing.rewriting import OPENED, compile_definition, open_definition
from npattn.tracing.source import Text, text_of

__all__ = ["Helper", "Wrong", "helpers_of", "in_pass", "of_parameters", "run_wrong", "written_of"]


class Helper(NamedTuple):
    """A function that a forward pass calls, or a method.

    Attributes
    ----------
    name : str
    function, caller : function
        Itself, and the forward pass.
    is_method : bool
    is_static : bool
        Whether it is a method without an instance.
    """

    name: str
    function: Any
    caller: Any
    is_method: bool
    is_static: bool

    def in_place(self, wrong: Any) -> dict[str, Any]:
        """Return what a class has to hold for its forward pass to call another function."""
        if self.is_static:
            return {self.name: staticmethod(wrong)}
        if self.is_method:
            return {self.name: wrong}
        names = self.caller.__globals__ | {self.name: wrong}
        rest = self.caller.__name__, self.caller.__defaults__, self.caller.__closure__
        return {"forward": FunctionType(self.caller.__code__, names, *rest)}


def helpers_of(system: type[Module], forward: FunctionType) -> list[Helper]:
    """List the functions and methods of somebody's own that a forward pass calls; those that stand in a file."""
    text = text_of(forward)
    found = text.find(forward) if text else None
    if found is None:
        return []
    definition, helpers = found[0], dict[str, Helper]()
    for call in ast.walk(definition):
        called = call.func if isinstance(call, ast.Call) else None
        if isinstance(called, ast.Name):
            name, value = called.id, forward.__globals__.get(called.id)
        elif isinstance(called, ast.Attribute) and ast.unparse(called.value) == definition.args.args[0].arg:
            name, value = called.attr, inspect.getattr_static(system, called.attr, None)
        else:
            continue
        is_method, is_static = isinstance(called, ast.Attribute), isinstance(value, staticmethod)
        function: Any = value.__func__ if isinstance(value, staticmethod) else value
        if isinstance(function, FunctionType) and not function.__module__.startswith("npattn."):
            helpers.setdefault(name, Helper(name, function, forward, is_method and not is_static, is_static))
    return list(helpers.values())


class Written(NamedTuple):
    """A forward pass as it is written, or a function that it calls.

    Attributes
    ----------
    text : Text
        Of its file.
    definition : ast.FunctionDef
    around : str
        The class that it stands in.
    function : function
    helper : Helper or None
        What it is, if it isn't the forward pass.
    """

    text: Text
    definition: ast.FunctionDef
    around: str
    function: Any
    helper: Helper | None

    @property
    def where(self) -> str:
        """What a mistake's name says of it."""
        return "" if self.helper is None else f"in {self.helper.name}: "

    def wrong(self, replaced: Callable[[], ast.FunctionDef], names: dict[str, Any] | None = None) -> Wrong:
        """Return the pass with another text in its place."""
        return Wrong(replaced, self.text, self.around, self.function, self.helper, names=names)


def written_of(system: type[Module]) -> Iterator[Written]:
    """Go through a system's forward pass and what it calls of somebody's own, where that stands in a file."""
    forward: Any = system.forward
    if not isinstance(forward, FunctionType):
        return
    for function, helper in [(forward, None), *((one.function, one) for one in helpers_of(system, forward))]:
        text = text_of(function)
        found = text.find(function) if text else None
        if text is not None and found is not None:
            yield Written(text, *found, function, helper)


class Wrong:
    """A system's forward pass, or what it calls, with one line read wrongly; compiled when it is first run.

    Parameters
    ----------
    replaced : callable
        Makes the wrong definition.
    text : Text
        Of the file of the right one.
    around : str
        The class that it stands in.
    function : function
        The right one.
    helper : Helper, optional
        What it is, if it isn't the forward pass.
    names : dict, optional
        Global names that the wrong one has besides.
    """

    def __init__(
        self,
        replaced: Callable[[], ast.FunctionDef],
        text: Text,
        around: str,
        function: FunctionType,
        helper: Helper | None = None,
        *,
        names: dict[str, Any] | None = None,
    ) -> None:
        self.replaced, self.text, self.around, self.right, self.helper = replaced, text, around, function, helper
        self.names = function.__globals__ | names if names else function.__globals__

    @functools.cached_property
    def function(self) -> FunctionType:
        """The wrong function; a TypeError where it takes an index of a number, of which Python warns."""
        definition, right = self.replaced(), self.right
        for node in ast.walk(definition):
            if isinstance(getattr(node, "value" if isinstance(node, ast.Subscript) else "func", None), ast.Constant):
                raise TypeError(f"{ast.unparse(node)}: a number has no index and can't be called")
        code = compile_definition(definition, self.around, right.__code__)
        cells = dict(zip(right.__code__.co_freevars, right.__closure__ or (), strict=True))
        closure = tuple(cells[name] for name in code.co_freevars)
        return FunctionType(code, self.names, right.__name__, right.__defaults__, closure)

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
        return self.module_with(module, self.open_function)

    def forward(self, module: Module, *arguments: Any) -> Any:
        """Run forward."""
        if self.helper is None:
            return self.function(module, *arguments)
        return self.module_with(module, self.function).forward(*arguments)

    def module_with(self, module: Module, function: Any) -> Module:
        """Copy a module as one that has another function."""
        methods = {"forward": function} if self.helper is None else self.helper.in_place(function)
        made: Module = object.__new__(type(type(module).__name__, (type(module),), methods))
        vars(made).update(vars(module))
        return made


def run_wrong(wrong: Wrong, run: Any, module: Module, *given: Any) -> Any:
    """Run a module with the wrong line."""
    return run(wrong.of(module), *given)


def in_pass(name: str, wrong: Wrong, *, backward: bool) -> list[Mistake]:
    """Make the mistakes that a wrong line is: in backward; in forward alone; carried through backward; read by it."""
    misread = functools.partial(run_wrong, wrong)
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
