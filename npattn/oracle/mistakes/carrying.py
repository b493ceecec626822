"""Mistakes in forward, carried through backward: what autograd would give of the wrong forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npattn.module import as_tuple
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.taping import OF_OPTIONS, Taped, flat, pull, untape

__all__ = ["carried", "in_forward_alone"]

NUM_GRADIENTS = {
    "affinity_sums": 2,
    "apply_lambdas": 2,
    "batch_norm": 3,
    "conv1d": 2,
    "conv2d": 3,
    "criss_cross_attention": 3,
    "dot_product_attention": 3,
    "gate": 2,
    "group_norm": 3,
    "layer_norm": 3,
    "linear": 3,
    "linear_attention": 3,
    "masked_attention": 5,
    "matmul": 2,
    "relative_logits": 3,
    "score": 3,
    "select": 2,
    "shift": 2,
}
"""Gradients that backward returns, of primitives that return several; of `add` and `concatenate` as many as arrays."""


def carried(mistake: Mistake) -> Mistake:
    """Carry a mistake in a primitive's forward through backward.

    Parameters
    ----------
    mistake : Mistake
        In the forward pass of a primitive.

    Returns
    -------
    Mistake
        Of the same name.

    Examples
    --------
    >>> from npattn import ops
    >>> from npattn.oracle.mistakes.mistake import value
    >>> tanh = carried(value("sigmoid", "hyperbolic tangent", lambda y, x: np.tanh(x)))
    >>> y, backward = tanh.apply(ops.sigmoid, np.array([0.0, 1.0]))
    >>> np.allclose(backward(np.ones(2)), 1 - y * y)
    True
    """

    def apply(original: Any, *arguments: Any, **options: Any) -> Any:
        sources: list[Taped] = []
        given, named = tape(arguments, sources), tape(options, sources)
        wrong, back_right = mistake.apply(original, *given, **named)
        outputs = list(flat(wrong))
        order = [named.get(name) for name in OF_OPTIONS.get(original.__name__, ())[3:]]
        leaves = [*list(flat(given))[:3], *order] if order else list(flat(given))

        def backward(*dy: Any, accumulate_into: Any = None) -> Any:
            taped = [(y, g) for y, g in zip(outputs, flat(dy), strict=False) if isinstance(y, Taped)]
            known = [(y, g) for y, g in taped if np.ndim(g) or (g is not None and not y.shape)]
            known = [(y, np.broadcast_to(g, y.shape)) for y, g in known]
            pulled = dict(zip(map(id, sources), pull(known, sources), strict=True))
            found = [pulled.get(id(leaf)) for leaf in leaves]
            return arrange(original, found, lambda: back_right(*dy), accumulate_into)

        return untape(wrong), backward

    return Mistake(mistake.primitive, mistake.name, "carried", apply, mistake.when, mistake.apply)


def in_forward_alone(mistake: Mistake) -> Mistake:
    """Leave backward as it is without a mistake."""

    def apply(original: Any, *arguments: Any, **options: Any) -> Any:
        wrong, _ = mistake.apply(original, *arguments, **options)
        return wrong, original(*arguments, **options)[1]

    return Mistake(mistake.primitive, mistake.name, "forward", apply, mistake.when, mistake.plain)


def tape(value: Any, sources: list[Taped]) -> Any:
    """Tape the floating-point arrays in nested tuples, lists and dicts, and list them."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        sources.append(Taped(value))
        return sources[-1]
    if isinstance(value, (tuple, list)):
        return type(value)(tape(one, sources) for one in value)
    return {name: tape(one, sources) for name, one in value.items()} if isinstance(value, Mapping) else value


def arrange(original: Any, found: list[Any], right: Callable[[], Any], accumulate_into: Any) -> Any:
    """Lay gradients out as a primitive's backward returns them."""
    name = original.__name__
    if name in ("add", "concatenate"):
        return tuple(g for g in found if g is not None)
    if name == "select":  # the other gradient is of no argument
        return found[0], right()[1]
    count = NUM_GRADIENTS.get(name)
    if count is None and not original.__module__.startswith("npattn."):  # a user's own: as its backward does
        example = right()
        count = len(example) if isinstance(example, tuple) else None
    if count is not None:
        return tuple(found[:count]) + (None,) * (count - len(found))
    dx = as_tuple(found)[0] if isinstance(found, tuple) else found[0]
    return dx if accumulate_into is None else accumulate_into + dx
