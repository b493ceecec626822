"""Mistakes in polarized self-attention: where its second softmax stands, and how its two gates go together."""

import dataclasses
from typing import Any

from npattn import ops
from npattn.oracle.mistakes.mistake import Apply, Arrays, When, mistake
from npattn.oracle.mistakes.planting import Run, answering
from npattn.typing import Array, Backward

__all__ = ["ADDED"]

PLACES = {"paper": "mean query", "sequential": "values", "parallel": "products"}
"""Of what the second softmax is, by what makes the gates."""


def is_polarized(module: Any, *_: Any) -> bool:
    return getattr(module, "key", None) == "polarized"


def is_parallel(module: Any, *_: Any) -> bool:
    return is_polarized(module) and module.form == "parallel"


def is_papers(module: Any, *_: Any) -> bool:
    return is_polarized(module) and module.variant == "paper"


def identity(a: Array) -> tuple[Any, Backward]:
    return a * 1.0, lambda da: da


def products(place: str | None, t: Array, k: Array) -> tuple[Any, Backward]:
    """Multiply the mean query with the values, with a softmax in its place."""
    softmax_if = {name: ops.softmax if name == place else identity for name in PLACES.values()}
    t, back_query = softmax_if["mean query"](t)
    k, back_values = softmax_if["values"](k)
    c, back_products = ops.matmul(t, k)
    c, back_share = softmax_if["products"](c)

    def backward(dc):
        dt, dk = back_products(back_share(dc))
        return back_query(dt), back_values(dk)

    return c, backward


def softmax_of(place: str | None = None) -> Apply:
    """Take the second softmax, that of the positions' gate, of something else, or of nothing."""

    def apply(run, *given):
        calls = {ops.softmax: 0, ops.matmul: 0}

        def spoil(primitive, arguments, options):
            if primitive not in calls:
                return NotImplemented
            calls[primitive] += 1
            if calls[primitive] != 2:  # the first is the channels'
                return NotImplemented
            return identity(arguments[0]) if primitive is ops.softmax else products(place, *arguments)

        with answering(spoil):
            return run(*given)

    return apply


def elsewhere(place: str) -> When:
    """Tell whether the second softmax is of something else."""
    return lambda module, *_: is_polarized(module) and PLACES[module.gates] != place


def other_form(run: Run, module: Any, *given: Any) -> Arrays:
    form = "sequential" if module.form == "parallel" else "parallel"
    return run(dataclasses.replace(module, form=form), *given)


def behind_another(run: Run, module: Any, *given: Any) -> Arrays:
    """Make the positions' gate of the map that the channels have gated, by the layers of the parallel form."""
    gates = module.gates
    kind = type("Behind", (type(module),), {"gates": property(lambda _: gates)})
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    return run(kind(**fields | {"form": "sequential"}), *given)


def halved(run: Run, *given: Any) -> Arrays:
    return {name: value / 2 for name, value in run(*given).items()}


def gated(change: Apply) -> Apply:
    """Make the output of the map and its two gates: ``change(x, a, b)``."""

    def apply(run, module, params, inputs, upstream):
        results, [x] = run(module, params, inputs, upstream), inputs.values()
        maps = module.forward(params, x).attention
        return results | {"output": change(x, maps["channel"][:, :, None, None], maps["spatial"])}

    return apply


ADDED = [
    *(
        mistake("", f"polarized: second softmax of the {place}", "carried", softmax_of(place), elsewhere(place))
        for place in PLACES.values()
    ),
    mistake("", "polarized: second softmax left out", "carried", softmax_of(), is_polarized),
    mistake("", "polarized: parallel for sequential, or the reverse", "carried", other_form, is_papers),
    mistake("", "polarized: gates one behind the other, not side by side", "carried", behind_another, is_parallel),
    mistake("", "polarized: mean of the gated maps, not their sum", "carried", halved, is_parallel),
    mistake("", "polarized: gates multiplied, not added", "forward", gated(lambda x, a, b: x * a * b), is_parallel),
    mistake("", "polarized: channels gated alone", "forward", gated(lambda x, a, b: x * a), is_polarized),
    mistake("", "polarized: positions gated alone", "forward", gated(lambda x, a, b: x * b), is_polarized),
]
