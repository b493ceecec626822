"""Where a pass is: in which part of which system."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any

from npattn import layers, module, parameters
from npattn.module import Module, Pass
from npattn.ops.context import replaced, run_with
from npattn.ops.primitive import PRIMITIVES, Primitive
from npattn.tracing.copies import is_harmless
from npattn.tracing.recording import RECORDING, Recording
from npattn.tracing.rewriting import Rewritten, is_rewritten, rewrite
from npattn.tracing.source import Statement
from npattn.tracing.steps import Step, is_array, named_arrays

__all__ = ["Place"]


THROUGH = vars(layers), vars(module), vars(parameters)
"""Modules whose functions stand between a line of a system and what it computes: the line is the system's."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """A function of a system at work. Rewritten functions ask theirs what to call, and tell it what they computed.

    Attributes
    ----------
    owner : object
        Whose pass it is.
    system : Module, optional
        The innermost system.
    parts : tuple of str
        The way to it from the outermost.
    params : mapping
        Parameters of the innermost system.
    name : str, optional
        The part that the function is about to run, as `layers.submodule` is.
    namespaces : tuple of dict
        Of the modules whose functions are followed.
    page : str, optional
        The page that belongs to the function's file.
    statements : tuple of Statement
        The function's.
    origin : Statement, optional
        The system's, where the function is not of a system.
    forward_open, backward_open : bool
        Whether primitives' calls are steps, forward and backward, for want of tags.
    numbers : iterator of int
        Numbers of such calls.
    """

    owner: object
    system: Module | None = None
    parts: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    namespaces: tuple[dict[str, Any], ...] = THROUGH
    page: str | None = None
    statements: tuple[Statement, ...] = (Statement(),)
    origin: Statement | None = None
    forward_open: bool = False
    backward_open: bool = False
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    locals = staticmethod(locals)
    """Python's own, of the function that calls it."""

    def follow(self, called: Any, index: int = 0) -> Any:
        """Return what is to be called in place of `called`, from a statement of this function."""
        now = self.recording()
        if now is None:
            return called
        followed = self.follow_any(called, index)
        if not (is_harmless(called) or is_rewritten(followed)):
            now.copies.forget()
        return followed

    def touch(self) -> None:
        """Hear that a statement has written to an array."""
        now = self.recording()
        if now is not None:
            now.copies.forget()

    def follow_any(self, called: Any, index: int) -> Any:
        """Return what is to be called in place of a function, a method, a module or a partial call of these."""
        if isinstance(called, Module):
            called = called.__call__
        if type(called) is functools.partial:
            return functools.partial(self.follow_any(called.func, index), *called.args, **called.keywords)
        if type(called) is MethodType:
            return MethodType(self.follow_function(called.__func__, index, called.__self__), called.__self__)
        return self.follow_function(called, index)

    def follow_function(self, function: Any, index: int, bound: Any = None) -> Any:
        """Return what is to be called in place of a function, or of a method's."""
        if hasattr(function, "definition") and function in PRIMITIVES:
            opened = self.forward_open or self.backward_open
            return functools.partial(self.observe, function, index) if opened else function
        if type(function) is not FunctionType or is_rewritten(function):
            return function
        if not (isinstance(bound, Module) or any(function.__globals__ is space for space in self.namespaces)):
            watching = self.forward_open or self.backward_open
            return functools.partial(self.watch, function, index) if watching else function
        rewritten = rewrite(function)
        call = Call(self, function, rewritten, self.statement(index))
        return functools.partial(call.watch) if rewritten is None else rewritten.bind(function, call)

    def recording(self) -> Recording | None:
        """Return what this pass is recorded in; None where it isn't."""
        now = RECORDING.get()
        return now if now is not None and now.owner is self.owner else None

    def statement(self, index: int) -> Statement:
        """Return the system's statement that is at work."""
        return self.statements[index] if self.origin is None else self.origin

    def record(self, values: Mapping[str, Any], index: int) -> None:
        """Record what a tagged statement has assigned."""
        statement = self.statements[index]
        for name in statement.names:
            if name in values:
                self.add(statement, name, values[name], page=self.page)

    def result(self, value: Any, index: int, values: Mapping[str, Any]) -> Any:
        """Record what a tagged statement computes without a name, and hand it on.

        A call that returns nothing writes to an array: to the one whose method it is, or to the first that it is given.
        """
        statement = self.statements[index]
        if value is None:
            written = (name for name in statement.arguments if is_array(values.get(name)))
            for name in itertools.islice(written, 1):
                self.add(statement, name, values[name], page=self.page)
        elif isinstance(value, Pass):
            self.add(statement, "output", value, page=self.page)
        elif isinstance(value, tuple) and len(statement.names) == len(value):
            for name, one in zip(statement.names, value, strict=True):
                self.add(statement, name, one, page=self.page)
        else:
            self.add(statement, ", ".join(statement.names), value, page=self.page)
        return value

    def add(self, statement: Statement, name: str, value: Any, *, page: str | None) -> None:
        """Record the arrays in a value."""
        now = self.recording()
        if now is not None:
            for inner, array in named_arrays(name, value, statement):
                value = now.copies.take(array)
                now.steps.append(Step(statement.tag, inner, value, statement.line, self.parts, page, self.system))

    def observe(self, primitive: Primitive, index: int, *arguments: Any, **options: Any) -> Any:
        """Call a primitive, and record its result, or what comes back through it, where no tag does."""
        now = self.recording()
        result = primitive(*arguments, **options)
        if now is None:
            return result
        paired = isinstance(result, tuple) and len(result) == 2 and callable(result[1])
        value, back = result if paired else (result, None)
        found = self.statement(index)
        number = found.tag.strip("(')") or next(self.numbers)
        there, returning = Statement(f"({number})", (), found.line), Statement(f"({number}')", (), found.line)
        if self.forward_open:
            self.add(returning if now.backward else there, primitive.__name__, value, page=None)
        if back is None or not self.backward_open:
            return result
        names = [f"d{name}" for name in inspect.signature(primitive.definition).parameters]

        def backward(*gradients: Any, **options: Any) -> Any:
            if self.recording() is None:
                return back(*gradients, **options)
            results = run_with(RECORDING, None, back, *gradients, **options)  # a step as a whole: nothing in it is one
            several = isinstance(results, tuple) and 1 < len(results) <= len(names)
            for name, gradient in zip(names, results if several else (results,), strict=False):
                self.add(returning, name, gradient, page=None)
            return results

        return value, backward

    def watch(self, function: Callable[..., Any], index: int, *arguments: Any, **options: Any) -> Any:
        """Call a function that can't be followed, and record the primitives that it calls."""

        def handle(primitive: Primitive, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
            if self.recording() is None:
                return NotImplemented
            return self.observe(primitive, index, *arguments, **options)

        return replaced(handle, function, *arguments, **options)


@dataclass(frozen=True, eq=False)
class Call:
    """A call that is followed.

    Attributes
    ----------
    caller : Place
    function : function
    rewritten : Rewritten, optional
        None where the function has no text.
    origin : Statement
        The system's, from which it is called.
    """

    caller: Place
    function: FunctionType
    rewritten: Rewritten | None
    origin: Statement

    locals = staticmethod(locals)

    def enter(self, arguments: Mapping[str, Any]) -> Place:
        """Find the place of the function that is called, from its arguments."""
        caller, code = self.caller, self.function.__code__
        first = arguments.get(code.co_varnames[0]) if code.co_argcount else None
        system = first if isinstance(first, Module) else caller.system
        params = next((value for value in arguments.values() if isinstance(value, Mapping)), caller.params)
        name = arguments.get("name")
        name = name if isinstance(name, str) else None
        statements = self.rewritten.statements if self.rewritten else (Statement(),)
        tags = {statement.tag for statement in statements} - {""}
        own = bool(tags) or system is not caller.system
        through = any(self.function.__globals__ is space for space in THROUGH)
        if system is not None and caller.system is not None and system is not caller.system:
            part = caller.name or prefix_of(params, caller.params) or field_of(system, caller.system)
            parts = (*caller.parts, part or type(system).__name__)
        elif tags and first is not system:
            parts = (*caller.parts, name or self.function.__name__)
        else:
            parts = caller.parts
        now = caller.recording()
        if now is not None and (tags or self.function.__name__ == "forward"):
            now.scopes.setdefault(parts, (self.function, dict(arguments)))
        package, _, stem = self.function.__module__.rpartition(".")
        return Place(
            owner=caller.owner,
            system=system,
            parts=parts,
            params=params,
            name=name,
            namespaces=caller.namespaces if through else (*caller.namespaces, self.function.__globals__),
            page=stem if package in ("npattn", "npattn.attention") else None,
            statements=statements,
            origin=self.origin if through and not tags else None,
            forward_open=all("'" in tag for tag in tags) if own else caller.forward_open,
            backward_open=all("'" not in tag for tag in tags) if own else caller.backward_open,
            numbers=itertools.count(1) if system is not caller.system else caller.numbers,
        )

    def watch(self, *arguments: Any, **options: Any) -> Any:
        """Call a function that has no text, and record the primitives that it calls."""
        given = inspect.signature(self.function).bind(*arguments, **options).arguments
        return self.enter(given).watch(self.function, 0, *arguments, **options)


def prefix_of(params: Mapping[str, Any], whole: Mapping[str, Any]) -> str | None:
    """Find what the names of a part's parameters have before them in the whole's: the same arrays are there."""
    for name, value in params.items():
        for other, candidate in whole.items():
            if candidate is value and other.endswith(f".{name}"):
                return other.removesuffix(f".{name}")
    return None


def field_of(part: Module, whole: Module) -> str | None:
    """Find the hyperparameter that holds a part, itself or in a sequence."""
    for field_ in dataclasses.fields(whole):
        value = getattr(whole, field_.name)
        if value is part:
            return field_.name
        if isinstance(value, (tuple, list)):
            found = [i for i, one in enumerate(value) if one is part]
            if found:
                return f"{field_.name}[{found[0]}]"
    return None
