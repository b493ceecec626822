"""What was computed from what, and how gradients go back along it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["Node", "carry_back"]

NUMBERS = itertools.count()


class Node:
    """One value: what it was computed from, and how its gradient goes back there.

    Attributes
    ----------
    number : int
        Nodes are numbered as they are made: each after those that it was computed from.
    parents : tuple of Node
    pullback : callable
        Takes the gradient, returns one for each parent.
    """

    def __init__(self, parents: Sequence[Node] = (), pullback: Callable[[Any], Sequence[Any]] | None = None) -> None:
        self.number = next(NUMBERS)
        self.parents = tuple(parents)
        self.pullback = pullback


def carry_back(ends: Iterable[tuple[Node, Any]]) -> dict[int, Any]:
    """Carry gradients of some values back to all that these were computed from.

    Parameters
    ----------
    ends : iterable of pair
        Node and its gradient; None where there is none.

    Returns
    -------
    dict
        The gradient of each node that is reached, by the node's number.
    """
    nodes: dict[int, Node] = {}
    gradients: dict[int, Any] = {}
    waiting: list[int] = []

    def add(node: Node, gradient: Any) -> None:
        if gradient is None:
            return
        if node.number not in nodes:
            waiting.append(-node.number)
            nodes[node.number], gradients[node.number] = node, gradient
            waiting.sort()
        else:
            gradients[node.number] = gradients[node.number] + gradient

    for node, gradient in ends:
        add(node, gradient)
    while waiting:
        node = nodes[-waiting.pop(0)]
        if node.pullback is not None:
            for parent, gradient in zip(node.parents, node.pullback(gradients[node.number]), strict=True):
                add(parent, gradient)
    return gradients
