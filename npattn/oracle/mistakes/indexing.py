"""Wrong readings of arithmetic with indices, of which masks are made: a bound one place off or left out, blocks."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

from npattn.oracle.mistakes.variants import Variant

__all__ = ["heads_of", "index_variants", "is_index", "names_of_indices"]

SOURCES = frozenset(
    ("arange", "eye", "fromfunction", "indices", "meshgrid", "mgrid", "ndenumerate", "ndindex", "ogrid")
)
SOURCES |= {"tri", "tril", "triu"}
"""Functions of NumPy that give indices, or what is made of them."""
COUNTING = "range", "enumerate"
WIDENED = {ast.Lt: 1, ast.LtE: 1, ast.Gt: -1, ast.GtE: -1}
"""What is added to a bound for one place more to lie within it."""
BY_EQUALITY = {ast.Lt: 1, ast.LtE: -1, ast.Gt: 1, ast.GtE: -1}
"""Whether one place more, or less, is the same as equality counted, or left out."""
ONE_MORE, ONE_LESS = "one place more", "one place less"


def names_of_indices(definition: ast.AST) -> set[str]:
    """Name what holds indices, or what is made of them, in a function.

    Examples
    --------
    >>> text = "i = np.arange(len(x)); d = i[:, None] - i; y = [x[j] for j in range(w)]; z = x[0]"
    >>> sorted(names_of_indices(ast.parse(text)))
    ['d', 'i', 'j', 'y']
    """
    names: set[str] = set()
    before = -1
    while before < len(names):  # a name may be used in the text before it is met in the tree
        before = len(names)
        for node in ast.walk(definition):
            if isinstance(node, ast.Assign) and not is_slot(node) and is_index(node.value, names):
                names |= {name for target in node.targets for name in stored(target)}
            elif isinstance(node, (ast.For, ast.comprehension)) and counts(node.iter, names):
                names |= set(stored(node.target))
            elif isinstance(node, ast.Call) and called(node) == "fromfunction" and isinstance(node.args[0], ast.Lambda):
                names |= {argument.arg for argument in node.args[0].args.args}
    return names


def is_index(node: ast.AST, names: set[str]) -> bool:
    """Tell whether an expression is one of indices, and calls no pass: what comes with its backward is none."""
    return any(
        (isinstance(part, ast.Name) and part.id in names) or (isinstance(part, ast.Attribute) and part.attr in SOURCES)
        for part in ast.walk(node)
    )


def is_slot(node: ast.Assign) -> bool:
    """Tell whether a statement takes a value with its backward, or writes to a part of something."""
    target = node.targets[0]
    if isinstance(target, ast.Tuple):
        return getattr(target.elts[-1], "id", "").startswith("back")
    return not isinstance(target, ast.Name)


def stored(target: ast.expr) -> Iterator[str]:
    return (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def counts(iterated: ast.expr, names: set[str]) -> bool:
    return called(iterated) in COUNTING or is_index(iterated, names)


def called(node: ast.AST) -> str:
    """Name the function that an expression calls."""
    function = node.func if isinstance(node, ast.Call) else None
    return str(getattr(function, "id", getattr(function, "attr", "")))


def heads_of(definition: ast.FunctionDef) -> Iterator[tuple[ast.stmt, ast.expr]]:
    """Go through what loops and conditions of a function ask, functions within left out, each with its statement."""

    def within(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.expr]]:
        for node in body:
            if isinstance(node, (ast.If, ast.While)):
                yield node, node.test
            elif isinstance(node, ast.For):
                yield node, node.iter
            if not isinstance(node, ast.FunctionDef):
                for name in ("body", "orelse"):
                    yield from within(getattr(node, name, []))

    return within(definition.body)


def index_variants(node: ast.AST, names: set[str]) -> Iterator[Variant]:
    """List wrong readings of an expression of indices, or of a statement that writes to places of these.

    Examples
    --------
    >>> expression = ast.parse("0 <= i - j < w", mode="eval").body
    >>> for words, make in index_variants(expression, {"i", "j"}):
    ...     print(words, ast.unparse(make(expression)), sep=": ")
    one place more: -1 <= i - j < w
    one place less: 1 <= i - j < w
    equality alone: 0 == i - j < w
    one place more: 0 <= i - j < w + 1
    one place less: 0 <= i - j < w - 1
    0 <= i - j left out: i - j < w
    i - j < w left out: 0 <= i - j
    """
    if is_written(node, names):
        yield "not written", nothing
    elif isinstance(node, ast.expr) and is_index(node, names):
        if isinstance(node, ast.Compare):
            yield from of_comparison(node)
        elif isinstance(node, ast.BinOp):
            yield from of_operator(node)
        elif isinstance(node, ast.BoolOp):
            for i, part in enumerate(node.values):
                yield f"{ast.unparse(part)} left out", without_part(i)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Invert, ast.Not)):
            yield f"{'~' if isinstance(node.op, ast.Invert) else 'not'} left out", lambda turned: turned.operand
        elif isinstance(node, ast.Slice):
            yield from of_slice(node)
        elif isinstance(node, ast.Call):
            yield from of_call(node)


def is_written(node: ast.AST, names: set[str]) -> bool:
    """Tell whether a statement writes to a place of some indices, or adds what is made of them."""
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Subscript) and is_index(node.targets[0], names)
    return isinstance(node, ast.AugAssign) and is_index(node.value, names)


def of_comparison(node: ast.Compare) -> Iterator[Variant]:
    """List wrong readings of a comparison, or of several in a row."""
    several = len(node.ops) > 1
    for i, op in enumerate(node.ops):
        first = i == 0 and several  # the bound of the first of two stands on the left
        for words, sign in ((ONE_MORE, 1), (ONE_LESS, -1)):
            if type(op) in WIDENED and (several or sign != BY_EQUALITY[type(op)]):
                by = sign * WIDENED[type(op)] * (-1 if first else 1)
                yield words, with_bound(i if first else i + 1, by)
        if isinstance(op, (ast.GtE, ast.LtE)):
            yield "equality alone", with_comparison(i, ast.Eq())
        if isinstance(op, ast.Eq):
            yield "what is less counted too", with_comparison(i, ast.LtE())
            yield "what is more counted too", with_comparison(i, ast.GtE())
    if several:
        parts = [node.left, *node.comparators]
        for i in (0, len(node.ops) - 1):
            one = ast.Compare(parts[i], [node.ops[i]], [parts[i + 1]])
            yield f"{ast.unparse(one)} left out", without_comparison(i)
    if any(map(is_block, ast.walk(node))):
        for words, by in (("one more", 1), ("one less", -1)):
            yield f"blocks of {words}", Blocks(by).visit
        yield "blocks of twice as many", Blocks(0).visit
        yield "blocks of one", Blocks(None).visit


def of_operator(node: ast.BinOp) -> Iterator[Variant]:
    """List wrong readings of a difference of indices, or of two masks joined."""
    if isinstance(node.op, ast.Sub):
        yield "one more", lambda difference: ast.BinOp(difference, ast.Add(), ast.Constant(1))
        yield "one less", lambda difference: ast.BinOp(difference, ast.Sub(), ast.Constant(1))
    elif isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        yield f"{ast.unparse(node.right)} left out", lambda joined: joined.left
        yield f"{ast.unparse(node.left)} left out", lambda joined: joined.right


def of_slice(node: ast.Slice) -> Iterator[Variant]:
    """List slices that begin or end one place off."""
    for name, words in (("lower", "begins"), ("upper", "ends")):
        own = getattr(node, name)
        for where, by in (("early", -1), ("late", 1)):
            if own is not None and not (isinstance(own, ast.BinOp) and isinstance(own.right, ast.Constant) and by < 0):
                yield f"{words} one place {where}", with_end(name, by)


def of_call(node: ast.Call) -> Iterator[Variant]:
    """List wrong readings of a distance without its sign, of a loop's end, and of masks joined by NumPy."""
    name = called(node)
    if name in ("abs", "absolute"):
        if name != "abs" or isinstance(node.func, ast.Name):
            yield f"{name} left out", lambda call: call.args[0]
        yield f"{name} left out, and the sign turned", lambda call: ast.UnaryOp(ast.USub(), call.args[0])
    elif name == "range" and node.args:
        for words, by in ((ONE_MORE, 1), (ONE_LESS, -1)):
            yield words, with_last(by)
    elif name in ("logical_and", "logical_or") and len(node.args) == 2:
        for i, part in enumerate(node.args):
            yield f"{ast.unparse(part)} left out", argument_alone(1 - i)


def is_block(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv)


class Blocks(ast.NodeTransformer):
    """Reads every division into blocks as one into others: by so many more, twice as many by 0, or blocks of one."""

    def __init__(self, by: int | None) -> None:
        self.by = by

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Change a divisor."""
        self.generic_visit(node)
        if not is_block(node):
            return node
        if self.by is None:
            return node.left
        by = moved(node.right, self.by) if self.by else ast.BinOp(node.right, ast.Mult(), ast.Constant(2))
        return ast.BinOp(node.left, node.op, by)


def moved(node: ast.expr, by: int) -> ast.expr:
    """Add a small number to an expression."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return ast.Constant(node.value + by)
    return ast.BinOp(node, ast.Add() if by > 0 else ast.Sub(), ast.Constant(abs(by)))


def nothing(_: Any) -> Any:
    """Return a statement that does nothing, in the place of one that writes."""
    return ast.Pass()


def with_bound(i: int, by: int) -> Callable[[Any], ast.expr]:
    """Move one of the numbers that are compared, counted from the left."""

    def make(node: Any) -> ast.expr:
        parts = [node.left, *node.comparators]
        parts[i] = moved(parts[i], by)
        return ast.Compare(parts[0], node.ops, parts[1:])

    return make


def with_comparison(i: int, op: ast.cmpop) -> Callable[[Any], ast.expr]:
    return lambda node: ast.Compare(node.left, [*node.ops[:i], op, *node.ops[i + 1 :]], node.comparators)


def without_comparison(i: int) -> Callable[[Any], ast.expr]:
    """Leave the first of several comparisons out, or the last."""

    def make(node: Any) -> ast.expr:
        if i:
            return ast.Compare(node.left, node.ops[:-1], node.comparators[:-1])
        return ast.Compare(node.comparators[0], node.ops[1:], node.comparators[1:])

    return make


def without_part(i: int) -> Callable[[Any], ast.expr]:
    def make(node: Any) -> ast.expr:
        parts = [*node.values[:i], *node.values[i + 1 :]]
        return ast.BoolOp(node.op, parts) if len(parts) > 1 else parts[0]

    return make


def with_end(name: str, by: int) -> Callable[[Any], ast.expr]:
    def make(node: Any) -> ast.expr:
        ends = {"lower": node.lower, "upper": node.upper, "step": node.step}
        return ast.Slice(**ends | {name: moved(ends[name], by)})

    return make


def argument_alone(i: int) -> Callable[[Any], ast.expr]:
    return lambda call: call.args[i]


def with_last(by: int) -> Callable[[Any], ast.expr]:
    """Let a loop end elsewhere."""

    def make(call: Any) -> ast.expr:
        i = min(1, len(call.args) - 1)
        return ast.Call(call.func, [*call.args[:i], moved(call.args[i], by), *call.args[i + 1 :]], call.keywords)

    return make
