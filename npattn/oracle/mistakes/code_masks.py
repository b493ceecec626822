"""Masks that a system of somebody's own makes in its code, by whatever arithmetic, and that are read otherwise."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets import Given
from npattn.oracle.mistakes.indexing import is_index, names_of_indices
from npattn.oracle.mistakes.lines import replaced_node
from npattn.oracle.mistakes.misreading import Written, in_pass, run_wrong, written_of
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.reading_masks import is_mask, on_the_way_back, readings_of
from npattn.oracle.mistakes.reordering import copy_of
from npattn.oracle.systems import is_known

__all__ = ["reads_mask", "rules_of_masks"]

READ = "@read"
"""The name by which a wrong text calls what reads a mask; no text can name it."""
MOST_MASKS = 6
"""Masks of one system that are read otherwise."""
MASK = re.compile(r"(^|[ :])mask (`.*` )?(one place|left out|transposed|turned over|all [01])")
"""What the names of such mistakes say."""


def reads_mask(mistake: Mistake) -> bool:
    """Tell whether a mistake is a mask that is read otherwise."""
    return not mistake.primitive and MASK.search(mistake.name) is not None


class MetError(Exception):
    """A pass need not go on: what was looked for is known."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True)
class Spot:
    """A value that a function computes, which may be a mask.

    Attributes
    ----------
    tag, code : str
        The number of its line; its name, or what computes it.
    replaced : callable
        Makes the function's text with a call of `READ` there.
    in_backward : callable, optional
        Makes it with such calls where backward reads the name.
    """

    tag: str
    code: str
    replaced: Callable[[], ast.FunctionDef]
    in_backward: Callable[[], ast.FunctionDef] | None = None


def rules_of_masks(module: Module, given: Given, is_over: Callable[[], bool] = lambda: False) -> list[Mistake]:
    """List masks of a system's code read otherwise: values of two numbers that no input with a gradient changes.

    Parameters
    ----------
    module : Module
        Of somebody's own; of others no mistakes are listed.
    given : Given
    is_over : callable, optional
        Whether to look for no more of them: each takes two passes that end there.

    Returns
    -------
    list of Mistake
        Of whole passes.
    """
    found: list[Mistake] = []
    met: list[np.ndarray] = []
    for own in [] if is_known(module) else written_of(type(module)):
        for spot in spots(own):
            if is_over():
                return found
            mask = value_at(spot, own, module, given)
            if mask is not None and len(met) < MOST_MASKS and not any(same_pattern(mask, other) for other in met):
                met.append(mask)
                found += misread(spot, own, mask)
    return found


def spots(own: Written) -> Iterator[Spot]:
    """Go through what may be a mask: names behind the last line that assigns them, and values that have none."""
    definition = own.definition
    numbers = {id(node): i for i, node in enumerate(ast.walk(definition))}
    arguments = {argument.arg for argument in definition.args.args}
    indices = names_of_indices(definition)
    body = definition.body
    for i, statement in enumerate(body):
        if isinstance(statement, ast.FunctionDef):
            continue
        tag = own.text.statement(statement).tag
        for name in dict.fromkeys(written(statement)):
            if name not in arguments and not any(name in written(later) for later in body[i + 1 :]):
                back = functools.partial(read_in_backward, definition, name) if reads_back(body, name) else None
                yield Spot(tag, name, functools.partial(read_behind, definition, i, name), back)
        for node in unnamed(statement, indices, in_helper=own.helper is not None):
            make = functools.partial(replaced_node, definition, numbers[id(node)], reading)
            yield Spot(tag, ast.unparse(node), make)


def written(statement: ast.stmt) -> list[str]:
    """Name the variables that a statement assigns or writes to, but for those of a pass and its backward."""
    if isinstance(statement, ast.FunctionDef):
        return []
    found = []
    for node in ast.walk(statement):
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, (ast.AugAssign, ast.AnnAssign)) else targets
        found += [name for target in targets for name in stored(target)]
    return found


def stored(target: ast.expr) -> list[str]:
    """Name the variable that a target is, or a part of."""
    if isinstance(target, ast.Subscript):
        return stored(target.value)
    return [target.id] if isinstance(target, ast.Name) else []


def unnamed(statement: ast.stmt, indices: set[str], *, in_helper: bool) -> Iterator[ast.expr]:
    """Go through values that a statement reads as a mask without a name: what is asked, or given."""
    for node in ast.walk(statement):
        read: list[ast.expr] = []
        if isinstance(node, ast.Call):
            given = [*node.args, *(one.value for one in node.keywords)]
            asked = node.args[:1] if getattr(node.func, "attr", "") == "where" else []
            read = [*asked, *(one for one in given if one not in asked and is_index(one, indices))]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Add)):
            read = [one for one in (node.left, node.right) if calls_own(one) or is_index(one, indices)]
        elif isinstance(node, ast.Return) and node.value is not None and in_helper:
            read = [node.value]
        yield from (one for one in read if not isinstance(one, (ast.Name, ast.Constant, ast.Tuple)))


def calls_own(node: ast.expr) -> bool:
    """Tell whether a value is what a function or a method gives."""
    return isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute))


def reads_back(body: list[ast.stmt], name: str) -> bool:
    """Tell whether a function defined in another reads a name."""
    inner = (node for statement in body if isinstance(statement, ast.FunctionDef) for node in ast.walk(statement))
    return any(isinstance(node, ast.Name) and node.id == name for node in inner)


def reading(value: Any) -> ast.expr:
    return ast.Call(ast.Name(READ, ast.Load()), [value], [])


def read_behind(definition: ast.FunctionDef, i: int, name: str) -> ast.FunctionDef:
    """Copy a function's text with a name read behind a statement."""
    copied = copy_of(definition)
    again = ast.Assign([ast.Name(name, ast.Store())], reading(ast.Name(name, ast.Load())))
    copied.body.insert(i + 1, ast.copy_location(again, copied.body[i]))
    return ast.fix_missing_locations(copied)


def read_in_backward(definition: ast.FunctionDef, name: str) -> ast.FunctionDef:
    """Copy a function's text with a name read wherever a function within it uses it."""
    copied = copy_of(definition)

    class Replace(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.copy_location(reading(node), node) if node.id == name else node

    copied.body = [Replace().visit(one) if isinstance(one, ast.FunctionDef) else one for one in copied.body]
    return ast.fix_missing_locations(copied)


def value_at(spot: Spot, own: Written, module: Module, given: Given) -> np.ndarray | None:
    """Return a value where it is a mask; None where it is none, or inputs with a gradient or parameters change it."""

    def meet(value: Any) -> Any:
        raise MetError(value)

    stopping = own.wrong(spot.replaced, names={READ: meet}).of(module)
    turned = {name: a if name in module.without_gradient else -a for name, a in given.inputs.items()}
    values = []
    for params, inputs in ((given.params, given.inputs), ({n: -a for n, a in given.params.items()}, turned)):
        try:
            with np.errstate(all="ignore"):
                stopping(params, *inputs.values())
        except MetError as met:
            values.append(met.value)
        except Exception:
            return None
    if len(values) < 2 or not all(map(is_mask, values)) or not np.array_equal(*values):
        return None
    return np.array(values[0])


def same_pattern(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two masks mark the same places, or one those that the other doesn't."""
    if one.shape != other.shape:
        return False
    marked, others = (mask == mask.max() for mask in (one, other))
    return np.array_equal(marked, others) or np.array_equal(marked, ~others)


def misread(spot: Spot, own: Written, mask: np.ndarray) -> Iterator[Mistake]:
    """Make the mistakes that a mask is which is read otherwise."""
    called = "mask" if spot.code == "mask" else f"mask `{spot.code}`"
    at = f"{spot.tag} {own.where}".strip()
    for _, words, other in readings_of(mask):
        name, read = f"{called} {words}", functools.partial(read_as, mask, other)
        wrong = own.wrong(spot.replaced, names={READ: read})
        yield from in_pass(f"{at} {name}".strip(), wrong, backward=False)
        yield from on_the_way_back(name, functools.partial(run_wrong, wrong), at=at)
        if spot.in_backward is not None:
            alone = own.wrong(spot.in_backward, names={READ: read})
            yield from in_pass(f"{at} gradient: {name} where backward reads it".strip(), alone, backward=True)


def read_as(mask: np.ndarray, other: np.ndarray, value: Any) -> Any:
    """Take another mask for one; a TypeError where it is not the one that was met."""
    if np.shape(value) != mask.shape:
        raise TypeError(f"a mask of shape {np.shape(value)}; expected {mask.shape}")
    return other.astype(value.dtype)
