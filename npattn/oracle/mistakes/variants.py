"""Wrong readings of an expression: a sign, a term or a factor left out, arguments exchanged, another axis."""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["Variant", "variants"]

Variant = tuple[str, Callable[[Any], ast.expr]]
"""What is wrong, and a function that makes the wrong expression of the right one."""
EXCHANGED = {"sum": ("mean",), "mean": ("sum",), "max": ("mean", "min"), "min": ("max",), "argmax": ("argmin",)}
"""Reductions, and what may be taken in their place."""
COMPARED = {
    ast.Gt: (ast.GtE, "counted"),
    ast.Lt: (ast.LtE, "counted"),
    ast.GtE: (ast.Gt, "left out"),
    ast.LtE: (ast.Lt, "left out"),
}
"""Comparisons, which may be taken in their place, and what becomes of equality."""
TRANSPOSITIONS = "swapaxes", "transpose", "conj"


def variants(node: ast.AST, names: dict[str, Any]) -> Iterator[Variant]:
    """List wrong readings of an expression.

    Parameters
    ----------
    node : ast.AST
    names : dict
        Global names of the function that it stands in. Primitives have mistakes of their own.

    Examples
    --------
    >>> expression = ast.parse("a - b", mode="eval").body
    >>> for words, make in variants(expression, {}):
    ...     print(words, ast.unparse(make(expression)))
    sign turned a + b
    exchanged b - a
    b not taken off a
    """
    if isinstance(node, ast.BinOp):
        yield from of_operator(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign turned", lambda minus: minus.operand
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARED:
        other, words = COMPARED[type(node.ops[0])]
        yield f"equality {words}", with_comparison(other())
    elif isinstance(node, ast.Attribute) and node.attr in ("T", "mT") and isinstance(node.ctx, ast.Load):
        yield "transposition left out", lambda attribute: attribute.value
    elif isinstance(node, ast.Call) and not is_primitive(node.func, names):
        yield from of_call(node, names)


def of_operator(node: ast.BinOp) -> Iterator[Variant]:
    """List wrong readings of a sum, a difference, a product or a quotient."""
    left, right = ast.unparse(node.left), ast.unparse(node.right)
    if isinstance(node.op, ast.Add):
        yield f"{right} not added", lambda sum_: sum_.left
        yield f"{left} not added", lambda sum_: sum_.right
        yield f"{right} in the place of {left} too", lambda sum_: ast.BinOp(sum_.right, sum_.op, sum_.right)
        yield f"{left} in the place of {right} too", lambda sum_: ast.BinOp(sum_.left, sum_.op, sum_.left)
        yield "sign turned", with_operator(ast.Sub())
        yield "averaged, not added", lambda sum_: ast.BinOp(sum_, ast.Div(), ast.Constant(2))
        yield "multiplied, not added", with_operator(ast.Mult())
    elif isinstance(node.op, ast.Sub):
        yield "sign turned", with_operator(ast.Add())
        yield "exchanged", exchanged_operands
        yield f"{right} not taken off", lambda difference: difference.left
    elif isinstance(node.op, ast.Mult):
        yield f"{right} left out", lambda product: product.left
        yield f"{left} left out", lambda product: product.right
    elif isinstance(node.op, ast.Div):
        yield f"not divided by {right}", lambda quotient: quotient.left
        yield "multiplied, not divided", with_operator(ast.Mult())
        yield "quotient inverted", exchanged_operands
        if isinstance(node.right, ast.Call) and ast.unparse(node.right.func) == "len":
            for words, operator in (("fewer", ast.Sub()), ("more", ast.Add())):
                yield f"divided by one {words}", with_divisor(operator)
    elif isinstance(node.op, ast.MatMult):
        yield "exchanged", exchanged_operands
        if not is_transposed(node.left):
            yield f"{left} transposed", lambda product: ast.BinOp(transposed(product.left), product.op, product.right)
        if not is_transposed(node.right):
            yield f"{right} transposed", lambda product: ast.BinOp(product.left, product.op, transposed(product.right))
    elif isinstance(node.op, ast.Pow):
        yield "power left out", lambda power: power.left
        exponent = constant_of(node.right)
        if exponent is not None:
            yield "sign of the power turned", with_exponent(-exponent)
        if exponent == -0.5:
            yield "root left out", with_exponent(-1)


def of_call(node: ast.Call, names: dict[str, Any]) -> Iterator[Variant]:
    """List wrong readings of a call: another reduction, another axis or layout, left out, arguments exchanged."""
    function = node.func
    method = isinstance(function, ast.Attribute)
    name = function.attr if isinstance(function, ast.Attribute) else ""
    owner = function.value if isinstance(function, ast.Attribute) else None
    for other in EXCHANGED.get(name, ()):
        yield f"{other} for {name}", with_attribute(other)
    for keyword in node.keywords:
        own = constant_of(keyword.value) if keyword.arg == "axis" else None
        for axis in (-1, -2, 0, 1, 2):
            if own is not None and axis != own:
                yield f"over axis {axis}", with_axis(axis)
    of_numpy = isinstance(owner, ast.Name) and names.get(owner.id) is np
    of_math = isinstance(owner, ast.Name) and names.get(owner.id) is math
    if (of_numpy or of_math) and len(node.args) == 1 and name not in EXCHANGED:
        yield f"{name} left out", lambda call: call.args[0]
    if of_numpy and name in OF_NUMPY:
        yield from OF_NUMPY[name](node)
    if method and not of_numpy and name == "reshape":
        for i, (one, next_) in enumerate(zip(node.args, node.args[1:], strict=False)):
            if i and not any(isinstance(a, ast.Starred) for a in node.args) and ast.dump(one) != ast.dump(next_):
                yield f"axes {i} and {i + 1} exchanged in memory", with_axes_exchanged(i)
    if method and not of_numpy and name in TRANSPOSITIONS:
        yield "transposition left out", lambda call: call.func.value
    if len(node.args) > 1 and not (method and name in (*TRANSPOSITIONS, "einsum")):
        last = len(node.args) - 1 if name == "where" else 1
        yield "arguments exchanged", exchanged_arguments(last - 1, last)


def of_einsum(node: ast.Call) -> Iterator[Variant]:
    """List wrong readings of a sum of products: two operands exchanged, one transposed."""
    subscripts, *operands = node.args
    if not (isinstance(subscripts, ast.Constant) and isinstance(subscripts.value, str)):
        return
    inputs, arrow, output = subscripts.value.partition("->")
    letters = inputs.split(",")
    if len(operands) == 2:
        yield "operands exchanged", exchanged_arguments(1, 2)
    for i, (own, operand) in enumerate(zip(letters, operands, strict=False)):
        turned = ",".join([*letters[:i], f"{own[:-2]}{own[-1:]}{own[-2:-1]}", *letters[i + 1 :]])
        yield f"{ast.unparse(operand)} transposed", with_first(ast.Constant(turned + arrow + output))


def of_triangle(node: ast.Call) -> Iterator[Variant]:
    """List triangles whose diagonal is one off, and those on its other side."""
    for words, k in (("on", 1), ("back", -1)):
        yield f"diagonal one further {words}", with_diagonal(k)
    name = ast.unparse(node.func).rpartition(".")[2]
    if name != "tri":
        other = "triu" if name == "tril" else "tril"
        yield f"{other} for {name}", with_attribute(other)


OF_NUMPY = {"einsum": of_einsum} | dict.fromkeys(("tri", "tril", "triu"), of_triangle)
"""Functions of NumPy that are read wrongly in ways of their own."""


def is_primitive(function: ast.expr, names: dict[str, Any]) -> bool:
    """Tell whether a called expression is a primitive, or a layer made of one."""
    parts = ast.unparse(function).split(".")
    found = names.get(parts[0])
    for part in parts[1:]:
        found = getattr(found, part, None)
    return hasattr(found, "definition") or getattr(found, "__module__", "") == "npattn.layers"


def constant_of(node: ast.expr) -> int | float | None:
    """Return the number that an expression is; None if it is none."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if type(value) in (int, float) else None


def is_transposed(node: ast.expr) -> bool:
    """Tell whether an expression is a transposition: another one of it is said to be left out."""
    return ast.unparse(node).endswith((".T", ".mT")) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TRANSPOSITIONS
    )


def with_operator(operator: ast.operator) -> Callable[[Any], ast.expr]:
    return lambda node: ast.BinOp(node.left, operator, node.right)


def with_divisor(operator: ast.operator) -> Callable[[Any], ast.expr]:
    return lambda node: ast.BinOp(node.left, node.op, ast.BinOp(node.right, operator, ast.Constant(1)))


def with_comparison(operator: ast.cmpop) -> Callable[[Any], ast.expr]:
    return lambda comparison: ast.Compare(comparison.left, [operator], comparison.comparators)


def with_exponent(exponent: float) -> Callable[[Any], ast.expr]:
    return lambda power: ast.BinOp(power.left, power.op, ast.Constant(exponent))


def with_axes_exchanged(i: int) -> Callable[[Any], ast.expr]:
    """Lay out an axis and the next one in the other order, and read them as if it were the right one."""

    def make(call: Any) -> ast.expr:
        sizes = [*call.args[:i], call.args[i + 1], call.args[i], *call.args[i + 2 :]]
        laid = ast.Call(call.func, sizes, call.keywords)
        return ast.Call(ast.Attribute(laid, "swapaxes", ast.Load()), [ast.Constant(i), ast.Constant(i + 1)], [])

    return make


def exchanged_operands(node: Any) -> ast.expr:
    return ast.BinOp(node.right, node.op, node.left)


def transposed(node: ast.expr) -> ast.expr:
    return ast.Call(ast.Attribute(node, "swapaxes", ast.Load()), [ast.Constant(-1), ast.Constant(-2)], [])


def with_attribute(name: str) -> Callable[[Any], ast.expr]:
    return lambda call: ast.Call(ast.Attribute(call.func.value, name, ast.Load()), call.args, call.keywords)


def with_axis(axis: int) -> Callable[[Any], ast.expr]:
    def make(call: Any) -> ast.expr:
        others = [one for one in call.keywords if one.arg != "axis"]
        return ast.Call(call.func, call.args, [ast.keyword("axis", ast.Constant(axis)), *others])

    return make


def with_first(argument: ast.expr) -> Callable[[Any], ast.expr]:
    return lambda call: ast.Call(call.func, [argument, *call.args[1:]], call.keywords)


def with_diagonal(k: int) -> Callable[[Any], ast.expr]:
    """Move the diagonal of a triangle, by so many more than it is moved."""

    def make(call: Any) -> ast.expr:
        place = 2 if call.func.attr == "tri" else 1  # of the diagonal among what is given by position
        own = call.args[place : place + 1] or [one.value for one in call.keywords if one.arg == "k"]
        others = [one for one in call.keywords if one.arg != "k"]
        known = constant_of(own[0]) if own else 0
        moved = ast.BinOp(own[0], ast.Add(), ast.Constant(k)) if known is None else ast.Constant(known + k)
        return ast.Call(call.func, call.args[:place], [*others, ast.keyword("k", moved)])

    return make


def exchanged_arguments(i: int, j: int) -> Callable[[Any], ast.expr]:
    def make(call: Any) -> ast.expr:
        arguments = copy.copy(call.args)
        arguments[i], arguments[j] = arguments[j], arguments[i]
        return ast.Call(call.func, arguments, call.keywords)

    return make
