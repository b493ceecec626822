"""Mistakes made by rule in lines of a system of somebody's own that compute with indices, as those of masks do."""

from __future__ import annotations

import ast
import copy
import functools
import itertools
from collections.abc import Iterator
from typing import Any

from npattn.module import Module
from npattn.oracle.mistakes.indexing import heads_of, index_variants, is_index, names_of_indices
from npattn.oracle.mistakes.lines import replaced_node, statements
from npattn.oracle.mistakes.misreading import Written, in_pass, run_wrong, written_of
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.reading_masks import on_the_way_back
from npattn.oracle.mistakes.variants import variants
from npattn.oracle.systems import is_known

__all__ = ["rules_of_indices"]

MOST = 240
"""Mistakes that are made of one system."""


def rules_of_indices(module: Module) -> list[Mistake]:
    """List wrong readings of the lines of a system of somebody's own, and of what it calls, that compute with indices.

    Of such lines those readings that `rules_of_lines` has are wrong here on the way back alone.

    Parameters
    ----------
    module : Module

    Returns
    -------
    list of Mistake
        Of whole passes. None of a system that npattn brings.
    """
    return [] if is_known(module) else list(rules_of_system(type(module)))


@functools.lru_cache(maxsize=16)
def rules_of_system(system: type[Module]) -> list[Mistake]:
    """List wrong readings of a system's lines, once for all searches."""
    return list(itertools.islice((one for own in written_of(system) for one in misread(own)), MOST))


def misread(own: Written) -> Iterator[Mistake]:
    """List wrong readings of a forward pass, or of a function that it calls."""
    numbers = {id(node): i for i, node in enumerate(ast.walk(own.definition))}
    for tag, node, readings in nodes_of(own):
        for words, make, is_new in readings:
            new = ast.unparse(ast.fix_missing_locations(make(copy.deepcopy(node))))
            told = words if new == "pass" else f"{words}: `{new}` for"
            at, name = f"{tag} {own.where}".strip(), f"{told} `{ast.unparse(node)}`"
            wrong = own.wrong(functools.partial(replaced_node, own.definition, numbers[id(node)], make))
            yield from in_pass(f"{at} {name}".strip(), wrong, backward=False) if is_new else []
            yield from on_the_way_back(name, functools.partial(run_wrong, wrong), at=at)


def nodes_of(own: Written) -> Iterator[tuple[str, ast.AST, list[tuple[str, Any, bool]]]]:
    """Go through what computes with indices in a function: its tag, and its wrong readings.

    Each with whether it is none of those of any line.
    """
    definition, known = own.definition, own.function.__globals__
    names = names_of_indices(definition)
    wholes: list[tuple[ast.stmt, ast.AST]] = [
        (statement, statement) for statement, inner in statements(definition) if not inner
    ]
    parts = [(statement, node) for statement, whole in [*wholes, *heads_of(definition)] for node in ast.walk(whole)]
    compared = [node for _, node in parts if isinstance(node, ast.Compare) and is_index(node, names)]
    within = {id(part) for node in compared for part in ast.walk(node)}
    for statement, node in parts:
        of_lines = id(node) in within or (isinstance(node, ast.expr) and is_index(node, names))
        readings = [(*one, True) for one in index_variants(node, names)]
        readings += [(*one, False) for one in variants(node, known)] if of_lines else []
        if readings:
            yield own.text.statement(statement).tag, node, readings
