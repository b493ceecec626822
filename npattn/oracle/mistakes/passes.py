"""Mistakes in whole passes: of their results, or of the inputs, parameters and upstream gradients that they read."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.mistakes import arrays, families
from npattn.oracle.mistakes.arrays import on_map, several_channels, several_images
from npattn.oracle.mistakes.families import Family
from npattn.oracle.mistakes.mistake import Apply, Arrays, Mistake, When, always, mistake
from npattn.oracle.mistakes.planting import Run
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def reads(name: str, way: str, change: Apply, when: When = always) -> Mistake:
    """Run on something else: ``change(module, params, inputs, upstream)`` returns all four."""
    return mistake("", name, way, lambda run, *given: run(*change(*given)), when)


def writes(name: str, way: str, change: Apply, when: When = always) -> Mistake:
    """Change results: ``change(results, module, params, inputs, upstream)`` returns those that are different."""

    def apply(run, *given):
        results = run(*given)
        return results | change(results, *given)

    return mistake("", name, way, apply, when)


def each(named: Arrays, change: Apply, when: When = always) -> Arrays:
    return {name: change(a) if when(a) else a for name, a in named.items()}


def of(results: Arrays, names: Sequence[str]) -> Arrays:
    return {name: results[name] for name in names if name in results}


def gradients(results: Arrays, named: Iterable[str]) -> Arrays:
    return of(results, [f"{name}.grad" for name in named])


def first(named: Arrays) -> Array:
    return next(iter(named.values()))


def in_outputs(family: Family) -> Mistake:
    return writes(
        family.name,
        "forward",
        lambda results, m, p, inputs, upstream: each(of(results, upstream), family.change, family.when),
        lambda m, p, inputs, upstream: any(map(family.when, upstream.values())),
    )


def in_input_gradients(family: Family) -> Mistake:
    return writes(
        family.name,
        "backward",
        lambda results, m, p, inputs, u: each(gradients(results, inputs), family.change, family.when),
        lambda m, p, inputs, u: any(map(family.when, inputs.values())),
    )


def in_inputs(family: Family, name: str | None = None) -> Mistake:
    return reads(
        name or family.name,
        "both",
        lambda m, p, inputs, u: (m, p, each(inputs, family.change, family.when), u),
        lambda m, p, inputs, u: any(map(family.when, inputs.values())),
    )


def in_parameter_gradients(name: str, change: Apply, when: When = always) -> Mistake:
    """Get parameters' gradients wrong: ``change(gradient, x)``, where ``when(x)``."""
    return writes(
        name,
        "backward",
        lambda results, m, params, inputs, u: each(gradients(results, params), lambda g: change(g, first(inputs))),
        lambda module, p, inputs, u: has_parameters(module) and when(first(inputs)),
    )


def in_upstream(name: str, change: Apply, when: When = always) -> Mistake:
    return reads(name, "backward", lambda m, p, i, upstream: (m, p, i, each(upstream, change)), when)


def has_pairs(module: Module, *_: Any) -> bool:
    return bool(pairs(module))


def has_parameters(module: Module, *_: Any) -> bool:
    return bool(module.parameter_shapes())


def has_images(module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> bool:
    return several_images(first(inputs))


def is_residual(module: Module, *_: Any) -> bool:
    return getattr(module, "key", None) in {"pam", "cam", "residual"}


def only_image_0(run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    few = run(module, params, inputs, each(upstream, arrays.first_image))
    return run(module, params, inputs, upstream) | gradients(few, params)


def pairs(module: Module) -> list[tuple[str, str]]:
    """List pairs of parameters of one shape."""
    shapes = module.parameter_shapes()
    names = list(shapes)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if shapes[a] == shapes[b]]


def confused(named: Arrays, a: str, b: str) -> Arrays:
    return named | {a: named[b], b: named[a]}


def confused_gradients(results: Arrays, module: Module, *_: Any) -> Arrays:
    return confused(results, *(f"{name}.grad" for name in pairs(module)[-1]))


def first_forgotten(results: Arrays, module: Module, *_: Any) -> Arrays:
    return each(gradients(results, list(module.parameter_shapes())[:1]), np.zeros_like)


def unconnected(results: Arrays, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    return {"output": results["output"] - first(inputs)}


def unconnected_gradient(results: Arrays, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    return each(gradients(results, list(inputs)[:1]), lambda g: g - upstream["output"])


def square_transposed(weight: Array, _: Any) -> Array:
    return weight.swapaxes(0, 1) if weight.ndim > 1 and weight.shape[0] == weight.shape[1] > 1 else weight


def with_noise(name: str, factor: float) -> Mistake:
    """Add the noise so many times."""
    return reads(
        name,
        "both",
        lambda m, p, inputs, u: (m, p, inputs | {"noise": factor * inputs["noise"]}, u),
        lambda m, p, inputs, u: "noise" in inputs,
    )


def masked_late(name: str, late: int) -> Mistake:
    """Begin the mask so many positions late."""
    return reads(
        name,
        "both",
        lambda module, *given: (dataclasses.replace(module, late=late), *given),
        lambda module, *_: hasattr(module, "late"),
    )


RESULTS = [
    families.TRANSPOSED,
    families.SHIFTED,
    families.LAST_TILE,
    families.LAST_POSITION,
    families.IMAGE_0_FOR_ALL,
    Family("last channel forgotten", arrays.unwritten(slice(None), -1), several_channels),
]
RESULTS_HELD_OUT = [
    Family("last row unwritten", arrays.unwritten(..., -1, slice(None)), arrays.longer(2)),
    Family("last column unwritten", arrays.unwritten(..., -1), arrays.longer(3)),
    Family("last image unwritten", arrays.unwritten(-1), several_images),
    Family("first channels swapped", arrays.channels_swapped, several_channels),
    Family("every 16th position unwritten", lambda a: arrays.filled(a, arrays.LAST_OF_TILES), arrays.on_tile),
    Family("added to the image before", arrays.added_to_image_before, several_images),
]

TUNED_ON = [
    *(plant(family) for plant in (in_outputs, in_input_gradients) for family in RESULTS),
    in_inputs(families.TRANSPOSED, "input transposed"),
    in_inputs(families.SHIFTED, "input shifted by one"),
    in_inputs(families.LAST_TILE, "input's last tile ignored"),
    in_inputs(Family("input with channels last", arrays.channels_last, arrays.both(on_map, several_channels))),
    with_noise("noise left out", 0),
    with_noise("noise taken off", -1),
    in_parameter_gradients("averaged over the batch", lambda g, x: g / len(x), several_images),
    in_parameter_gradients("added twice", lambda g, x: 2 * g),
    mistake("", "only image 0", "backward", only_image_0, has_images),
    in_upstream("dy of ones", np.ones_like),
    reads("parameters confused", "both", lambda m, p, *io: (m, confused(p, *pairs(m)[0]), *io), has_pairs),
    writes("parameters confused", "backward", confused_gradients, has_pairs),
    writes("first parameter forgotten", "backward", first_forgotten, has_parameters),
    writes("missing residual", "forward", unconnected, is_residual),
    writes("missing residual", "backward", unconnected_gradient, is_residual),
]
HELD_OUT = [
    *(plant(family) for plant in (in_outputs, in_input_gradients) for family in RESULTS_HELD_OUT),
    in_input_gradients(Family("of inputs averaged over the batch", lambda g: g / len(g), several_images)),
    in_inputs(Family("input in bfloat16", arrays.in_bfloat16, on_map)),
    in_inputs(families.NEIGHBOUR),
    in_inputs(families.IMAGE_0_FOR_ALL),
    in_parameter_gradients("in bfloat16", lambda g, x: arrays.in_bfloat16(g)),
    in_parameter_gradients("of square weights transposed", square_transposed),
    reads("parameters in bfloat16", "both", lambda m, p, *io: (m, each(p, arrays.in_bfloat16), *io), has_parameters),
    in_upstream("dy in bfloat16", arrays.in_bfloat16),
    in_upstream("dy of image 0 for all", arrays.image_0_for_all, has_images),
    masked_late("mask begins a position late", 1),
    masked_late("no mask", arrays.TILE**2),
]


def shuffled(a: Array) -> Array:
    """Shuffle channels in two groups the wrong way round."""
    halves = a.reshape(len(a), 2, a.shape[1] // 2, *a.shape[2:]).swapaxes(1, 2)
    return halves.reshape(a.shape)


def even_channels(a: Array, *_: Any) -> bool:
    return a.ndim > 1 and a.shape[1] > 3 and a.shape[1] % 2 == 0


CHANNELS_SHUFFLED = Family("channels shuffled the wrong way round", shuffled, even_channels)
ROWS_REVERSED = Family("rows in reverse", lambda a: a[:, :, ::-1].copy(), arrays.longer(2))
READ_AS_NHWC = Family("NHWC read as NCHW", arrays.channels_last, arrays.both(on_map, several_channels))


def all_twice(results: Arrays, *_: Any) -> Arrays:
    return {name: 2 * g for name, g in results.items() if name.endswith(".grad")}


ADDED = [
    *(plant(ROWS_REVERSED) for plant in (in_outputs, in_input_gradients)),
    in_inputs(ROWS_REVERSED, "input with rows in reverse"),
    *(plant(CHANNELS_SHUFFLED) for plant in (in_outputs, in_input_gradients)),
    *(plant(READ_AS_NHWC) for plant in (in_outputs, in_input_gradients)),
    in_inputs(CHANNELS_SHUFFLED, "input's channels shuffled the wrong way round"),
    in_upstream("dy read as NHWC", arrays.channels_last, lambda m, p, i, u: all(map(READ_AS_NHWC.when, u.values()))),
    in_upstream(
        "dy with height and width exchanged",
        arrays.transposed,
        lambda m, p, i, u: all(map(families.TRANSPOSED.when, u.values())),
    ),
    in_input_gradients(Family("of inputs added twice", lambda g: 2 * g, always)),
    in_input_gradients(Family("of inputs lost", np.zeros_like, always)),
    writes("all added twice, as if accumulated over two calls", "backward", all_twice),
    in_upstream("dy averaged over the batch", lambda dy: dy / len(dy), has_images),
    in_parameter_gradients("lost", lambda g, x: np.zeros_like(g)),
]
