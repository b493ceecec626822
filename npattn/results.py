"""What is validated of what a pass returns, and of the gradient that its way back is given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.array_checks import check_gradient, masked
from npattn.typing import Array
from npattn.wording import describe_type, did_you_mean

if TYPE_CHECKING:
    from npattn.module import Module

from npattn.calls import as_tuple

__all__ = ["check_called", "check_gradients", "check_outputs", "check_upstream", "explain_indices", "explain_names"]


def check_outputs(module: Module, output: Any, like_name: str, like: Array) -> Any:
    """Refuse outputs that are no arrays of the input's dtype; return them, of NumPy's scalars the arrays."""
    if isinstance(output, tuple) and not output:
        raise TypeError(f"{module}: forward's output is an empty tuple; expected an array, or a tuple of some")
    found = tuple(np.asarray(y) if isinstance(y, np.generic) else y for y in as_tuple(output))
    for i, y in enumerate(found):
        name = f"output.{i}" if isinstance(output, tuple) else "output"
        several = ", or a tuple of such arrays" if isinstance(y, list) else ""
        require_array(module, f"forward's {name}", y, f"an array like {like_name}{several}")
        if y.dtype != like.dtype:
            raise lifted(module, f"forward's {name}", y, like_name, like)
    return found if isinstance(output, tuple) else found[0]


def require_array(call: Any, name: str, value: Any, expected: str) -> None:
    """Refuse what is no array, or a masked one, and say what makes one of it."""
    if isinstance(value, np.ma.MaskedArray):
        raise masked(f"{call}: {name}")
    if not isinstance(getattr(value, "dtype", None), np.dtype):
        number = ": leave out float() and .item()" if isinstance(value, Real) else ""
        raise TypeError(f"{call}: {name} is {describe_type(value)}; expected {expected}{number}")


def lifted(module: Module, name: str, value: Array, like_name: str, like: Array) -> TypeError:
    """Say what may have given a result another dtype than the input's."""
    scalar = ""
    if np.result_type(value.dtype, like.dtype) == value.dtype:
        scalar = (
            f"; a number or an array in it is {value.dtype}, as np.sqrt(2) is, or of integers: use Python's numbers "
            f"(math.sqrt, float), and arrays like np.where(m, 0.5, 1).astype({like_name}.dtype)"
        )
    return TypeError(f"{module}: {name} has dtype {value.dtype} but {like_name} has {like.dtype}{scalar}")


def explain_indices(module: Module, inputs: Sequence[Any], error: Exception) -> None:
    """Note beside an error about indices, if it is one, that an input without a gradient may come as numbers."""
    names = list(module.input_shapes(1, 1, 1))
    floating = [n for n, x in zip(names, inputs, strict=True) if n in module.without_gradient and x.dtype.kind in "fc"]
    if floating and re.search(r"indices must be|used as indices|according to the rule|as an integer", str(error)):
        name = floating[0]
        error.add_note(
            f"{module}: {name} came as {inputs[names.index(name)].dtype}, as golden cases and checks hand over what "
            f"has no gradient; indices are made of it by {name}.real.astype(int)"
        )


def explain_names(module: Module, error: Exception) -> None:
    """Note beside an error about a name, if it is one, that no parameter or buffer has it."""
    name = error.args[0] if isinstance(error, KeyError) and error.args else None
    declared = [*module.parameter_shapes(), *module.buffer_shapes()]
    if isinstance(name, str) and name not in declared and not getattr(error, "__notes__", []):
        error.add_note(
            f"{module}: params holds no {name!r}, as parameters() and buffers() declare none"
            f"{did_you_mean(name, declared)} (they declare {', '.join(declared) or 'nothing'})"
        )


def check_upstream(module: Module, dy: Any, output: Any) -> Any:
    """Refuse an upstream gradient that is not like the output; return it, an array where a number does for a scalar."""
    gradients, outputs = as_tuple(dy), as_tuple(output)
    if isinstance(dy, tuple) != isinstance(output, tuple) or len(gradients) != len(outputs):
        expected = f"a tuple of {len(outputs)}" if isinstance(output, tuple) else "one array"
        raise ValueError(
            f"{module}: dy is {f'a tuple of {len(gradients)}' if isinstance(dy, tuple) else 'one array'}; "
            f"expected {expected}, as the output"
        )
    names = [f"dy[{i}]" for i in range(len(outputs))] if isinstance(output, tuple) else ["dy"]
    gradients = tuple(
        check_gradient(module, name, gradient, "the output", y)
        for name, gradient, y in zip(names, gradients, outputs, strict=True)
    )
    return gradients if isinstance(output, tuple) else gradients[0]


def check_called(module: Module, dy: Any, error: TypeError) -> None:
    """Say what backward is given, where it raised an error since it does not take that: not one within it."""
    if error.__traceback__ is not None and error.__traceback__.tb_next is None:
        names = ", ".join(f"dy{i}" for i in range(len(as_tuple(dy))))
        several = f", a tuple of {len(dy)}, as the output: ({names}) = dy" if isinstance(dy, tuple) else ""
        raise TypeError(
            f"{module}: backward can't be called ({error}); expected a function of one argument, the gradient of the "
            f"output{several}"
        ) from error


def check_gradients(
    module: Module, found: Any, like_name: str, like: Array, given: Mapping[str, Array]
) -> tuple[Any, Any]:
    """Refuse what is no gradient of every input and a dict of the parameters'; drop those of undifferentiated inputs.

    Raises
    ------
    TypeError
        If backward returns anything else, or another dtype than the input's.
    ValueError
        If a gradient has another shape than what was `given` by its name, or nothing was.
    """
    names = list(module.input_shapes(1, 1, 1))
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
        expected = "dx" if len(names) == 1 else f"({', '.join(f'd{name}' for name in names)})"
        raise TypeError(
            f"{module}: backward returns {describe_type(found)}; expected ({expected}, grads), grads a dict of the "
            "parameters' gradients by name, {} if there are none"
        )
    dx, grads = found
    if isinstance(dx, list) and len(names) > 1:
        raise TypeError(
            f"{module}: backward returns a list of the inputs' gradients; expected a tuple: "
            f"({', '.join(f'd{name}' for name in names)})"
        )
    gradients = tuple(np.asarray(g) if isinstance(g, np.generic) else g for g in as_tuple(dx))
    if len(gradients) != len(names):
        raise TypeError(
            f"{module}: backward returns {len(gradients)} gradients of inputs; expected {len(names)}, of "
            f"{', '.join(names)}, None for one that has no gradient"
        )
    gradients = tuple(None if name in module.without_gradient else g for name, g in zip(names, gradients, strict=True))
    named = [*zip(names, gradients, strict=True), *grads.items()]
    for name, gradient in named:
        if gradient is None:
            continue
        require_array(module, f"backward's gradient of {name}", gradient, "an array")
        if gradient.dtype != like.dtype:
            raise lifted(module, f"backward's gradient of {name}", gradient, like_name, like)
        if name not in given:
            declared = ", ".join(module.parameter_shapes()) or "none"
            meant = did_you_mean(name, given.keys() - {*names, *grads})
            raise ValueError(
                f"{module}: backward returns a gradient of {name!r}{meant} (parameters() declares {declared})"
            )
        if gradient.shape != given[name].shape:
            raise ValueError(
                f"{module}: backward returns a gradient of {name} of shape {gradient.shape}; expected "
                f"{given[name].shape}: add up over what it was broadcast to"
            )
    return (gradients if isinstance(dx, tuple) else gradients[0]), grads
