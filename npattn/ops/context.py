"""What is asked before a primitive takes its ways: who watches or replaces it, and whether faster ways are put aside.

It stands in a variable of the context (`contextvars`), so that it holds for one thread or task and ends with its block.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from contextlib import ContextDecorator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from npattn.ops.primitive import Primitive

__all__ = [
    "CONTEXT",
    "ORDINARY",
    "Context",
    "Handler",
    "Setting",
    "apart",
    "definitions",
    "replaced",
    "replacing",
    "run_with",
]

RUN_LATE = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
"""Tell whether a function's code runs later than its call."""
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Value = TypeVar("Value")
Handler = Callable[["Primitive", tuple[Any, ...], Mapping[str, Any]], Any]
"""Is called with a primitive and what it was called with; returns its result, or NotImplemented."""


@dataclass(frozen=True)
class Context:
    """What is asked before a primitive takes its ways.

    Attributes
    ----------
    handlers : tuple of callable
        Who watches or replaces primitives, the innermost last.
    definitions_only : bool
        Whether faster ways are put aside.
    outer : Context, optional
        What held where this one was made.
    block : object, optional
        The one that it was made for, and ends with.
    """

    handlers: tuple[Handler, ...] = ()
    definitions_only: bool = False
    outer: Context | None = None
    block: object = None

    @functools.cached_property
    def around(self) -> tuple[Context, ...]:
        """What holds for the calls that each handler makes in turn: those around it are asked alone."""
        return tuple(replace(self, handlers=self.handlers[:i]) for i in range(len(self.handlers)))


ORDINARY = Context(
    definitions_only=os.environ.get("NPATTN_DEFINITIONS", "").strip().lower() not in ("", "0", "false", "no", "off")
)
"""What holds where nothing else is said."""
CONTEXT: ContextVar[Context] = ContextVar("npattn.primitives", default=ORDINARY)


class Setting(ContextDecorator, Generic[Value]):
    """A block in which a variable of the context has another value, which the block is handed.

    An interrupt while it is entered leaves the value before. After one that keeps the block's end from being seen the
    value stays until the block around ends, or what runs `apart`. (A generator's block would end when the generator is
    dropped, which whoever looks at the interrupt may put off.)

    Parameters
    ----------
    variable : ContextVar
    value : object

    Examples
    --------
    >>> variable = ContextVar("shoe size", default=42)
    >>> with Setting(variable, 43):
    ...     variable.get()
    43
    >>> variable.get()
    42
    """

    def __init__(self, variable: ContextVar[Value], value: Value) -> None:
        self.variable, self.value = variable, value
        self.before: list[Value] = []

    def begin(self, before: Value) -> Value:
        """Tell the value in the block by the one before, which is to come back."""
        self.before.append(before)
        return self.value

    def __call__(self, function: Any) -> Any:
        """Hold during the calls of a function that it decorates.

        Raises
        ------
        TypeError
            If the function is a generator or a coroutine, whose code runs after the call.
        """
        if any(is_late(function) for is_late in RUN_LATE):
            raise TypeError(
                f"{function.__qualname__} is a generator or a coroutine, whose code runs after the call that a "
                "decorator holds during; expected a function: in this one, write the block as `with ...:`"
            )
        return super().__call__(function)

    def __enter__(self) -> Value:
        before = self.variable.get()
        now = self.begin(before)
        try:
            self.variable.set(now)
            return now
        except BaseException:  # an interrupt, which is raised as soon as it is set
            self.variable.set(before)
            raise

    def __exit__(self, *_: object) -> None:
        self.variable.set(self.before.pop())


class Change(Setting[Context]):
    """A block in which what is asked changes.

    What held before is told by what holds in it, and not kept here: one block may be entered by several threads or
    tasks at a time, as that of a function that it decorates is. One that ends late, in a generator that somebody has
    kept, changes nothing: what it began is over.
    """

    def __init__(self, **changes: Any) -> None:
        super().__init__(CONTEXT, ORDINARY)
        self.changes = changes

    def begin(self, before: Context) -> Context:
        """Change what held before."""
        changes = {name: change(before) for name, change in self.changes.items()}
        return replace(before, outer=before, block=self, **changes)

    def __exit__(self, *_: object) -> None:
        held: Context | None = CONTEXT.get()
        while held is not None and held.block is not self:
            held = held.outer
        if held is not None and held.outer is not None:
            CONTEXT.set(held.outer)


def replacing(handler: Handler) -> Change:
    """Show every call of a primitive in this context to a handler, which may answer it.

    Parameters
    ----------
    handler : callable
        ``handler(primitive, arguments, options)`` returns a result, or NotImplemented to go on as if it weren't there.
        To see a result it calls ``primitive(*arguments, **options)`` itself. What is called by a primitive that it
        leaves alone is shown to it too.

    Returns
    -------
    context manager

    Examples
    --------
    >>> import numpy as np
    >>> from npattn import ops
    >>> from npattn.ops.context import replacing
    >>> def without_corner(primitive, arguments, options):
    ...     return (arguments[0], lambda dy: dy) if primitive is ops.relu else NotImplemented
    >>> with replacing(without_corner):
    ...     ops.relu(np.array([-2.0, 3.0]))[0]
    array([-2.,  3.])
    """
    return Change(handlers=lambda before: (*before.handlers, handler))


def definitions() -> Change:
    """Compute every primitive by its definition in this context, whatever faster ways there are.

    The environment variable ``NPATTN_DEFINITIONS=1`` does so for a whole process.

    Returns
    -------
    context manager

    Examples
    --------
    >>> import numpy as np
    >>> import npattn
    >>> module = npattn.CATALOGUE["se"].example()
    >>> with npattn.definitions():
    ...     run = module(module.init(), np.ones(module.input_shapes(1, 2, 2)["x"]))
    """
    return Change(definitions_only=lambda _: True)


def replaced(
    handler: Handler, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Call a function with a handler for its primitives, of which an interrupt at any moment leaves nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from npattn import ops
    >>> from npattn.ops.context import replaced
    >>> replaced(lambda *_: 4.0, ops.relu, np.zeros(2))
    4.0
    """
    held = CONTEXT.get()
    now = replace(held, outer=held, block=None, handlers=(*held.handlers, handler))
    return run_with(CONTEXT, now, function, *arguments, **options)


def run_with(
    variable: ContextVar[Value],
    value: Value,
    function: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **options: Arguments.kwargs,
) -> Result:
    """Call a function in a copy of this context, in which a variable has another value.

    Examples
    --------
    >>> variable = ContextVar("shoe size", default=42)
    >>> run_with(variable, 43, variable.get)
    43
    """
    context = copy_context()
    context.run(variable.set, value)
    return context.run(function, *arguments, **options)


def apart(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Have a function run in a copy of its caller's context: what an interrupt leaves there is dropped with the copy.

    Examples
    --------
    >>> @apart
    ... def leave():
    ...     definitions().__enter__()
    >>> leave()
    >>> CONTEXT.get() is ORDINARY
    True
    """

    @functools.wraps(function)
    def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        return copy_context().run(function, *arguments, **options)

    return call
