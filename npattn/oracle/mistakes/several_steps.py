"""Mistakes that stand in several steps at once: steps in the wrong order, a factor in the wrong place."""

import functools
from typing import Any

import numpy as np

from npattn import ops
from npattn.module import Module
from npattn.ops.elementwise import ACTIVATIONS as BY_NAME
from npattn.oracle.mistakes.elementwise import logistic
from npattn.oracle.mistakes.forwarding import with_steps
from npattn.oracle.mistakes.mistake import Apply, Arrays, Mistake, mistake
from npattn.oracle.mistakes.planting import Run, answering, completed
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def pools_networks(module: Module, *_: Any) -> bool:
    """Whether the sum of a network's answers for several pools goes through a sigmoid."""
    gated = getattr(module, "key", None) in {"cbam", "cbam-channel", "flexible", "flexible-segmentation"}
    return gated and len(getattr(module, "pools", "ab")) > 1


def is_scaled(module: Module, *_: Any) -> bool:
    """Whether what is added to the map is scaled by one learnt number."""
    return any(name.split(".")[-1] == "gamma" for name in module.parameter_shapes())


def part_pools(z: Array, u: Array) -> Any:
    """Part rows into one block for each pool; None where there are not several."""
    return u.reshape(-1, *z.shape) if z.ndim == 2 and len(u) > len(z) and len(u) % len(z) == 0 else None


def sigmoid_first(run: Run, *given: Any, mean: bool = False) -> Arrays:
    """Take the sigmoid of each pool's answer, and add up the gates, or average them."""
    left = {}

    def spoil(primitive, arguments, options):
        if primitive is ops.linear:
            left["u"], back = primitive(*arguments, **options)

            def back_linear(dz):
                return back(left.pop("du", dz))

            return left["u"], back_linear
        blocks = part_pools(arguments[0], left["u"]) if primitive is ops.sigmoid and "u" in left else None
        if blocks is None:
            return NotImplemented
        s, factor = logistic(blocks), 1 / len(blocks) if mean else 1

        def back_sigmoid(da):
            left["du"] = (s * (1 - s) * da * factor).reshape(-1, s.shape[-1])
            return np.zeros_like(da)

        return s.sum(axis=0) * factor, back_sigmoid

    with answering(spoil):
        return run(*given)


def pools_added_first(
    run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays, *, mean: bool = False
) -> Arrays:
    """Send the sum of the pools, or their mean, through the network, once."""
    batch = len(next(iter(inputs.values())))
    first: list[bool] = []

    def spoil(primitive, arguments, options):
        x = arguments[0]
        if primitive is not ops.linear or len(x) == batch:
            return NotImplemented
        if not first:
            first.append(True)
            factor = batch / len(x) if mean else 1
            summed = np.concatenate([factor * x.reshape(-1, batch, x.shape[1]).sum(axis=0)] * (len(x) // batch))
            y, back = primitive(summed, *arguments[1:], **options)

            def back_first(dz):
                dx, *rest = back(dz)
                total = factor * dx.reshape(-1, batch, dx.shape[1]).sum(axis=0)
                return np.concatenate([total] * (len(x) // batch)), *rest

            return y, back_first
        y, back = primitive(*arguments, **options)
        own = (np.arange(len(y)) < batch).astype(y.dtype)[:, None]
        return y * own, lambda dz: back(dz * own)

    with answering(spoil):
        return run(module, params, inputs, upstream)


pools_averaged_first = functools.partial(pools_added_first, mean=True)


def residual_scaled(run: Run, *given: Any, scale: Apply = lambda gamma: gamma, slope: float = 1) -> Arrays:
    """Scale the map that is added as well, by a function of γ."""
    left = {}

    def spoil(primitive, arguments, options):
        if primitive is ops.gate and arguments[1].size == 1:
            y, back = primitive(*arguments, **options)
            left["gamma"] = arguments[1]

            def back_gate(de):
                dx, da = back(de)
                return dx, da + left.pop("more", 0)

            return y, back_gate
        if primitive is not ops.add or "gamma" not in left or len(arguments) != 2:
            return NotImplemented
        x, e = arguments
        gamma = left.pop("gamma")

        def back_add(dy):
            left["more"] = slope * (dy * x).sum()
            return dy * scale(gamma), dy

        return scale(gamma) * x + e, back_add

    with answering(spoil):
        return run(*given)


def scales_branch(module: Module, *_: Any) -> bool:
    """Whether a map and a branch that is scaled by γ are the output."""
    return getattr(module, "key", None) in ("pam", "cam")


def of_the_sum(run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    """Make γ's gradient of the output."""
    results = run(module, params, inputs, upstream)
    ((output, dy),) = upstream.items()
    return results | {"gamma.grad": (dy * results[output]).sum().reshape(results["gamma.grad"].shape)}


def convex(run: Run, *given: Any) -> Arrays:
    """Scale the map that is added by what is left of 1."""
    return residual_scaled(run, *given, scale=lambda gamma: 1 - gamma, slope=-1)


def norms_and_rectifies(module: Module, *_: Any) -> bool:
    """Whether batch norm stands before a ReLU."""
    return any(name.endswith("running_mean") for name in module.buffer_shapes())


def activation_before_norm(run: Run, *given: Any, activation: Apply = ops.relu) -> Arrays:
    """Let the activation that follows a batch norm stand before it."""
    waiting = []

    def spoil(primitive, arguments, options):
        if primitive is ops.batch_norm:
            x, *others = arguments
            active, back_activation = activation(x)
            value, back = primitive(active, *others, **options)
            waiting.append(value[0])

            def back_norm(dy):
                dx, *rest = back(dy)
                return back_activation(dx), *rest

            return value, back_norm
        if primitive is activation and any(arguments[0] is y for y in waiting):
            return arguments[0] * 1.0, lambda dy: dy
        return NotImplemented

    with answering(spoil):
        return run(*given)


def fits_output(module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> bool:
    """Whether the output has the shape of the first input."""
    return len(upstream) == 1 and next(iter(inputs.values())).shape == next(iter(upstream.values())).shape


def input_added(run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    """Add the input to the output, as a block around the system does."""
    (name, x), (output, dy) = next(iter(inputs.items())), next(iter(upstream.items()))
    results = run(module, params, inputs, upstream)
    return results | {output: results[output] + x, f"{name}.grad": results[f"{name}.grad"] + dy}


ACTIVATIONS = tuple(BY_NAME.values())


def bias_behind_activation(*_: Any) -> Apply:
    """Add a layer's bias to what its activation gives."""
    waiting = []

    def answer(primitive, arguments, options):
        if primitive in (ops.linear, ops.conv2d):
            bias = completed(primitive, arguments, options)[0][2]
            if bias is None:
                return NotImplemented
            y = primitive(*arguments, **options)[0]
            waiting.append((y, bias.reshape(bias.shape + (1,) * (y.ndim - 2))))
            return y
        found = next((bias for y, bias in waiting if y is arguments[0]), None) if primitive in ACTIVATIONS else None
        return NotImplemented if found is None else primitive(arguments[0] - found, **options)[0] + found

    return answer


def activates_biased(module: Module, *_: Any) -> bool:
    """Whether there are layers with biases, of which one stands behind an activation and not behind a norm."""
    biases = [name for name in module.parameter_shapes() if name.endswith("bias")]
    return len(biases) > 1 and not norms_and_rectifies(module)


TUNED_ON: list[Mistake] = []
HELD_OUT: list[Mistake] = []
ADDED = [
    mistake("", "sigmoid before the sum of the pools", "carried", sigmoid_first, pools_networks),
    mistake("", "pools added before the shared layers", "carried", pools_added_first, pools_networks),
    mistake("", "mean of the pools' sigmoids", "carried", functools.partial(sigmoid_first, mean=True), pools_networks),
    mistake("", "pools averaged before the shared layers", "carried", pools_averaged_first, pools_networks),
    mistake("", "γ on the residual as well", "carried", residual_scaled, is_scaled),
    mistake("", "1 - γ on the residual", "carried", convex, is_scaled),
    mistake("", "ReLU before batch norm", "carried", activation_before_norm, norms_and_rectifies),
    mistake(
        "",
        "hard swish before batch norm",
        "carried",
        functools.partial(activation_before_norm, activation=ops.hard_swish),
        norms_and_rectifies,
    ),
    mistake("", "input added to the output", "carried", input_added, fits_output),
    *with_steps("bias added behind the activation", bias_behind_activation, activates_biased),
    mistake("", "of γ made of the sum with the map, not of what γ scales", "backward", of_the_sum, scales_branch),
]
