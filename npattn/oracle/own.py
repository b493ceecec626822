"""What a caller gives a golden case in place of what is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from npattn.calls import find_sizes
from npattn.module import Module, as_tuple
from npattn.oracle.formats import Format
from npattn.oracle.tensors import Change, read_inputs, read_params, read_upstream, round_arrays

__all__ = ["DEFAULT_SIZES", "Own", "exact_names", "read_own"]

DEFAULT_SIZES = {"batch": 1, "height": 16, "width": 16}
"""Those of a case for which nothing else is said."""


class Own(NamedTuple):
    """What a caller gives in place of what is drawn.

    Attributes
    ----------
    arrays : dict of dict of numpy.ndarray, float64
        Numbers that the format holds, by "inputs", "params" and "upstream", where they are given, and by name.
    rounded : dict of Change
        By both: ``"inputs/x"``.
    sizes : dict of int
        Batch, height and width.
    outputs : dict of tuple of int
        Shapes of the outputs, by name.
    """

    arrays: dict[str, dict[str, np.ndarray]]
    rounded: dict[str, Change]
    sizes: dict[str, int]
    outputs: dict[str, tuple[int, ...]]


def read_own(module: Module, format: Format, asked: Mapping[str, int | None], given: Mapping[str, Any]) -> Own:
    """Read and check what a caller gives, of inputs, params and upstream; round it to the format."""
    arrays = {} if given["inputs"] is None else {"inputs": read_inputs(module, given["inputs"])}
    if given["params"] is not None:
        arrays["params"] = read_params(module, given["params"])
    if "inputs" in arrays:
        outputs = shapes_of_outputs(module, arrays)  # a run, which refuses inputs that no sizes make
        sizes = sizes_of_inputs(module, arrays["inputs"], asked)
    else:
        sizes = DEFAULT_SIZES | {size: number for size, number in asked.items() if number is not None}
        outputs = module.output_shapes(*sizes.values())
    if given["upstream"] is not None:
        arrays["upstream"] = read_upstream(given["upstream"], outputs)
    rounded = {group: round_arrays(named, format) for group, named in arrays.items()}
    # Labels, lengths and the like are no numbers of the format: rounded they would be others.
    for name in exact_names(module, arrays.get("inputs", {})):
        require_exact(name, arrays["inputs"][name])
        rounded["inputs"][0][name] = arrays["inputs"][name]
        rounded["inputs"][1].pop(name, None)
    return Own(
        {group: named for group, (named, _) in rounded.items()},
        {f"{group}/{name}": change for group, (_, changes) in rounded.items() for name, change in changes.items()},
        sizes,
        outputs,
    )


def exact_names(module: Module, inputs: Mapping[str, np.ndarray]) -> list[str]:
    """List the inputs without a gradient that hold whole numbers."""
    return [name for name, x in inputs.items() if name in module.without_gradient and (x == np.rint(x)).all()]


def require_exact(name: str, x: np.ndarray) -> None:
    """Refuse whole numbers that a case, whose arrays are of float32, can't hold."""
    other = x[(x.astype(np.float32) != x) & np.isfinite(x)]
    if other.size:
        raise ValueError(
            f"golden: inputs[{name!r}] holds {int(other.flat[0])}, which is no number of float32; expected whole "
            "numbers up to 2**24, as a case hands its inputs over in float32"
        )


def sizes_of_inputs(
    module: Module, inputs: Mapping[str, np.ndarray], asked: Mapping[str, int | None]
) -> dict[str, int]:
    """Find batch, height and width of inputs; what is asked for besides may be other sizes of the same shapes."""
    found = dict(zip(DEFAULT_SIZES, find_sizes(module, list(inputs.values())), strict=True))
    wanted = found | {size: number for size, number in asked.items() if number is not None}
    shapes = {name: tuple(shape) for name, shape in module.input_shapes(*wanted.values()).items()}
    if wanted == found or shapes == {name: x.shape for name, x in inputs.items()}:
        return wanted
    size = next(size for size in wanted if wanted[size] != found[size])
    given = ", ".join(f"{name} of shape {x.shape}" for name, x in inputs.items())
    raise ValueError(
        f"golden: {size}={wanted[size]}, but inputs are {given}, of {size} {found[size]}: leave {size} out, or give "
        "inputs of that size"
    )


def shapes_of_outputs(module: Module, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, tuple[int, ...]]:
    """Find the outputs' shapes for inputs of the caller's, which may be as no size says, by a run."""
    params = arrays.get("params") or module.init(generic=True)
    with np.errstate(all="ignore"):
        output = module(params, *arrays["inputs"].values()).output
    several = isinstance(output, tuple)
    return {f"output.{i}" if several else "output": y.shape for i, y in enumerate(as_tuple(output))}
