"""Mistakes in attention along rows and columns, and in applying it several times."""

import dataclasses
from typing import Any

import numpy as np

from npattn import ops
from npattn.module import Module
from npattn.ops.attention import transpose
from npattn.ops.criss_cross import columns, gather_on_lines, is_itself, parts, products, rows, scatter_on_lines
from npattn.oracle.mistakes.arrays import both, in_bfloat16, longer
from npattn.oracle.mistakes.families import IMAGE_0_FOR_ALL
from npattn.oracle.mistakes.mistake import Apply, Arrays, Mistake, When, argument, dropped, gradient, instead, mistake
from npattn.oracle.mistakes.planting import Run, answering
from npattn.oracle.mistakes.softmax import slopes, softmax, sum_left_out
from npattn.typing import Array, Backward

__all__ = ["ADDED"]

NAME = "criss_cross_attention"


def several(q: Array, *_: Any) -> bool:
    return max(q.shape[-2:]) > 1


def several_rows(q: Array, *_: Any) -> bool:
    return q.shape[-2] > 1


def wide(q: Array, *_: Any) -> bool:
    return min(q.shape[-2:]) > 1


def square(q: Array, *_: Any) -> bool:
    return q.shape[-2] == q.shape[-1] > 1


def alike(q: Array, k: Array, v: Array) -> bool:
    return several(q) and k.shape == v.shape


def attention(
    *qkv: Array, weigh: Apply | None = None, collect: Apply = gather_on_lines, differentiate: Apply = slopes
) -> tuple[Any, Backward]:
    """Compute the primitive: `weigh` makes weights of all products, `collect` the output of values and weights."""
    q, k, v = qkv
    z = products(q, k)
    s = softmax(np.where(is_itself(q), -np.inf, z)) if weigh is None else weigh(z, q)

    def backward(do):
        dz = differentiate(s, products(do, v))
        return gather_on_lines(k, dz), scatter_on_lines(q, dz), scatter_on_lines(do, s)

    return collect(v, s), backward


def weighed(name: str, weigh: Apply, when: When = several) -> Mistake:
    """Take other weights of all products, (..., H, W, W + H), and of queries."""
    return instead(NAME, name, lambda _, *qkv: attention(*qkv, weigh=weigh), when)


def collected(name: str, collect: Apply, when: When = several) -> Mistake:
    return instead(NAME, name, lambda _, *qkv: attention(*qkv, collect=collect), when)


def differentiated(name: str, differentiate: Apply) -> Mistake:
    return instead(NAME, name, lambda _, *qkv: attention(*qkv, differentiate=differentiate), several, way="backward")


def apart(z: Array, q: Array) -> Array:
    """Let the weights of the row add up to 1, and those of the column."""
    width = q.shape[-1]
    in_column = softmax(np.where(is_itself(q)[..., width:], -np.inf, z[..., width:]))
    return np.concatenate([softmax(z[..., :width]), in_column], axis=-1)


def not_itself(z: Array, q: Array) -> Array:
    """Let no position see itself."""
    width = q.shape[-1]
    own = np.arange(width)[:, None] == np.arange(z.shape[-1])
    return softmax(np.where(own | is_itself(q), -np.inf, z))


def row_alone(z: Array, q: Array) -> Array:
    in_row = softmax(z[..., : q.shape[-1]])
    return np.concatenate([in_row, 0 * z[..., q.shape[-1] :]], axis=-1)


def column_alone(z: Array, q: Array) -> Array:
    in_column = softmax(z[..., q.shape[-1] :])
    return np.concatenate([0 * z[..., : q.shape[-1]], in_column], axis=-1)


def mask_of_zeros(z: Array, q: Array) -> Array:
    """Set the logit that should not count to 0, not to -∞."""
    return softmax(np.where(is_itself(q), 0.0, z))


def columns_unpermuted(z: Array, q: Array) -> Array:
    """Read the products within columns, made column by column, as if they lay row by row."""
    width = q.shape[-1]
    by_column = z[..., width:].swapaxes(-3, -2)
    in_column = by_column.reshape(*z.shape[:-1], z.shape[-3])
    laid = np.concatenate([z[..., :width], in_column], axis=-1)
    return softmax(np.where(is_itself(q), -np.inf, laid))


def own_maxima(z: Array, q: Array) -> Array:
    """Let row and column take off a maximum of their own, and add up their sums as if it were one."""
    width = q.shape[-1]
    hidden = np.where(is_itself(q), -np.inf, z)
    parts = hidden[..., :width], hidden[..., width:]
    e = np.concatenate([np.exp(part - part.max(axis=-1, keepdims=True)) for part in parts], axis=-1)
    return e / e.sum(axis=-1, keepdims=True)


def sums_apart(s: Array, ds: Array) -> Array:
    """Take the sum for a row over the row alone, that for a column over the column."""
    width = s.shape[-2]
    halves = ((s[..., at], ds[..., at]) for at in (slice(width), slice(width, None)))
    return np.concatenate([slopes(*half) for half in halves], axis=-1)


def met_by_values(name: str, change: Apply) -> Mistake:
    """Let values meet other weights, whose logits have the right gradient: ``change(s, z, q)``."""

    def other(_, q, k, v):
        z = products(q, k)
        s = softmax(np.where(is_itself(q), -np.inf, z))
        met = change(s, z, q)

        def backward(do):
            dz = slopes(s, products(do, v))
            return gather_on_lines(k, dz), scatter_on_lines(q, dz), scatter_on_lines(do, met)

        return gather_on_lines(v, met), backward

    return instead(NAME, name, other, several_rows, way="both")


def gathered_apart(v: Array, s: Array) -> tuple[Array, ...]:
    """Return what comes from the row, and from the column, as (..., H, c, W) and (..., W, c, H)."""
    in_row, in_column = parts(s)
    return rows(v) @ transpose(in_row), columns(v) @ transpose(in_column)


def column_misread(v: Array, s: Array) -> Array:
    """Read what the columns gathered as if it were by rows."""
    in_row, in_column = gathered_apart(v, s)
    return rows(in_row) + rows(in_column)


def weights_exchanged(v: Array, s: Array) -> Array:
    """Weight rows by what is of columns, and the other way round."""
    half = s.shape[-2]
    return gather_on_lines(v, np.concatenate([s[..., half:], s[..., :half]], axis=-1))


def everywhere(_: Any, q: Array, k: Array, v: Array) -> tuple[Any, Backward | None]:
    """Let every position see all positions."""
    flat = [a.reshape(*a.shape[:-2], a.shape[-2] * a.shape[-1]) for a in (q, k, v)]
    s = softmax(transpose(flat[0]) @ flat[1])
    return (flat[2] @ transpose(s)).reshape(v.shape), None


def detached(original: Apply, *qkv: Array) -> tuple[Any, Backward]:
    """Keep the gradient of values alone."""
    right, backward = original(*qkv)
    return right, lambda do: (dropped(qkv[0]), dropped(qkv[1]), backward(do)[2])


def in_part(i: int, name: str, change: Apply, when: When = wide) -> Mistake:
    """Make a gradient of the weights and of their logits' gradients: ``change(s, dz, do, q, k)``."""

    def changed(g, do, q, k, v):
        s = softmax(np.where(is_itself(q), -np.inf, products(q, k)))
        return change(s, slopes(s, products(do, v)), do, q, k)

    return gradient(NAME, i, name, changed, when)


def halved(w: Array, row: bool) -> Array:
    """Keep what positions have to do with their row, or with their column."""
    in_row, in_column = w[..., : w.shape[-2]], w[..., w.shape[-2] :]
    kept = (in_row, 0 * in_column) if row else (0 * in_row, in_column)
    return np.concatenate(kept, axis=-1)


def lost(word: str, row: bool) -> list[Mistake]:
    """Lose in every gradient what comes by the row, or by the column."""
    return [
        in_part(0, f"{word} lost in dq", lambda s, dz, do, q, k: gather_on_lines(k, halved(dz, row))),
        in_part(1, f"{word} lost in dk", lambda s, dz, do, q, k: scatter_on_lines(q, halved(dz, row))),
        in_part(2, f"{word} lost in dv", lambda s, dz, do, q, k: scatter_on_lines(do, halved(s, row))),
    ]


def is_criss_cross(module: Module, *_: Any) -> bool:
    return getattr(module, "key", None) == "criss-cross"


def recurs(module: Any, *_: Any) -> bool:
    return getattr(module, "recurrence", 1) > 1


def times(change: Apply) -> Apply:
    """Apply the module another number of times."""

    def apply(run, module, *given):
        return run(dataclasses.replace(module, recurrence=change(module.recurrence)), *given)

    return apply


def last_time(run: Run, module: Any, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    """Return the results of the last time, whose input is what came before."""
    before = run(dataclasses.replace(module, recurrence=module.recurrence - 1), params, inputs, upstream)
    [name], [output] = inputs, upstream
    return run(dataclasses.replace(module, recurrence=1), params, {name: before[output]}, upstream)


def stopped(run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    """Carry the gradient back through the last time alone."""
    results, last = (step(run, module, params, inputs, upstream) for step in (whole, last_time))
    return results | {name: value for name, value in last.items() if name.endswith(".grad")}


def unconnected(run: Run, *given: Any) -> Arrays:
    """Leave out, each time, the map that is added."""

    def spoil(primitive, arguments, options):
        if primitive is not ops.add or len(arguments) != 2:
            return NotImplemented
        return arguments[1] * 1.0, lambda dy: (np.zeros_like(dy), dy)

    with answering(spoil):
        return run(*given)


def whole(run: Run, *given: Any) -> Arrays:
    return run(*given)


def of_last_time(run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    """Keep the parameters' gradients of the last time, and not those of the times before it."""
    results, last = (step(run, module, params, inputs, upstream) for step in (whole, last_time))
    return results | {f"{name}.grad": last[f"{name}.grad"] for name in params if f"{name}.grad" in last}


def without_last_time(run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    """Overwrite the parameters' gradients of the last time by those of the times before it."""
    results, last = (step(run, module, params, inputs, upstream) for step in (whole, last_time))
    names = [f"{name}.grad" for name in params if f"{name}.grad" in last]
    return results | {name: results[name] - last[name] for name in names}


ADDED = [
    weighed("itself counted twice: column not masked", lambda z, q: softmax(z)),
    weighed("itself masked in row and column", not_itself),
    weighed("mask of 0, not -∞", mask_of_zeros),
    weighed("softmax of row and column apart", apart, several_rows),
    weighed("columns' products read without a permutation", columns_unpermuted, wide),
    weighed("row and column by their own maxima, not rescaled", own_maxima, several_rows),
    differentiated("sums of row and column apart", sums_apart),
    met_by_values("row and column by their own maxima, not rescaled", lambda s, z, q: own_maxima(z, q)),
    met_by_values("weights in bfloat16 where they meet the values", lambda s, *_: in_bfloat16(s)),
    weighed("row alone", row_alone, several_rows),
    weighed("column alone", column_alone, longer(-1)),
    weighed("softmax left out", lambda z, q: np.where(is_itself(q), 0.0, z)),
    weighed("sigmoid for softmax", lambda z, q: np.where(is_itself(q), 0.0, 1 / (1 + np.exp(-z)))),
    collected("columns' part written as rows", column_misread, square),
    collected("weights of row and column exchanged", weights_exchanged, square),
    collected("weights transposed", scatter_on_lines),
    instead(NAME, "all positions, not row and column", everywhere, wide),
    instead(NAME, "queries and keys swapped", lambda exact, q, k, v: exact(k, q, v), several),
    instead(NAME, "keys taken for values", lambda exact, q, k, v: exact(q, k, k), alike),
    instead(NAME, "values taken for keys", lambda exact, q, k, v: exact(q, v, v), alike),
    argument(NAME, 0, "scaled by 1/√d", lambda q, *_: q * q.shape[-3] ** -0.5, both(several, longer(-3))),
    *(IMAGE_0_FOR_ALL.in_argument(NAME, i, f"{words} of image 0 for all") for i, words in ((1, "keys"), (2, "values"))),
    differentiated("sum left out", sum_left_out),
    instead(NAME, "map detached", detached, several, way="backward"),
    *(gradient(NAME, i, f"{name} dropped", dropped) for i, name in enumerate(("dq", "dk", "dv"))),
    gradient(NAME, None, "dq and dk swapped", lambda g, *_: (g[1], g[0], g[2]), several),
    in_part(1, "dk gathered, not scattered", lambda s, dz, do, q, k: gather_on_lines(q, dz), several),
    in_part(2, "dv gathered, not scattered", lambda s, dz, do, q, k: gather_on_lines(do, s), several),
    *lost("column's part", row=True),
    *lost("row's part", row=False),
    mistake("", "recurrence: missing residual", "carried", unconnected, is_criss_cross),
    mistake("", "recurrence: applied once less", "both", times(lambda n: n - 1), recurs),
    mistake("", "recurrence: applied once more", "both", times(lambda n: n + 1), recurs),
    mistake("", "recurrence: parameters' gradients of the last time alone", "backward", of_last_time, recurs),
    mistake("", "recurrence: parameters' gradients without the last time", "backward", without_last_time, recurs),
    mistake("", "recurrence: gradient stopped before the last time", "backward", stopped, recurs),
]
