"""The same function with its steps in the open: its own text, in which calls and tagged statements report to a `Place`.

What is run is the text that the function was compiled from, under the file's name and line numbers, so that debuggers,
coverage and tracebacks show what they always do. No function that a trace meets is changed: the trace calls another one
in its place.
"""

from __future__ import annotations
import __future__

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from npattn.tracing.source import Statement, Text, text_of, written_to

__all__ = ["OPENED", "Rewritten", "is_rewritten", "open_definition", "rewrite"]

CALL = "@call"
"""The variable by which a rewritten function finds what called it; no text can name it."""
DEFINITION = "@definition"
"""The name under which it is compiled."""
HERE = "@here"
"""The variable that holds its place, for it and for the functions defined in it."""
OPENED = "@opened"
"""The attribute by which a function that is of no file brings its `Rewritten`."""
FUTURE_FLAGS = functools.reduce(
    lambda flags, name: flags | getattr(__future__, name).compiler_flag, __future__.all_feature_names, 0
)


@dataclass(frozen=True)
class Rewritten:
    """A function whose steps are in the open.

    Attributes
    ----------
    code : code
    statements : tuple of Statement
        Its statements, as the rewritten code counts them.
    """

    code: CodeType
    statements: tuple[Statement, ...]

    def bind(self, function: FunctionType, call: Any) -> FunctionType:
        """Make a function that stands for `function`, and asks ``call.enter(arguments)`` for its place."""
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        cells[CALL] = CellType(call)
        closure = tuple(cells[name] for name in self.code.co_freevars)
        bound = FunctionType(self.code, function.__globals__, function.__name__, function.__defaults__, closure)
        bound.__kwdefaults__ = function.__kwdefaults__
        bound.__qualname__, bound.__module__ = function.__qualname__, function.__module__
        return bound


def is_rewritten(function: Any) -> bool:
    """Whether a function reports what it does already, by itself or by the function that it is defined in."""
    while isinstance(function, (functools.partial, MethodType)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    variables = function.__code__.co_freevars if isinstance(function, FunctionType) else ()
    return CALL in variables or HERE in variables


def rewrite(function: FunctionType) -> Rewritten | None:
    """Open a function's steps; None where its text isn't there, or isn't what it was compiled from."""
    brought: Rewritten | None = getattr(function, OPENED, None)
    if brought is not None:
        return brought
    text = text_of(function)
    return None if text is None else rewrite_text(text, function.__code__.co_filename, FunctionKey(function))


class FunctionKey:
    """A function as a key: by its code and where it is from. Code that differs in comments alone is equal."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self.key = function.__code__, function.__code__.co_filename

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionKey) and self.key == other.key


@functools.lru_cache(maxsize=1024)
def rewrite_text(text: Text, filename: str, named: FunctionKey) -> Rewritten | None:
    """Rewrite the definition of a function in its file."""
    code = named.function.__code__
    found = text.find(named.function)
    if found is None or not any(
        same_code(code, other) for other in compiled(text, filename, code.co_flags & FUTURE_FLAGS)
    ):
        return None  # the file has changed since, or something else than Python made code of it
    definition, around = found
    if ast.get_docstring(definition, clean=False) is not None and len(definition.body) == 1:
        return None  # nothing is computed
    return open_definition(text, definition, around, code)


def open_definition(text: Text, definition: ast.FunctionDef, around: str, like: CodeType) -> Rewritten:
    """Open the steps of a definition, whose lines are those of a text, as `compile_definition` would compile it."""
    rewriter = Rewriter(text)
    opened = rewriter.open(definition)
    return Rewritten(compile_definition(opened, around, like), tuple(rewriter.statements))


class Rewriter(ast.NodeTransformer):
    """Puts reports into a function's text."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.statements: list[Statement] = []
        self.index = 0  # of the innermost statement around a call

    def open(self, definition: ast.FunctionDef) -> ast.FunctionDef:
        """Rewrite a function; its first act is to say where it is."""
        docstring = 0 if ast.get_docstring(definition, clean=False) is None else 1
        call = ast.Name(CALL, ast.Load())
        arguments = ast.Call(ast.Attribute(call, "locals", ast.Load()), [], [])
        place = ast.Call(ast.Attribute(call, "enter", ast.Load()), [arguments], [])
        enter = ast.copy_location(ast.Assign([ast.Name(HERE, ast.Store())], place), definition.body[docstring:][0])
        body = [statement for node in definition.body[docstring:] for statement in self.open_statement(node)]
        return with_fields(definition, body=[*definition.body[:docstring], enter, *body])

    def open_statement(self, node: ast.stmt) -> Iterator[ast.stmt]:
        """Rewrite the calls of a statement, and report after it if it is tagged."""
        if isinstance(node, ast.ClassDef):
            yield node
            return
        around, self.index = self.index, len(self.statements)
        index, statement = self.index, self.text.statement(node)
        self.statements.append(statement)
        opened = with_fields(node)
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                body = [one for inner in value for one in self.open_statement(inner)]
                setattr(opened, field, [touch(value[0]), *body] if writes(node) else body)
            elif isinstance(value, list):
                setattr(opened, field, [self.visit(inner) if isinstance(inner, ast.AST) else inner for inner in value])
            elif isinstance(value, ast.AST):
                setattr(opened, field, self.visit(value))
        self.index = around
        computes = isinstance(opened, (ast.Expr, ast.Return)) and opened.value is not None and not written_to(node)
        if statement.tag and computes:
            opened.value = report("result", opened.value, ast.Constant(index), report("locals", like=node), like=node)
        yield opened
        if writes(node):
            yield touch(node)
        if statement.tag and not computes:
            values = report("locals", like=node)
            yield ast.copy_location(ast.Expr(report("record", values, ast.Constant(index), like=node)), node)

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """Ask what to call."""
        opened = with_fields(node)
        opened.args = [self.visit(argument) for argument in node.args]
        opened.keywords = [with_fields(keyword, value=self.visit(keyword.value)) for keyword in node.keywords]
        opened.func = report("follow", self.visit(node.func), ast.Constant(self.index), like=node.func)
        return opened

    def visit(self, node: Any) -> Any:
        """Rewrite an expression, in a copy."""
        if isinstance(node, (ast.excepthandler, ast.match_case)):
            body = [one for inner in vars(node)["body"] for one in self.open_statement(inner)]
            return with_fields(node, body=body)
        if isinstance(node, ast.Call):
            return self.visit_Call(node)
        return self.generic_visit(with_fields(node, copy_lists=True))


def report(method: str, *arguments: ast.expr, like: ast.AST) -> ast.Call:
    """Write ``here.method(*arguments)``."""
    function = ast.Attribute(ast.Name(HERE, ast.Load()), method, ast.Load())
    return ast.copy_location(ast.Call(function, list(arguments), []), like)


def touch(like: ast.stmt) -> ast.Expr:
    """Write that an array may have changed."""
    return ast.copy_location(ast.Expr(report("touch", like=like)), like)


RUNNING = ast.For, ast.With, ast.Match, ast.comprehension, ast.Starred, ast.Yield, ast.YieldFrom
"""What runs code of iterators and contexts, which may write to whatever it knows of."""


def writes(node: ast.stmt) -> bool:
    """Whether a statement by itself, without those in it, may write to an array, or to what holds one."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):  # to unpack an iterator runs it
        unpacked = any(isinstance(target, (ast.Tuple, ast.List)) for target in node.targets)
    else:
        unpacked = False
    return unpacked or any(
        isinstance(part, (ast.AugAssign, *RUNNING))
        or (isinstance(part, (ast.Subscript, ast.Attribute)) and not isinstance(part.ctx, ast.Load))
        for part in own_parts(node)
    )


def own_parts(node: ast.AST) -> Iterator[ast.AST]:
    """Go through a statement, and the parts of it that are in no other."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.stmt, ast.Lambda)):
            yield from own_parts(child)


def with_fields(node: Any, *, copy_lists: bool = False, **fields: Any) -> Any:
    """Copy a node with other fields."""
    copied = type(node)(**dict(ast.iter_fields(node)))
    if copy_lists:
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                setattr(copied, name, list(value))
    for name, value in fields.items():
        setattr(copied, name, value)
    return ast.copy_location(copied, node)


def compile_definition(definition: ast.FunctionDef, around: str, like: CodeType) -> CodeType:
    """Compile a function's definition by itself, with the free variables of `like`, as `like` was compiled.

    It stands in a function that has its free variables, in a class of the name that private names are mangled by.
    """
    template = ast.parse(f"class {around or 'C'}:\n    def factory():\n        pass")
    class_: Any = template.body[0]
    factory = class_.body[0]
    own = definition.args
    arguments = with_fields(own, defaults=[], kw_defaults=[None for _ in own.kw_defaults])
    for kind in ("posonlyargs", "args", "kwonlyargs"):
        setattr(arguments, kind, [with_fields(argument, annotation=None) for argument in getattr(own, kind)])
    for kind in ("vararg", "kwarg"):
        argument = getattr(own, kind)
        setattr(arguments, kind, None if argument is None else with_fields(argument, annotation=None))
    factory.args.args = [ast.arg(name) for name in (*like.co_freevars, CALL)]
    # Under its own name it would hide what it calls by that name, as a method that calls a function of the module.
    name = like.co_name if like.co_name in like.co_freevars else DEFINITION
    factory.body = [with_fields(definition, name=name, args=arguments, decorator_list=[], returns=None)]
    if not around:  # in no class: no name is mangled
        template.body = [factory]
    ast.fix_missing_locations(template)
    flags = like.co_flags & FUTURE_FLAGS
    code = compile(template, like.co_filename, "exec", flags=flags, dont_inherit=True)
    for part in ([around] if around else []) + ["factory", name]:
        code = next(inner for inner in code.co_consts if isinstance(inner, CodeType) and inner.co_name == part)
    return code.replace(co_name=like.co_name, co_qualname=like.co_qualname)


@functools.lru_cache(maxsize=64)
def compiled(text: Text, filename: str, flags: int) -> tuple[CodeType, ...]:
    """Compile a file; return the code of all its functions."""
    return tuple(codes(compile(text.tree, filename, "exec", flags=flags, dont_inherit=True)))


def codes(code: CodeType) -> Iterator[CodeType]:
    """Go through the code of all functions in some code."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield inner
            yield from codes(inner)


SAME = "co_name", "co_firstlineno", "co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars"
"""What tells one code from another, besides its constants."""


def same_code(one: CodeType, other: CodeType) -> bool:
    """Whether two codes do the same, on the same lines."""
    if any(getattr(one, name) != getattr(other, name) for name in SAME):
        return False
    return len(one.co_consts) == len(other.co_consts) and all(
        same_code(a, b) if isinstance(a, CodeType) and isinstance(b, CodeType) else repr(a) == repr(b)
        for a, b in zip(one.co_consts, other.co_consts, strict=True)
    )
