"""What is validated of a call: inputs, of whatever rank, and parameters."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from npattn.array_checks import check_array, check_map, require_inputs
from npattn.state_dicts import check_parameter_names, check_parameter_shapes
from npattn.typing import Array, Params
from npattn.wording import brief, channel_hint, describe_type

if TYPE_CHECKING:
    from npattn.module import Module

__all__ = [
    "as_tuple",
    "check_axes",
    "check_inputs",
    "check_params",
    "check_takes",
    "declared_shapes",
    "find_sizes",
    "leading_input",
    "require_several_images",
    "takes_heads",
    "takes_maps",
]

PROBE = 1009, 1013, 1019
"""Batch, height and width that no shape has by itself, so that what they become is known again."""
MAX_RATIO = 64
"""Times that a size may be larger than the length of an axis that is made of it."""
SIZES = "batch", "height", "width"


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return `value` if it is a tuple, else the tuple of it alone."""
    return value if isinstance(value, tuple) else (value,)


def leading_input(module: Module, inputs: Sequence[Array], params: Params | None = None) -> tuple[str, Array]:
    """Return the name and array that all others are to agree with: the first input that has a gradient.

    Where none has, and the first holds integers, it is the first parameter.
    """
    pairs = list(zip(module.input_shapes(1, 1, 1), inputs, strict=True))
    leading = next((pair for pair in pairs if pair[0] not in module.without_gradient), pairs[0])
    counts = leading[0] in module.without_gradient and leading[1].dtype.kind in "biu"
    if counts and params and isinstance(params, Mapping):
        return next((f"parameter {name!r}", value) for name, value in params.items())
    return leading


def check_takes(method: str, module: Module, names: Sequence[str], error: Exception) -> None:
    """Say what a method is called with, where an error was raised since it does not take that: not one within it."""
    if isinstance(error, TypeError) and error.__traceback__ is not None and error.__traceback__.tb_next is None:
        raise TypeError(
            f"{module}: {method} can't be called ({error}); expected {method}(self, {', '.join(names)})"
        ) from error


def declared_shapes(
    module: Module, batch: int, height: int, width: int, *, of: str = "input"
) -> dict[str, tuple[int, ...]]:
    """Return what `input_shapes` says, or `output_shapes`, if it is a dict of at least one shape.

    Raises
    ------
    TypeError
        If it is no dict of tuples of integers by name.
    ValueError
        If it is empty.
    """
    try:
        found = getattr(module, f"{of}_shapes")(batch, height, width)
    except TypeError as error:
        check_takes(f"{of}_shapes", module, ("batch", "height", "width"), error)
        raise
    such = f"{{{'x' if of == 'input' else of!r}: (batch, height * width, 16)}}"
    example = f"expected a dict of the shape of each {of} by its name, such as {such}"
    if not isinstance(found, Mapping):
        raise TypeError(f"{module}: {of}_shapes returns {describe_type(found)}; {example}")
    if not found:
        raise ValueError(f"{module}: {of}_shapes returns {{}}, so that there is nothing to compute with; {example}")
    for name, shape in found.items():
        whole = isinstance(shape, (tuple, list)) and all(isinstance(n, Integral) for n in shape)
        if not (whole and isinstance(name, str)):
            raise TypeError(f"{module}: {of}_shapes returns {brief({name: shape})}; {example}")
    return dict(found)


def check_inputs(module: Module, inputs: tuple[Array, ...]) -> None:
    """Refuse inputs that are not what a module's `input_shapes` lists.

    Raises
    ------
    TypeError
        If their number is wrong, or one is no array, not of floating-point numbers, or differs from the others in
        dtype or in kind of array; or if the names of those without a gradient are one string.
    ValueError
        If a shape is wrong.
    """
    declared = declared_shapes(module, *PROBE)
    if isinstance(module.without_gradient, str):
        name = module.without_gradient
        raise TypeError(f"{module}: without_gradient is the str {name!r}; expected a tuple of names: ({name!r},)")
    require_inputs(module, inputs, list(declared))
    like_name, like = leading_input(module, inputs)
    for name, x in zip(declared, inputs, strict=True):
        constant = name in module.without_gradient
        check_array(module, name, x, like_name, like, counts=constant, constant=constant)
    name, shape = next(iter(declared.items()))
    if is_map(shape):
        if inputs[0].ndim != 4 and has_default_shapes(module):
            raise ValueError(
                f"{module}: {name} has shape {inputs[0].shape}; expected 4 axes, (batch, channels, height, width), "
                f"unless {type(module).__name__} says otherwise: override input_shapes(batch, height, width)"
            )
        check_map(module, name, inputs[0])
    else:
        for name, x in zip(declared, inputs, strict=True):
            if x.ndim != len(declared[name]):
                raise ValueError(f"{module}: {name} has shape {x.shape}; expected {describe_axes(module, name)}")
    expected = module.expected_shapes(inputs)
    for name, x in zip(declared, inputs, strict=True):
        if tuple(x.shape) != tuple(expected[name]):
            # A map of a size that is a hyperparameter.
            other_channels = x is inputs[0] and x.ndim == 4 and x.shape[1] != expected[name][1]
            raise ValueError(
                f"{module}: {name} has shape {x.shape}; expected {expected[name]}"
                + (channel_hint(name, x.shape, expected[name]) if is_map(declared[name]) or other_channels else "")
            )


def check_axes(module: Module, inputs: tuple[Array, ...], axes: Mapping[str, Sequence[str]]) -> None:
    """Refuse inputs that are not what a module's `expected_shapes` lists, and say what their axes are.

    Parameters
    ----------
    module : Module
    inputs : tuple of array
        All of the first one's dtype, those without a gradient too.
    axes : mapping of str to sequence of str
        What the axes of each input are called, by its name.

    Raises
    ------
    TypeError, ValueError
        As `check_inputs` raises them.
    """
    names = list(module.input_shapes(1, 1, 1))
    require_inputs(module, inputs, names)
    given = dict(zip(names, inputs, strict=True))
    for name, a in given.items():
        check_array(module, name, a, names[0], inputs[0], constant=name in module.without_gradient)
        if a.ndim != len(axes[name]):
            raise ValueError(
                f"{module}: {name} has shape {a.shape}; expected {len(axes[name])} axes, ({', '.join(axes[name])})"
                + missing_axes_hint(name, a, axes[name])
            )
    for name, expected in module.expected_shapes(inputs).items():
        shape = tuple(given[name].shape)
        if shape != expected:
            # Where heads stand third, what sizes are read of the others may be wrong too.
            swapped = len(shape) == 4 and shape[1] != expected[1] == shape[2]
            raise ValueError(
                f"{module}: {name} has shape {shape}; expected {expected}: ({', '.join(axes[name])})"
                + (f"; the {axes[name][1].split('_')[-1]} stand third: {name}.swapaxes(1, 2)" if swapped else "")
            )


def missing_axes_hint(name: str, a: Array, axes: Sequence[str]) -> str:
    """Say how an array gets the axes that it lacks, of one image alone or of what serves all images and heads."""
    lacking = len(axes) - a.ndim
    if lacking > 0 and all("1" in axis for axis in axes[:lacking]):
        return f"; what serves all has axes of 1: {name}[{', '.join(['None'] * lacking)}]"
    return f"; a single image needs a batch axis: {name}[None]" if lacking == 1 else ""


def require_several_images(module: Module, x: Array) -> None:
    """Refuse a single image in training, where batch norm stands behind a pool.

    Raises
    ------
    ValueError
    """
    if getattr(module, "training", False) and x.shape[0] < 2:
        raise ValueError(
            f"{module}: x has shape {x.shape}; expected at least two images: in training batch norm behind the pool "
            "takes the variance of one value for each image; give more images, or set training=False"
        )


def is_map(declared: Sequence[int]) -> bool:
    """Tell whether an input, of the probe's sizes, is a map: (batch, channels, height, width)."""
    return len(declared) == 4 and (declared[0], *declared[2:]) == PROBE


def takes_maps(module: Module) -> bool:
    """Tell whether a system's first input is a map of any size.

    Examples
    --------
    >>> import npattn
    >>> [takes_maps(npattn.CATALOGUE[key].example()) for key in ("eca", "sdpa")]
    [True, False]
    """
    return is_map(next(iter(module.input_shapes(*PROBE).values())))


def takes_heads(module: Module) -> bool:
    """Tell whether a system's inputs ``query`` and ``key`` are of shape (batch, heads, positions, channels).

    Examples
    --------
    >>> import npattn
    >>> [takes_heads(npattn.CATALOGUE[key].example()) for key in ("sdpa", "mhsa")]
    [True, False]
    """
    far, near = module.input_shapes(*PROBE), module.input_shapes(1, 1, 1)
    if not {"query", "key"} <= far.keys():
        return False
    varying = [[n != m for n, m in zip(far[name], near[name], strict=True)] for name in ("query", "key")]
    return varying == [[True, False, True, False]] * 2


def has_default_shapes(module: Module) -> bool:
    """Tell whether a system of someone's own has left unsaid what its inputs are."""
    own = not type(module).__module__.startswith("npattn.")
    return own and getattr(type(module).input_shapes, "__module__", "") == "npattn.module"


def describe_axes(module: Module, name: str) -> str:
    """Say how many axes an input has, and what their lengths are made of."""
    far, near = (module.input_shapes(*sizes)[name] for sizes in (PROBE, (1, 1, 1)))
    words = dict(zip(PROBE, SIZES, strict=True)) | {PROBE[1] * PROBE[2]: "height * width"}
    axes = [str(n) if n == m else words.get(n, "...") for n, m in zip(far, near, strict=True)]
    listed = f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"
    return f"{len(axes)} {'axis' if len(axes) == 1 else 'axes'}, {listed}"


def find_sizes(module: Module, inputs: Sequence[Array]) -> tuple[int, int, int]:
    """Find a batch, height and width for which a module's `input_shapes` are those of some inputs.

    Each size is read from an axis that depends on few others, best on it alone. Where only height * width stands in the
    shapes, as in those of tokens, the height is all of it. If no sizes fit, these are some for which most axes do.

    Parameters
    ----------
    module : Module
    inputs : sequence of array
        With as many axes as `input_shapes` has.

    Returns
    -------
    batch, height, width : int

    Examples
    --------
    >>> import npattn, numpy as np
    >>> find_sizes(npattn.HardAttention(channels=3), [np.ones((2, 3, 7, 5)), np.ones((2, 35))])
    (2, 7, 5)
    """

    def lengths(sizes: Sequence[int]) -> list[int]:
        batch, height, width = sizes
        return [length for shape in module.input_shapes(batch, height, width).values() for length in shape]

    def length_with(i: int, axis: int, size: int) -> int:
        return lengths([*sizes[:i], size, *sizes[i + 1 :]])[axis]

    first = inputs[0].shape
    if len(first) == 4 and takes_maps(module):
        return first[0], first[2], first[3]
    given, near, far = [length for x in inputs for length in x.shape], lengths((1, 1, 1)), lengths(PROBE)
    moved = [lengths([far if i == j else 1 for j, far in enumerate(PROBE)]) for i in range(3)]
    needs = [sum(one[axis] != near[axis] for one in moved) for axis in range(len(near))]
    sizes = [1, 1, 1]
    for i, size in enumerate(PROBE):
        axes = [axis for axis in range(len(near)) if moved[i][axis] != near[axis]]
        if not axes:
            continue
        axis = min(axes, key=lambda axis: (needs[axis], far[axis] != size))
        if far[axis] == size:
            sizes[i] = given[axis]
        else:  # made of the size by some formula, which grows with it
            several = range((given[axis] + 1) * MAX_RATIO)
            sizes[i] = bisect.bisect_left(several, given[axis], key=functools.partial(length_with, i, axis))
    return sizes[0], sizes[1], sizes[2]


def check_params(module: Module, params: Params, like_name: str, like: Array) -> None:
    """Refuse parameters and buffers that are not those declared, or no arrays like an input."""
    if not isinstance(params, Mapping):
        raise TypeError(
            f"{module}: params is {describe_type(params)}; expected a mapping of names to arrays, as init() gives"
        )
    expected = check_parameter_names(module, module, params)
    for name, value in params.items():
        check_array(module, f"parameter {name!r}", value, like_name, like)
    check_parameter_shapes(module, module, params, expected)
