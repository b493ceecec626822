"""Mistakes in whole passes that take an axis, a channel, an input or an output for another, in the gradients too."""

from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.golden_files.described import axes_of
from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.mistake import Apply, Arrays, Mistake, When, mistake
from npattn.oracle.mistakes.passes import READ_AS_NHWC, confused, each, first
from npattn.oracle.mistakes.planting import Run
from npattn.typing import Array

__all__ = ["ADDED"]


def nchw(a: Array, shape: tuple[int, ...]) -> Array:
    """Write a map with its channels last, and read it as if they stood second."""
    return a.transpose(0, 2, 3, 1).reshape(shape)


def through_nhwc(
    run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays, *, most: int | None = None
) -> Arrays:
    """Read and write maps, so many of the inputs and all outputs, gradients too, with channels last."""
    read = {name: a for name, a in list(inputs.items())[:most] if a.ndim == 4}
    turned = [each(group, arrays.channels_last, lambda a: a.ndim == 4) for group in (read, upstream)]
    results = run(module, params, inputs | turned[0], turned[1])
    named = upstream | {f"{name}.grad": a for name, a in read.items()}
    return results | {n: nchw(results[n], a.shape) for n, a in named.items() if a.ndim == 4 and n in results}


def first_through_nhwc(run: Run, *given: Any) -> Arrays:
    return through_nhwc(run, *given, most=1)


def reads_several_maps(module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> bool:
    return len(inputs) > 1 and READ_AS_NHWC.when(first(inputs))


def reads_maps(module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> bool:
    return READ_AS_NHWC.when(first(inputs))


def changed_input(i: int, name: str, change: Apply, back: Apply, when: When) -> Mistake:
    """Read one of several inputs otherwise, and carry its gradient back accordingly."""

    def apply(run, module, params, inputs, upstream):
        key = list(inputs)[i]
        results = run(module, params, inputs | {key: change(inputs[key])}, upstream)
        if f"{key}.grad" not in results:
            return results
        return results | {f"{key}.grad": back(results[f"{key}.grad"], inputs[key].shape)}

    def applies(module, params, inputs, upstream):
        return len(inputs) > max(i, 1) and when(list(inputs.values())[i])

    return mistake("", name, "carried", apply, applies)


def planes_exchanged(a: Array) -> Array:
    """Read memory as if the second and the third axis stood in each other's place."""
    return a.reshape(a.shape[0], a.shape[2], a.shape[1], *a.shape[3:]).swapaxes(1, 2)


def planes_back(g: Array, shape: tuple[int, ...]) -> Array:
    return g.swapaxes(1, 2).reshape(shape)


def on_planes(a: Array) -> bool:
    return a.ndim == 4 and min(a.shape[1:3]) > 1 and a.dtype.kind == "f"


def outputs_exchanged(i: int, j: int) -> Apply:
    """Return two outputs in each other's place."""

    def apply(run, module, params, inputs, upstream):
        a, b = (list(upstream)[n] for n in (i, j))
        return confused(run(module, params, inputs, confused(upstream, a, b)), a, b)

    return apply


def outputs_rotated(by: int) -> Apply:
    """Return outputs in an order that begins elsewhere."""

    def apply(run, module, params, inputs, upstream):
        names = list(upstream)
        order = names[by:] + names[:by]
        turned = dict(zip(order, upstream.values(), strict=True))
        results = run(module, params, inputs, {name: turned[name] for name in names})
        return results | {name: results[other] for name, other in zip(names, order, strict=True)}

    return apply


def has_three_alike(module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> bool:
    return len(upstream) > 2 and len({a.shape for a in upstream.values()}) == 1


def interleaved(run: Run, module: Any, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    """Group channels that stand apart by the number of groups."""
    (name, x), (output, dy) = next(iter(inputs.items())), next(iter(upstream.items()))
    order = np.arange(x.shape[1]).reshape(-1, module.groups).T.ravel()
    back = np.argsort(order)
    results = run(module, params, inputs | {name: x[:, order]}, {output: dy[:, order]})
    return results | {n: results[n][:, back] for n in (output, f"{name}.grad")}


def groups_channels(module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> bool:
    groups = getattr(module, "groups", 1)
    x = first(inputs)
    alike = len(upstream) == 1 and x.ndim == 4 and first(upstream).shape == x.shape and axes_of(module) != "heads"
    return alike and 1 < groups < x.shape[1] and x.shape[1] % groups == 0


def has_outputs(i: int, j: int) -> When:
    def when(module, params, inputs, upstream):
        shapes = [a.shape for a in upstream.values()]
        return len(shapes) > 1 and shapes[i] == shapes[j]

    return when


def masks_of(module: Module, inputs: Arrays) -> list[str]:
    """Name the inputs that have no gradient and the shape of the first such."""
    names = [name for name in inputs if name in module.without_gradient]
    return [name for name in names if inputs[name].shape == inputs[names[0]].shape]


def has_masks(module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> bool:
    return len(masks_of(module, inputs)) > 1


def first_mask_for_all(run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    """Read the first of several masks in the place of all."""
    names = masks_of(module, inputs)
    return run(module, params, inputs | dict.fromkeys(names, inputs[names[0]]), upstream)


def untransposed(g: Array, shape: tuple[int, ...]) -> Array:
    """Carry a gradient back through `arrays.transposed`."""
    return g.reshape(*shape[:2], shape[3], shape[2]).swapaxes(2, 3)


ADDED = [
    mistake("", "NHWC read and written as NCHW", "carried", through_nhwc, reads_maps),
    mistake("", "first input and output: NHWC read as NCHW", "carried", first_through_nhwc, reads_several_maps),
    *(
        changed_input(i, f"{which} input with {words}", change, back, when)
        for i, which in enumerate(("first", "second", "third"))
        for words, change, back, when in (
            ("rows and columns exchanged (height and width)", arrays.transposed, untransposed, arrays.on_wide_map),
            ("NHWC read as NCHW", arrays.channels_last, nchw, READ_AS_NHWC.when),
        )
    ),
    *(
        changed_input(
            i, f"{which} input with its second and third axis exchanged in memory", exchanged, back, on_planes
        )
        for i, which in enumerate(("first", "second", "third"))
        for exchanged, back in ((planes_exchanged, planes_back),)
    ),
    mistake("", "outputs exchanged", "carried", outputs_exchanged(0, 1), has_outputs(0, 1)),
    mistake("", "last two outputs exchanged", "carried", outputs_exchanged(-1, -2), has_outputs(-1, -2)),
    *(
        mistake(
            "", f"outputs in an order that begins with the {which}", "carried", outputs_rotated(by), has_three_alike
        )
        for by, which in ((1, "second"), (-1, "last"))
    ),
    mistake("", "channels of a group interleaved", "carried", interleaved, groups_channels),
    mistake("", "first of several masks for all", "carried", first_mask_for_all, has_masks),
]
