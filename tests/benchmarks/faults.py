"""Planted faults for the judge to find: mistakes that kernels are known to make, each put into one step of a system.

Most stand in a primitive, in forward (the value, or what it is computed from) or in backward (a gradient); the rest
concern the results of a whole pass. A faulty step takes the place of the primitive in one of its calls, so a system's
own code runs around it on any kind of number.
"""

import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from npattn import ops
from npattn.module import as_tuple
from npattn.ops.weighting import softmax

__all__ = ["FAULTS", "HELD_OUT", "Fault", "faulty", "sites"]

TILE = 16
"""Positions that a kernel takes at once; what is left over at the end needs a mask."""


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes
    ----------
    name : str
    way : str
        "forward", "backward", or "both".
    primitive : str
        The primitive it stands in; empty if it concerns a whole pass.
    apply : callable
        For a primitive ``apply(primitive, *args, **options)``, which returns value and backward as the primitive does.
        For a pass ``apply(run, module, params, inputs, upstream)``, which returns named results; `run` takes the same
        from `module` on and runs the pass as it should be.
    when : callable
        Takes the same arguments without the first: whether there is anything to get wrong.
    """

    name: str
    way: str
    primitive: str
    apply: Callable[..., Any]
    when: Callable[..., bool]

    def __str__(self):
        return f"{self.primitive or 'pass'}: {self.name}"


FAULTS: list[Fault] = []


def always(*_, **__):
    return True


def fault(name, way, primitive="", when=always):
    """Add a function to the faults."""

    def add(function):
        FAULTS.append(Fault(name, way, primitive, function, when))
        return function

    return add


def calls(name, primitive, change, when=always, way="forward"):
    """Let a primitive compute its value from other arguments; its backward is right unless `way` is "both".

    `change` takes the arguments, and returns those that are different, by name or position.
    """

    @fault(name, way, primitive, when)
    def apply(original, *args, **options):
        changed = change(*args, **options)
        others = [changed.get(i, a) for i, a in enumerate(args)]
        named = options | {k: v for k, v in changed.items() if isinstance(k, str)}
        wrong, back_wrong = original(*others, **named)
        return wrong, back_wrong if way == "both" else original(*args, **options)[1]


def values(name, primitive, change, when=always):
    """Change a primitive's value: ``change(value, *args, **options)``."""

    @fault(name, "forward", primitive, when)
    def apply(original, *args, **options):
        value, backward = original(*args, **options)
        return change(value, *args, **options), backward


def gradients(name, primitive, change, when=always):
    """Change a primitive's gradients: ``change(gradients, dy, *args, **options)``, with a tuple of gradients."""

    @fault(f"gradient: {name}", "backward", primitive, when)
    def apply(original, *args, **options):
        value, backward = original(*args, **options)

        def wrong(*dy, accumulate_into=None):
            right = backward(*dy)
            found = change(as_tuple(right), dy[0] if len(dy) == 1 else dy, *args, **options)
            if not isinstance(right, tuple):
                return found[0] if accumulate_into is None else accumulate_into + found[0]
            return found

        return value, wrong


# Parts that faults are made of


def replaced(items, **changes):
    """Replace some items of a tuple: ``_0=...`` the first."""
    return tuple(changes.get(f"_{i}", item) for i, item in enumerate(items))


def padded(n):
    """Round a number of positions up to whole tiles."""
    return -(-n // TILE) * TILE


def has_tail(n):
    """Whether there is a tile that is not full, behind full ones."""
    return n > TILE and n % TILE > 0


def without_tail(a, axes=2):
    """Set what stands in the tile that is not full to 0, among positions on the last axes."""
    return without_last(a, axes, np.prod(a.shape[-axes:], dtype=int) % TILE)


def without_last(a, axes=2, count=1):
    changed = a.copy()
    flat = changed.reshape(*a.shape[:-axes], -1)
    flat[..., flat.shape[-1] - int(count) :] = 0
    return flat.reshape(a.shape)


def positions(a):
    return a.shape[-1] * a.shape[-2]


def on_map(x, *_, **__):
    return x.ndim == 4 and positions(x) > 1


def tail_of_map(x, *_, **__):
    return x.ndim == 4 and has_tail(positions(x))


def several_images(x, *_, **__):
    return len(x) > 1


def transposed(a):
    """Write a map as if height and width were the other way round."""
    return a.swapaxes(2, 3).reshape(a.shape)


def is_wide(a):
    return a.ndim == 4 and min(a.shape[2:]) > 1


def without_last_channel(a):
    changed = a.copy()
    changed[:, -1] = 0
    return changed


def first_image(a):
    """Keep the first image of a gradient, none of the others."""
    changed = np.zeros_like(a)
    changed[:1] = a[:1]
    return changed


def only_first_image(primitive, parameters):
    """Parameters' gradients from the first image alone."""

    @fault("gradient: only image 0", "backward", primitive, several_images)
    def apply(original, *args, **options):
        value, backward = original(*args, **options)

        def wrong(dy):
            right, few = backward(dy), backward(first_image(dy))
            return tuple(few[i] if i in parameters else gradient for i, gradient in enumerate(right))

        return value, wrong


# Convolutions and linear layers


def kernel_size(weight):
    return weight.shape[2] * weight.shape[3]


def zero_bias(original, *args, **options):
    """Leave the bias out of the value, wherever it stands among the arguments."""
    value, backward = original(*args, **options)
    bias = options.get("bias", args[2] if len(args) > 2 else None)
    return value - bias.reshape(bias.shape + (1,) * (value.ndim - 2)), backward


def biased(x, weight=None, bias=None, **_):
    return bias is not None


def summed_bias(x, *args, **options):
    return biased(x, *args, **options) and x.size > x.shape[1]


for name in ("conv2d", "linear"):
    fault("lost bias", "forward", name, biased)(zero_bias)
    only_first_image(name, {1, 2})
    gradients("dx dropped", name, lambda g, dy, *_, **__: replaced(g, _0=np.zeros_like(g[0])))
    gradients(
        "bias averaged, not summed",
        name,
        lambda g, dy, *_, **__: replaced(g, _2=g[2] / (dy.size // dy.shape[1])),
        summed_bias,
    )
    gradients(
        "of the bias from one position of the last image",
        name,
        lambda g, dy, *_, **__: replaced(g, _2=dy[-1].reshape(dy.shape[1], -1)[:, -1]),
        summed_bias,
    )


def weight_of(args, options):
    return options.get("weight", args[1] if len(args) > 1 else None)


def with_weight(name, way, change, when):
    """A convolution with another kernel: in its value, or in what its dx is computed from."""

    def allowed(x, *args, **options):
        return when(weight_of((x, *args), options), x)

    @fault(name if way == "forward" else f"gradient: {name}", way, "conv2d", allowed)
    def apply(original, *args, **options):
        value, backward = original(*args, **options)
        weight = change(weight_of(args, options))
        if "weight" in options:
            other, back_other = original(*args, **options | {"weight": weight})
        else:
            other, back_other = original(args[0], weight, *args[2:], **options)
        if way == "forward":
            return other, backward
        return value, lambda dy: (back_other(dy)[0], *backward(dy)[1:])


def flipped(weight):
    return weight[:, :, ::-1, ::-1].copy()


for way in ("forward", "backward"):
    with_weight("flipped kernel", way, flipped, lambda w, x: kernel_size(w) > 1)
    with_weight("transposed weights", way, lambda w: w.swapaxes(0, 1).copy(), lambda w, x: 1 < len(w) == w.shape[1])
with_weight(
    "transposed kernel", "forward", lambda w: w.swapaxes(2, 3).copy(), lambda w, x: w.shape[2] == w.shape[3] > 1
)
with_weight("last input channel forgotten", "forward", without_last_channel, lambda w, x: w.shape[1] > 1)

values("last tile ignored", "conv2d", lambda y, *_, **__: without_tail(y), tail_of_map)
values("last position forgotten", "conv2d", lambda y, *_, **__: without_last(y), on_map)
values("transposed map", "conv2d", lambda y, *_, **__: transposed(y), lambda x, *_, **__: is_wide(x))


def weight_gradient(name, change, when):
    @fault(f"gradient: {name}", "backward", "conv2d", when)
    def apply(original, *args, **options):
        value, backward = original(*args, **options)

        def wrong(dy):
            dx, _, *rest = backward(dy)
            return dx, backward(change(dy))[1], *rest

        return value, wrong


weight_gradient("last tile ignored", without_tail, tail_of_map)
weight_gradient("last position forgotten", without_last, on_map)

calls("flipped kernel", "conv1d", lambda x, w: {1: w[..., ::-1].copy()}, lambda x, w: w.size > 1)
calls("shifted by one", "conv1d", lambda x, w: {1: np.roll(w, 1, axis=-1)}, lambda x, w: w.size > 1)


@fault("gradient: kernel not flipped", "backward", "conv1d", lambda x, w: w.size > 1)
def unflipped(original, x, weight):
    value, backward = original(x, weight)
    other = original(x, weight[..., ::-1].copy())[1]
    return value, lambda dz: (other(dz)[0], backward(dz)[1])


gradients("dx dropped", "conv1d", lambda g, dz, x, w: replaced(g, _0=np.zeros_like(g[0])))
gradients("taps in the wrong order", "conv1d", lambda g, dz, x, w: replaced(g, _1=g[1][..., ::-1]))
only_first_image("conv1d", {1})


# Pools


def count_over(x, axis):
    axes = axis if isinstance(axis, tuple) else (axis,)
    return int(np.prod([x.shape[i] for i in axes]))


def averaged(x, axis=(2, 3)):
    return count_over(x, axis)


def pooled_several(x, axis=(2, 3), **_):
    return count_over(x, axis) > 1


for name in ("global_average_pool", "average_pool"):
    values("sum for mean", name, lambda p, x, axis=(2, 3): p * averaged(x, axis), pooled_several)
    values(
        "divided by N - 1",
        name,
        lambda p, x, axis=(2, 3): p * (averaged(x, axis) / (averaged(x, axis) - 1)),
        pooled_several,
    )
    values(
        "divided by the padded size",
        name,
        lambda p, x, axis=(2, 3): p * (averaged(x, axis) / padded(averaged(x, axis))),
        lambda x, axis=(2, 3): averaged(x, axis) % TILE > 0,
    )
    gradients("not divided by N", name, lambda g, dp, x, axis=(2, 3): (g[0] * averaged(x, axis),), pooled_several)
    gradients(
        "divided by N - 1",
        name,
        lambda g, dp, x, axis=(2, 3): (g[0] * (averaged(x, axis) / (averaged(x, axis) - 1)),),
        pooled_several,
    )
    gradients("dropped", name, lambda g, dp, x, axis=(2, 3): (np.zeros_like(x),))
calls("last tile ignored", "global_average_pool", lambda x: {0: without_tail(x)}, tail_of_map)
calls("last position forgotten", "global_average_pool", lambda x: {0: without_last(x)}, on_map)
gradients("last tile ignored", "global_average_pool", lambda g, dp, x: (without_tail(g[0]),), tail_of_map)


def masked_low(x):
    """Positions of the last tile below all others, so that no maximum stands there."""
    changed = x.copy()
    flat = changed.reshape(*x.shape[:2], -1)
    flat[..., flat.shape[-1] // TILE * TILE :] = -1e4
    return flat.reshape(x.shape)


def last_maximum(x, axes):
    """Put 1 where the last maximum stands among the axes, which are flattened, else 0."""
    flat = x.reshape(*x.shape[:2], -1) if axes == (2, 3) else np.moveaxis(x, axes[0], -1)
    hit = np.zeros_like(flat)
    last = flat.shape[-1] - 1 - flat[..., ::-1].argmax(axis=-1, keepdims=True)
    np.put_along_axis(hit, last, 1, axis=-1)
    return hit.reshape(x.shape) if axes == (2, 3) else np.moveaxis(hit, -1, axes[0])


def spread_out(dp, x):
    return dp[:, :, None, None] if dp.ndim == 2 else dp


for name in ("global_max_pool", "max_pool"):
    gradients(
        "to the last maximum",
        name,
        lambda g, dp, x, axis=None: (spread_out(dp, x) * last_maximum(x, (2, 3) if axis is None else (axis,)),),
    )
    gradients("to all", name, lambda g, dp, x, axis=None: (np.zeros_like(x) + spread_out(dp, x),))
    gradients("dropped", name, lambda g, dp, x, axis=None: (np.zeros_like(x),))
    gradients(
        "one position on",
        name,
        lambda g, dp, x, axis=None: (np.roll(g[0].reshape(*x.shape[:2], -1), 1, axis=-1).reshape(x.shape),),
        lambda x, axis=None: x.size > x.shape[0] * x.shape[1],
    )
    values(
        "mean for maximum",
        name,
        lambda p, x, axis=None: x.mean(axis=(2, 3)) if axis is None else x.mean(axis=axis, keepdims=True),
        lambda x, axis=None: count_over(x, (2, 3) if axis is None else axis) > 1,
    )
    values("magnitudes compared", name, lambda p, x, axis=None: magnitudes(x, axis))
calls("last tile ignored", "global_max_pool", lambda x: {0: masked_low(x)}, tail_of_map)


def magnitudes(x, axis):
    size = np.maximum(x, -x)
    return size.max(axis=(2, 3)) if axis is None else size.max(axis=axis, keepdims=True)


values("no root", "global_lp_pool", lambda p, x: p * p)
values("mean, not sum", "global_lp_pool", lambda p, x: p / positions(x) ** 0.5, on_map)
gradients("not divided by the norm", "global_lp_pool", lambda g, dp, x: (x * dp[:, :, None, None],))
gradients("twice", "global_lp_pool", lambda g, dp, x: (2 * g[0],))
values("mean, not sum", "global_lse_pool", lambda p, x: p - math.log(positions(x)), on_map)
values("no logarithm", "global_lse_pool", lambda p, x: np.exp(p))
gradients("of the maximum", "global_lse_pool", lambda g, dp, x: (spread_out(dp, x) * last_maximum(x, (2, 3)),))
gradients("not normalised", "global_lse_pool", lambda g, dp, x: (np.exp(x) * dp[:, :, None, None],))

# Functions of one number

values("left out", "relu", lambda y, x: x)
values("a slope below zero", "relu", lambda y, x: y + 0.01 * (x - y))
gradients("left out", "relu", lambda g, dy, x: (dy,))
gradients("a slope below zero", "relu", lambda g, dy, x: (g[0] + 0.01 * (dy - g[0]),))
gradients("mask of dy", "relu", lambda g, dy, x: (np.where(dy.real > 0, dy, 0),))


def logistic(x):
    return 1 / (1 + np.exp(-x))


values("hard sigmoid", "sigmoid", lambda y, x: ops.hard_sigmoid(x)[0])
values("hyperbolic tangent", "sigmoid", lambda y, x: np.tanh(x))
gradients("y (1 + y)", "sigmoid", lambda g, dy, x: (dy * logistic(x) * (1 + logistic(x)),))
gradients("left out", "sigmoid", lambda g, dy, x: (dy,))
gradients("x (1 - x)", "sigmoid", lambda g, dy, x: (dy * x * (1 - x),))
gradients("1 - y", "sigmoid", lambda g, dy, x: (dy * (1 - logistic(x)),))
values("swish", "hard_swish", lambda y, x: x * logistic(x))
values("gate alone", "hard_swish", lambda y, x: ops.hard_sigmoid(x)[0])
gradients("gate constant", "hard_swish", lambda g, dy, x: (dy * ops.hard_sigmoid(x)[0],))
gradients("no corners", "hard_swish", lambda g, dy, x: (dy * (2 * x + 3) / 6,))

# Gates


def spread_gate(a, x):
    return a.reshape(a.shape + (1,) * (x.ndim - a.ndim))


values("one added", "gate", lambda y, x, a: y + x)
values("applied twice", "gate", lambda y, x, a: y * spread_gate(a, x))
values("left out", "gate", lambda y, x, a: x + np.zeros_like(y))
values(
    "transposed map",
    "gate",
    lambda y, x, a: x * spread_gate(transposed(a), x),
    lambda x, a: a.ndim == 4 and is_wide(a),
)
values(
    "shifted by one",
    "gate",
    lambda y, x, a: x * spread_gate(np.roll(a.reshape(-1), 1).reshape(a.shape), x),
    lambda x, a: a.size > 1,
)
values("last tile ignored", "gate", lambda y, x, a: without_tail(y), tail_of_map)
gradients("gate detached", "gate", lambda g, dy, x, a: replaced(g, _1=np.zeros_like(g[1])))
gradients("x detached", "gate", lambda g, dy, x, a: replaced(g, _0=np.zeros_like(g[0])))
gradients("gate forgotten in dx", "gate", lambda g, dy, x, a: replaced(g, _0=dy.copy()))
gradients(
    "of the output, not of x", "gate", lambda g, dy, x, a: replaced(g, _1=ops.gate(x * spread_gate(a, x), a)[1](dy)[1])
)
gradients(
    "mean for sum",
    "gate",
    lambda g, dy, x, a: replaced(g, _1=g[1] / (x.size // a.size)),
    lambda x, a: x.size > a.size,
)


@fault("gradient: last position forgotten", "backward", "gate", lambda x, a: on_map(x) and a.size < x.size)
def forgetful_gate(original, x, a):
    y, backward = original(x, a)
    return y, lambda dy: (backward(dy)[0], backward(without_last(dy))[1])


@fault("gradient: last tile ignored", "backward", "gate", lambda x, a: tail_of_map(x) and a.size < x.size)
def untiled_gate(original, x, a):
    y, backward = original(x, a)
    return y, lambda dy: (backward(dy)[0], backward(without_tail(dy))[1])


@fault("gradient: only image 0", "backward", "gate", lambda x, a: len(x) > 1 and a.shape[0] != len(x))
def first_gate(original, x, a):
    y, backward = original(x, a)
    return y, lambda dy: (backward(dy)[0], backward(first_image(dy))[1])


# Normalisation


def norm_parts(x, *, running_mean, running_var, training, **_):
    """Return x without its mean, and the variance, as `batch_norm` takes them."""
    mean = x.mean(axis=(0, 2, 3)) if training else running_mean
    centred = x - mean[:, None, None]
    return centred, (centred * centred).mean(axis=(0, 2, 3)) if training else running_var


def norm_value(change):
    """Compute the value from a changed scale: ``change(variance, eps, count)`` returns 1 / √(v + ε)."""

    def value(result, x, **options):
        centred, variance = norm_parts(x, **options)
        scale = change(variance, options.get("eps", 1e-5), x.size // x.shape[1])
        y = centred * (scale * options["weight"])[:, None, None] + options["bias"][:, None, None]
        return y, result[1]

    return value


def in_training(*_, training=False, **__):
    return training


def norm_of_several(x, *_, training=False, **__):
    return training and x.size > 2 * x.shape[1]


values(
    "unbiased variance", "batch_norm", norm_value(lambda v, eps, n: 1 / np.sqrt(v * (n / (n - 1)) + eps)), in_training
)
values("epsilon 1e-3", "batch_norm", norm_value(lambda v, eps, n: 1 / np.sqrt(v + 1e-3)))
values("epsilon beside the root", "batch_norm", norm_value(lambda v, eps, n: 1 / (np.sqrt(v) + eps)))
values("epsilon beside the root, 1e-3", "batch_norm", norm_value(lambda v, eps, n: 1 / (np.sqrt(v) + 1e-3)))
values("no root", "batch_norm", norm_value(lambda v, eps, n: 1 / (v + eps)))
values("lost bias", "batch_norm", lambda r, x, *, bias, **_: (r[0] - bias[:, None, None], r[1]))
calls(
    "running statistics in training",
    "batch_norm",
    lambda *_, **__: {"training": False},
    in_training,
    way="both",
)
calls(
    "statistics of the batch in inference",
    "batch_norm",
    lambda *_, **__: {"training": True},
    lambda x, *_, training=False, **__: not training and x.size > 2 * x.shape[1],
    way="both",
)


def norm_gradient(name, change):
    @fault(f"gradient: {name}", "backward", "batch_norm", norm_of_several)
    def apply(original, x, **options):
        value, backward = original(x, **options)
        centred, variance = norm_parts(x, **options)
        scale = 1 / np.sqrt(variance + options.get("eps", 1e-5))
        count = x.size // x.shape[1]

        def wrong(dy):
            _, dweight, dbias = backward(dy)
            normal = centred * scale[:, None, None]
            shift, stretch = dbias / count, dweight / count
            factor = options["weight"] * scale
            dx = change(dy, normal, shift[:, None, None], stretch[:, None, None], count)
            return dx * factor[:, None, None], dweight, dbias

        return value, wrong


norm_gradient("mean constant", lambda dy, n, shift, stretch, count: dy - n * stretch)
norm_gradient("variance constant", lambda dy, n, shift, stretch, count: dy - shift)
norm_gradient("statistics constant", lambda dy, n, shift, stretch, count: dy)
norm_gradient("unbiased", lambda dy, n, shift, stretch, count: dy - shift - n * (stretch * (count / (count - 1))))
only_first_image("batch_norm", {1, 2})
gradients(
    "of weight from x as it is",
    "batch_norm",
    lambda g, dy, x, *_, **__: replaced(g, _1=(dy * x).sum(axis=(0, 2, 3))),
)

values("epsilon 1e-2", "l2_normalize", lambda u, x, eps=1e-5: x / (length_of(x) + 1e-2))
values("no root", "l2_normalize", lambda u, x, eps=1e-5: x / (length_of(x) ** 2 + eps))
values("mean, not sum", "l2_normalize", lambda u, x, eps=1e-5: u * x.shape[1] ** 0.5, lambda x, *_: x.shape[1] > 1)
gradients("length constant", "l2_normalize", lambda g, du, x, eps=1e-5: (du / (length_of(x) + eps),))
gradients("not divided by the length", "l2_normalize", lambda g, du, x, eps=1e-5: (g[0] * length_of(x),))


def length_of(x):
    return np.sqrt((x * x).sum(axis=1, keepdims=True))


# Softmax and products


def several_weights(x, axis=-1):
    return x.shape[axis] > 1


values(
    "over the wrong axis", "softmax", lambda y, x, axis=-1: softmax(x, axis=axis - 1)[0], lambda x, axis=-1: x.size > 1
)
calls("scaled by 1/√n", "softmax", lambda x, axis=-1: {0: x * x.shape[axis] ** -0.5}, several_weights)
calls("sign lost", "softmax", lambda x, axis=-1: {0: -x}, several_weights)
values("last weight forgotten", "softmax", lambda y, x, axis=-1: without_last(y, 1))
gradients("sum left out", "softmax", lambda g, dy, x, axis=-1: (softmax(x, axis)[0] * dy,))
gradients(
    "diagonal alone", "softmax", lambda g, dy, x, axis=-1: (dy * (w := softmax(x, axis)[0]) * (1 - w),), several_weights
)
gradients(
    "weights forgotten",
    "softmax",
    lambda g, dy, x, axis=-1: (dy - (softmax(x, axis)[0] * dy).sum(axis=axis, keepdims=True),),
)

values(
    "last tile ignored",
    "gram",
    lambda g, a: ops.matmul(without_tail(a, 1), a.swapaxes(-1, -2))[0],
    lambda a: has_tail(a.shape[-1]),
)
values(
    "last position forgotten",
    "gram",
    lambda g, a: ops.matmul(without_last(a, 1), a.swapaxes(-1, -2))[0],
    lambda a: a.shape[-1] > 1,
)
values("scaled", "gram", lambda g, a: g * a.shape[-1] ** -0.5, lambda a: a.shape[-1] > 1)
gradients("one side alone", "gram", lambda g, dg, a: (dg @ a,))
gradients("twice one side", "gram", lambda g, dg, a: (2 * (dg @ a),))
gradients("dropped", "gram", lambda g, dg, a: (np.zeros_like(a),))


def square(a, b):
    return a.shape[-1] == a.shape[-2] > 1


calls("transposed map", "matmul", lambda a, b: {0: a.swapaxes(-1, -2)}, square)
values("last tile ignored", "matmul", lambda c, a, b: without_tail(c, 1), lambda a, b: has_tail(b.shape[-1]))
gradients("left side detached", "matmul", lambda g, dc, a, b: replaced(g, _0=np.zeros_like(a)))
gradients("right side detached", "matmul", lambda g, dc, a, b: replaced(g, _1=np.zeros_like(b)))
gradients("transpose forgotten", "matmul", lambda g, dc, a, b: replaced(g, _1=a @ dc), square)


def attention(q, k, v, scale=1.0, *, weigh=lambda z: softmax(z)[0], gradient=None):
    """Attention with all weights at once, to be spoilt: `weigh` makes weights of logits, `gradient` dz of s and ds."""
    gradient = gradient or (lambda s, ds: s * (ds - (s * ds).sum(axis=-1, keepdims=True)))
    s = weigh(scale * (q.swapaxes(-1, -2) @ k))

    def backward(do):
        ds = do.swapaxes(-1, -2) @ v
        dz = gradient(s, ds)
        return scale * (k @ dz.swapaxes(-1, -2)), scale * (q @ dz), do @ s

    return v @ s.swapaxes(-1, -2), backward


def several_keys(q, k, v, scale=1.0):
    return k.shape[-1] > 1


def spoilt(name, way, when=several_keys, **parts):
    @fault(f"gradient: {name}" if way == "backward" else name, way, "dot_product_attention", when)
    def apply(original, q, k, v, scale=1.0):
        value, backward = original(q, k, v, scale)
        other, back_other = attention(q, k, v, scale, **parts)
        return value if way == "backward" else other, backward if way == "forward" else back_other


def over_queries(z):
    return softmax(z, axis=-2)[0]


def causal(z):
    later = np.arange(z.shape[-1])[None, :] > np.arange(z.shape[-2])[:, None]
    return softmax(np.where(later, -1e4, z))[0]


def with_padding(z):
    """Keys that are not there, with logit 0, in the sum."""
    more = padded(z.shape[-1]) - z.shape[-1]
    wide = np.concatenate([z, np.zeros_like(z, shape=(*z.shape[:-1], more))], axis=-1)
    return softmax(wide)[0][..., : z.shape[-1]]


def stale_maximum(z):
    """Online softmax whose earlier sums are not rescaled when a later tile has a larger maximum."""
    first = z[..., :TILE].max(axis=-1, keepdims=True)
    highest = z.max(axis=-1, keepdims=True)
    early = np.exp(z[..., :TILE] - first)
    late = np.exp(z[..., TILE:] - highest)
    e = np.concatenate([early, late], axis=-1)
    return e / e.sum(axis=-1, keepdims=True)


def key_tile_ignored(z):
    low = z.copy()
    low[..., z.shape[-1] // TILE * TILE :] = -1e4
    return softmax(low)[0]


def many_keys(q, k, v, scale=1.0):
    return has_tail(k.shape[-1])


for way in ("forward", "both"):
    spoilt("softmax over the wrong axis", way, weigh=over_queries)
spoilt("causal mask", "forward", weigh=causal)
spoilt("padded keys counted", "forward", lambda q, k, v, scale=1.0: k.shape[-1] % TILE > 0, weigh=with_padding)
spoilt("stale maximum", "forward", lambda q, k, v, scale=1.0: k.shape[-1] > TILE, weigh=stale_maximum)
spoilt("key tile ignored", "forward", many_keys, weigh=key_tile_ignored)
spoilt("sum left out", "backward", gradient=lambda s, ds: s * ds)
spoilt("mean of ds for its weighted sum", "backward", gradient=lambda s, ds: s * (ds - ds.mean(axis=-1, keepdims=True)))
spoilt("causal mask", "backward", weigh=causal)
calls(
    "transposed map",
    "dot_product_attention",
    lambda q, k, v, scale=1.0: {0: k, 1: q},
    lambda q, k, v, scale=1.0: q.shape == k.shape and k.shape[-1] > 1,
)


def rescaled(name, way, change, when):
    @fault(
        f"gradient: {name}" if way == "backward" else name,
        way,
        "dot_product_attention",
        lambda q, k, v, scale=1.0: k.shape[-1] > 1 and when(q, scale),
    )
    def apply(original, q, k, v, scale=1.0):
        value, backward = original(q, k, v, scale)
        other, back_other = original(q, k, v, change(q, scale))
        return value if way == "backward" else other, backward if way == "forward" else back_other


def scaled(q, scale):
    return scale != 1


def wide_unscaled(q, scale):
    return scale == 1 and q.shape[-2] > 1


for way in ("forward", "backward", "both"):
    rescaled("missing scale", way, lambda q, scale: 1.0, scaled)
rescaled("scale twice", "both", lambda q, scale: scale**2, scaled)
rescaled("scaled by 1/√d", "forward", lambda q, scale: q.shape[-2] ** -0.5, wide_unscaled)
rescaled("scaled by 1/√d", "both", lambda q, scale: q.shape[-2] ** -0.5, wide_unscaled)
gradients(
    "scale missing in dk",
    "dot_product_attention",
    lambda g, do, q, k, v, scale=1.0: replaced(g, _1=g[1] / scale),
    lambda q, k, v, scale=1.0: scale != 1 and k.shape[-1] > 1,
)
gradients(
    "dq and dk swapped",
    "dot_product_attention",
    lambda g, do, q, k, v, scale=1.0: (g[1], g[0], g[2]),
    lambda q, k, v, scale=1.0: q.shape == k.shape and k.shape[-1] > 1,
)
gradients("dk dropped", "dot_product_attention", lambda g, do, *_: replaced(g, _1=np.zeros_like(g[1])), several_keys)
gradients(
    "dv transposed",
    "dot_product_attention",
    lambda g, do, q, k, v, scale=1.0: replaced(g, _2=attention(q, k, do, scale)[0]),
    lambda q, k, v, scale=1.0: q.shape == k.shape and k.shape[-1] > 1,
)
gradients(
    "last tile ignored", "dot_product_attention", lambda g, do, *_: replaced(g, _1=without_tail(g[1], 1)), many_keys
)


def affinity(u, v, rectify=lambda a: a * (a > 0), slope=lambda a: a > 0, both=True):
    """Affinity sums with all affinities at once, to be spoilt."""
    raw = u.swapaxes(-1, -2) @ u
    a = rectify(raw)

    def backward(dt, ds):
        da = (v.swapaxes(-1, -2) @ dt + ds) * slope(raw)
        du = u @ (da + da.swapaxes(-1, -2)) if both else u @ da.swapaxes(-1, -2)
        return du, dt @ a.swapaxes(-1, -2)

    return (v @ a, a.sum(axis=-2, keepdims=True)), backward


def spoilt_affinity(name, way, when=lambda u, v: u.shape[-1] > 1, **parts):
    @fault(f"gradient: {name}" if way == "backward" else name, way, "affinity_sums", when)
    def apply(original, u, v):
        value, backward = original(u, v)
        other, back_other = affinity(u, v, **parts)
        return value if way == "backward" else other, backward if way == "forward" else back_other


spoilt_affinity("not rectified", "forward", rectify=lambda a: a)
spoilt_affinity("magnitudes", "forward", rectify=lambda a: np.maximum(a, -a))
spoilt_affinity(
    "left out of itself", "forward", rectify=lambda a: a * (a > 0) * (1 - np.eye(a.shape[-1], dtype=a.dtype))
)
spoilt_affinity("slope left out", "backward", slope=lambda a: 1)
spoilt_affinity("one side alone", "backward", both=False)


@fault("gradient: totals constant", "backward", "affinity_sums", lambda u, v: u.shape[-1] > 1)
def constant_totals(original, u, v):
    value, backward = original(u, v)
    return value, lambda dt, ds: backward(dt, np.zeros_like(ds))


@fault("key tile ignored", "forward", "affinity_sums", lambda u, v: has_tail(u.shape[-1]))
def untiled_affinity(original, u, v):
    _, backward = original(u, v)
    fewer = without_tail(u, 1)
    a = fewer.swapaxes(-1, -2) @ u
    a = a * (a > 0)
    return (v @ a, a.sum(axis=-2, keepdims=True)), backward


# Joining, resizing, dropping, selecting, windows


def alike(arrays, axis):
    return len({a.shape for a in arrays}) == 1 and len(arrays) > 1


calls("parts in the wrong order", "concatenate", lambda arrays, axis: {0: tuple(arrays)[::-1]}, alike)
gradients("parts in the wrong order", "concatenate", lambda g, dy, arrays, axis: g[::-1], alike)
gradients("last part dropped", "concatenate", lambda g, dy, arrays, axis: (*g[:-1], np.zeros_like(g[-1])))


def equal_parts(x, sizes, axis):
    return len(set(sizes)) == 1 and len(sizes) > 1


values("parts in the wrong order", "split", lambda parts, x, sizes, axis: parts[::-1], equal_parts)


@fault("gradient: last part dropped", "backward", "split", lambda x, sizes, axis: len(sizes) > 1)
def dropped_part(original, x, sizes, axis):
    parts, backward = original(x, sizes, axis)
    return parts, lambda dparts: backward((*dparts[:-1], np.zeros_like(dparts[-1])))


@fault("gradient: parts in the wrong order", "backward", "split", equal_parts)
def turned_parts(original, x, sizes, axis):
    parts, backward = original(x, sizes, axis)
    return parts, lambda dparts: backward(tuple(dparts)[::-1])


def changes_size(x, size, align_corners=False):
    return tuple(size) != tuple(x.shape[2:]) and min(x.shape[2:]) > 1


calls(
    "other corners",
    "resize_bilinear",
    lambda x, size, align_corners=False: {"align_corners": not align_corners},
    changes_size,
)
gradients(
    "other corners",
    "resize_bilinear",
    lambda g, dy, x, size, align_corners=False: (ops.resize_bilinear(x, size, not align_corners)[1](dy),),
    changes_size,
)
gradients(
    "mean for sum",
    "resize_bilinear",
    lambda g, dy, x, size, align_corners=False: (g[0] * (positions(x) / (size[0] * size[1])),),
    lambda x, size, *_, **__: size[0] * size[1] != positions(x),
)
values("not scaled up", "dropout", lambda y, x, mask, rate: y * (1 - rate))
calls("mask turned over", "dropout", lambda x, mask, rate: {1: 1 - mask})
gradients("not scaled up", "dropout", lambda g, dy, x, mask, rate: (g[0] * (1 - rate),))
gradients("mask left out", "dropout", lambda g, dy, x, mask, rate: (dy / (1 - rate),))

only_first_image("score", {1, 2})
gradients("dx dropped", "score", lambda g, ds, *_: replaced(g, _0=np.zeros_like(g[0])))
values("last tile ignored", "score", lambda s, x, *_: without_tail(s, 1), lambda x, *_: has_tail(x.shape[-1]))
values("magnitudes", "score", lambda s, x, *_: np.maximum(s, -s))


def next_position(x, index):
    return {1: (index + 1) % x.shape[2]}


def some_positions(x, index):
    return x.shape[2] > 1


for name in ("take", "select"):
    calls("one position on", name, next_position, some_positions)
    gradients(
        "one position on",
        name,
        lambda g, dy, x, index: replaced(g, _0=np.roll(g[0], 1, axis=2)) if len(g) > 1 else (np.roll(g[0], 1, axis=2),),
        some_positions,
    )
gradients("score's share dropped", "select", lambda g, dy, *_: replaced(g, _1=np.zeros_like(g[1])))
gradients("feature's share dropped", "select", lambda g, dy, *_: replaced(g, _0=np.zeros_like(g[0])))
gradients(
    "share of the selected alone",
    "select",
    lambda g, dy, x, index: replaced(g, _1=own_share(g[1], index)),
    some_positions,
)


def own_share(dh, index):
    changed = np.zeros_like(dh)
    np.put_along_axis(changed, index[:, None], np.take_along_axis(dh, index[:, None], 1), 1)
    return changed


@fault("lowest for highest", "both", "top", lambda x, k: x.shape[1] > k)
def lowest_first(original, x, k):
    (y, index), backward = original(-x, k)
    return (-y, index), backward


gradients("dropped", "top", lambda g, dy, x, k: (np.zeros_like(x),))
gradients("reversed", "top", lambda g, dy, x, k: (np.zeros_like(x) + g[0][:, ::-1],))


def clipped(x, window, stride):
    return window > min(x.shape[2:])


def window_area(x, window):
    return min(window, x.shape[2]) * min(window, x.shape[3])


values(
    "sum for mean",
    "window_average",
    lambda p, x, window, stride: p * window_area(x, window),
    lambda x, window, stride: window_area(x, window) > 1,
)
values(
    "divided by N - 1",
    "window_average",
    lambda p, x, window, stride: p * (window_area(x, window) / (window_area(x, window) - 1)),
    lambda x, window, stride: window_area(x, window) > 1,
)
values(
    "divided by the whole window",
    "window_average",
    lambda p, x, window, stride: p * (window_area(x, window) / window**2),
    clipped,
)
values("transposed map", "window_average", lambda p, *_: transposed(p), lambda x, *_: is_wide(x))
calls(
    "last position forgotten", "window_average", lambda x, window, stride: {0: without_last(x)}, lambda x, *_: on_map(x)
)
gradients(
    "not divided",
    "window_average",
    lambda g, dp, x, window, stride: (g[0] * window_area(x, window),),
    lambda x, window, stride: window_area(x, window) > 1,
)
gradients(
    "last tile ignored", "window_average", lambda g, dp, x, *_: (without_tail(g[0]),), lambda x, *_: tail_of_map(x)
)
gradients("dropped", "window_average", lambda g, dp, x, *_: (np.zeros_like(x),))


def overlaps(z, size, window, stride):
    return stride < window and positions(z) > 1


def window_count(z, size, window, stride):
    """Count the windows over each position."""
    over = [
        [sum(start <= i < start + min(window, n) for start in ops.window_starts(n, window, stride)) for i in range(n)]
        for n in size
    ]
    return np.array(np.outer(*over), dtype=z.dtype)


values(
    "sum for mean",
    "overlap_average",
    lambda y, z, size, window, stride: y * window_count(z, size, window, stride),
    overlaps,
)
calls("last window forgotten", "overlap_average", lambda z, *_: {0: without_last(z)}, lambda z, *_: positions(z) > 1)
values("transposed map", "overlap_average", lambda y, *_: transposed(y), lambda z, size, *_: min(size) > 1)


@fault("gradient: not divided by the windows", "backward", "overlap_average", overlaps)
def undivided(original, z, size, window, stride):
    y, backward = original(z, size, window, stride)
    return y, lambda dy: backward(dy * window_count(z, size, window, stride))


@fault("gradient: last position forgotten", "backward", "overlap_average", lambda z, size, *_: size[0] * size[1] > 1)
def unfinished(original, z, size, window, stride):
    y, backward = original(z, size, window, stride)
    return y, lambda dy: backward(without_last(dy))


# Whole passes


def main_input(inputs):
    return next(iter(inputs.values()))


def outputs_of(results, upstream):
    return {name: results[name] for name in upstream}


def input_gradients(results, inputs):
    names = [f"{name}.grad" for name in inputs]
    return {name: results[name] for name in names if name in results}


def parameter_gradients(results, params):
    return {name: results[f"{name}.grad"] for name in params if f"{name}.grad" in results}


def of_outputs(name, change, when):
    """Change each output that is a map."""

    @fault(name, "forward", when=lambda module, params, inputs, upstream: any(map(when, upstream.values())))
    def apply(run, module, params, inputs, upstream):
        results = run(module, params, inputs, upstream)
        return results | {n: change(y) for n, y in outputs_of(results, upstream).items() if when(y)}


def of_inputs(name, change, when):
    """Change each input's gradient that is a map."""

    @fault(f"gradient: {name}", "backward", when=lambda m, p, inputs, u: any(map(when, inputs.values())))
    def apply(run, module, params, inputs, upstream):
        results = run(module, params, inputs, upstream)
        return results | {n: change(g) for n, g in input_gradients(results, inputs).items() if when(g)}


def shifted(a):
    return np.roll(a.reshape(*a.shape[:2], -1), 1, axis=-1).reshape(a.shape)


def of_image_0(a):
    changed = a.copy()
    changed[1:] = a[:1]
    return changed


for of in (of_outputs, of_inputs):
    of("transposed map", transposed, is_wide)
    of("shifted by one", shifted, on_map)
    of("last tile ignored", without_tail, tail_of_map)
    of("last position forgotten", without_last, on_map)
    of("image 0 for all", of_image_0, several_images)
    of("last channel forgotten", without_last_channel, lambda a: a.shape[1] > 1)


def read(name, change, when=on_map):
    """Read every input that is a map wrongly."""

    @fault(name, "both", when=lambda module, params, inputs, upstream: any(map(when, inputs.values())))
    def apply(run, module, params, inputs, upstream):
        return run(module, params, {n: change(x) if when(x) else x for n, x in inputs.items()}, upstream)


def channels_last(x):
    """Read a map as if its channels stood last."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, height, width, channels).transpose(0, 3, 1, 2)


read("input transposed", transposed, is_wide)
read("input shifted by one", shifted)
read("input's last tile ignored", without_tail, tail_of_map)
read("input with channels last", channels_last, lambda x: on_map(x) and x.shape[1] > 1)


def noisy(module, params, inputs, upstream):
    return "noise" in inputs


@fault("noise left out", "both", when=noisy)
def silent(run, module, params, inputs, upstream):
    return run(module, params, inputs | {"noise": 0 * inputs["noise"]}, upstream)


@fault("noise taken off", "both", when=noisy)
def denoised(run, module, params, inputs, upstream):
    return run(module, params, inputs | {"noise": -inputs["noise"]}, upstream)


def of_parameters(name, change, when):
    """Change the parameters' gradients."""

    def allowed(module, params, inputs, upstream):
        return bool(module.parameter_shapes()) and when(main_input(inputs))

    @fault(f"gradient: {name}", "backward", when=allowed)
    def apply(run, module, params, inputs, upstream):
        results = run(module, params, inputs, upstream)
        found = parameter_gradients(results, params)
        return results | {f"{n}.grad": change(g, main_input(inputs)) for n, g in found.items()}


of_parameters("averaged over the batch", lambda g, x: g / len(x), several_images)
of_parameters("added twice", lambda g, x: 2 * g, always)


@fault("gradient: only image 0", "backward", when=lambda m, p, inputs, u: len(main_input(inputs)) > 1)
def first_image_alone(run, module, params, inputs, upstream):
    results = run(module, params, inputs, upstream)
    few = run(module, params, inputs, {name: first_image(dy) for name, dy in upstream.items()})
    return results | {f"{name}.grad": g for name, g in parameter_gradients(few, params).items()}


@fault("gradient: dy of ones", "backward")
def of_the_sum(run, module, params, inputs, upstream):
    return run(module, params, inputs, {name: np.ones_like(dy) for name, dy in upstream.items()})


def pairs(module):
    """List pairs of parameters of one shape."""
    shapes = module.parameter_shapes()
    names = list(shapes)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if shapes[a] == shapes[b]]


@fault("parameters confused", "both", when=lambda module, *_: bool(pairs(module)))
def confused(run, module, params, inputs, upstream):
    a, b = pairs(module)[0]
    return run(module, params | {a: params[b], b: params[a]}, inputs, upstream)


@fault("gradient: parameters confused", "backward", when=lambda module, *_: bool(pairs(module)))
def confused_gradients(run, module, params, inputs, upstream):
    results = run(module, params, inputs, upstream)
    a, b = (f"{name}.grad" for name in pairs(module)[-1])
    return results | {a: results[b], b: results[a]}


@fault("gradient: first parameter forgotten", "backward", when=lambda module, *_: bool(module.parameter_shapes()))
def forgotten(run, module, params, inputs, upstream):
    results = run(module, params, inputs, upstream)
    name = f"{next(iter(module.parameter_shapes()))}.grad"
    return results | {name: np.zeros_like(results[name])}


def is_residual(module, params, inputs, upstream):
    return module.key in {"pam", "cam", "residual"}


@fault("missing residual", "forward", when=is_residual)
def unconnected(run, module, params, inputs, upstream):
    results = run(module, params, inputs, upstream)
    return results | {"output": results["output"] - main_input(inputs)}


@fault("gradient: missing residual", "backward", when=is_residual)
def unconnected_gradient(run, module, params, inputs, upstream):
    results = run(module, params, inputs, upstream)
    name = f"{next(iter(inputs))}.grad"
    return results | {name: results[name] - upstream["output"]}


# Mistakes of tiles, accumulators and buffers, of geometry, and of one image taken for another. They are held out.

TUNED_ON = len(FAULTS)
"""Faults up to here were at hand when limits were tuned."""


def neighbour_read(a, axes=1):
    """Let the last of every `TILE` positions be read from its neighbour."""
    flat = a.reshape(*a.shape[: a.ndim - axes], -1).copy()
    flat[..., TILE - 1 :: TILE] = flat[..., TILE - 2 :: TILE][..., : flat[..., TILE - 1 :: TILE].shape[-1]]
    return flat.reshape(a.shape)


def whole_tile(x, *_, **__):
    return x.ndim == 4 and positions(x) >= TILE


def without_first_tile(a, axes=2):
    changed = a.reshape(*a.shape[: a.ndim - axes], -1).copy()
    changed[..., :TILE] = 0
    return changed.reshape(a.shape)


def last_tile_twice(a):
    return 2 * a - without_tail(a)


def with_losses(a):
    """Leave out one number in a hundred, as additions that race do, and one at least."""
    random = np.random.RandomState(a.size)
    lost = random.random_sample(a.shape) < 0.01
    lost.flat[random.randint(a.size)] = True
    return np.where(lost, 0, a)


def uncleared(dy):
    """Weight images as an accumulator does that is not cleared for the next image: the first counts for all."""
    return dy * np.arange(len(dy), 0, -1, dtype=dy.dtype).reshape((-1,) + (1,) * (dy.ndim - 1))


def of_first(a):
    """Take the first image's numbers for all images."""
    return np.zeros_like(a) + a[:1]


def several(x, *_, **__):
    return x.size > len(x)


calls(
    "every 16th position read from its neighbour", "conv2d", lambda x, *_, **__: {0: neighbour_read(x, 2)}, whole_tile
)
weight_gradient("every 16th position read from its neighbour", lambda dy: neighbour_read(dy, 2), whole_tile)
weight_gradient("first tile skipped", without_first_tile, lambda x, *_, **__: on_map(x) and positions(x) > TILE)
weight_gradient("last tile twice", last_tile_twice, tail_of_map)
weight_gradient("additions lost", with_losses, several)
weight_gradient("accumulator not cleared", uncleared, several_images)


@fault("gradient: accumulator not cleared", "backward", "linear", several_images)
def uncleared_layer(original, x, *args, **options):
    value, backward = original(x, *args, **options)
    return value, lambda dz: (backward(dz)[0], *backward(uncleared(dz))[1:])


@fault("gradient: additions lost", "backward", "linear", lambda x, *_, **__: len(x) > 1)
def racing_layer(original, x, *args, **options):
    value, backward = original(x, *args, **options)
    return value, lambda dz: (backward(dz)[0], *backward(with_losses(dz))[1:])


def twice_biased(original, *args, **options):
    value, backward = original(*args, **options)
    return 2 * value - zero_bias(original, *args, **options)[0], backward


for name in ("conv2d", "linear"):
    fault("bias twice", "forward", name, biased)(twice_biased)


@fault("bias left out of the last tile", "forward", "conv2d", lambda x, *a, **o: biased(x, *a, **o) and tail_of_map(x))
def unbiased_tail(original, *args, **options):
    value, backward = original(*args, **options)
    added = value - zero_bias(original, *args, **options)[0]
    return value - (added - without_tail(added)), backward


def geometry(options, name, default):
    value = options.get(name, default)
    return value if isinstance(value, tuple) else (value, value)


def reaches_out(x, *_, **options):
    return max(geometry(options, "padding", 0)) > 0


@fault("edges for zeros", "forward", "conv2d", reaches_out)
def with_edges(original, x, *args, **options):
    i, j = (
        np.clip(np.arange(-p, n + p), 0, n - 1)
        for n, p in zip(x.shape[2:], geometry(options, "padding", 0), strict=True)
    )
    value, _ = original(x[:, :, i][..., j], *args, **options | {"padding": 0})
    return value, original(x, *args, **options)[1]


def keeps_size(x, *args, **options):
    """Whether there are zeros around the map for as far as a kernel reaches."""
    padding, dilation = geometry(options, "padding", 0), geometry(options, "dilation", 1)
    sizes = weight_of((x, *args), options).shape[2:]
    reach = [d * (n - 1) / 2 for d, n in zip(dilation, sizes, strict=True)]
    return list(padding) == reach and max(sizes) > 1 and min(x.shape[2:]) > 1


def spread_wider(x, *args, **options):
    dilation = tuple(d + 1 for d in geometry(options, "dilation", 1))
    sizes = weight_of((x, *args), options).shape[2:]
    return {"dilation": dilation, "padding": tuple(d * (n - 1) // 2 for d, n in zip(dilation, sizes, strict=True))}


calls("dilation too large by one", "conv2d", spread_wider, keeps_size)


@fault("gradient: dilation too large by one", "backward", "conv2d", keeps_size)
def spread_gradient(original, x, *args, **options):
    value, backward = original(x, *args, **options)
    other = original(x, *args, **options | spread_wider(x, *args, **options))[1]
    return value, lambda dy: (backward(dy)[0], other(dy)[1], *backward(dy)[2:])


def several_tiles_of_rows(x, *args, **options):
    return weight_of((x, *args), options).shape[2] > 1 and x.shape[2] > 4


@fault("gradient: no sums across tiles of rows", "backward", "conv2d", several_tiles_of_rows)
def without_halo(original, *args, **options):
    value, backward = original(*args, **options)

    def wrong(dy):
        dx, *rest = backward(dy)
        own = np.zeros_like(dx)
        for first in range(0, dx.shape[2], 4):
            some = np.zeros_like(dy)
            some[:, :, first : first + 4] = dy[:, :, first : first + 4]
            own[:, :, first : first + 4] = backward(some)[0][:, :, first : first + 4]
        return own, *rest

    return value, wrong


def padded_row(x, weight, change):
    """Convolve rows that have been padded, without more padding."""
    half = weight.size // 2
    wide = ops.conv1d(change(x, half), weight)[0]
    return wide[:, half : half + x.shape[1]]


values(
    "edges for zeros",
    "conv1d",
    lambda z, x, w: padded_row(x, w, lambda x, n: x[:, np.clip(np.arange(-n, x.shape[1] + n), 0, x.shape[1] - 1)]),
    lambda x, w: w.size > 1,
)
values(
    "wrapped around",
    "conv1d",
    lambda z, x, w: padded_row(x, w, lambda x, n: x[:, np.arange(-n, x.shape[1] + n) % x.shape[1]]),
    lambda x, w: w.size > 1,
)


@fault("gradient: accumulator not cleared", "backward", "conv1d", several_images)
def uncleared_row(original, x, weight):
    value, backward = original(x, weight)
    return value, lambda dz: (backward(dz)[0], backward(uncleared(dz))[1])


values(
    "over the wrong axis",
    "average_pool",
    lambda p, x, axis: x.mean(axis=5 - axis, keepdims=True).swapaxes(2, 3),
    lambda x, axis: axis in (2, 3) and x.shape[2] == x.shape[3] > 1,
)
for name in ("global_average_pool", "average_pool"):
    gradients(
        "added up over images",
        name,
        lambda g, dp, x, *_, **__: (np.zeros_like(x) + np.cumsum(g[0], axis=0),),
        several_images,
    )
for name in ("global_max_pool", "max_pool"):
    values(
        "started at 0",
        name,
        lambda p, x, axis=None: np.maximum(p, 0),
        lambda x, axis=None: bool((x.max(axis=(2, 3) if axis is None else axis) < 0).any()),
    )
    gradients(
        "to every maximum",
        name,
        lambda g, dp, x, axis=None: (every_maximum(x, (2, 3) if axis is None else axis) * spread_out(dp, x),),
        lambda x, axis=None: (
            (n := every_maximum(x, (2, 3) if axis is None else axis)).sum()
            > n.max(axis=(2, 3) if axis is None else axis).sum()
        ),
    )


def every_maximum(x, axis):
    return np.where(x >= x.max(axis=axis, keepdims=True), np.ones_like(x), np.zeros_like(x))


def overflowing(x, largest):
    """Take exponentials as a format with numbers up to e^largest does."""
    return np.where(x > largest, np.inf, np.exp(np.where(x > largest, 0, x)))


HALF, SINGLE = 11.09, 88.72
"""Logarithms of the largest numbers of float16 and float32."""
for largest, words in ((SINGLE, "maximum not subtracted"), (HALF, "maximum not subtracted, float16")):
    values(
        words,
        "softmax",
        lambda y, x, axis=-1, largest=largest: (e := overflowing(x, largest)) / e.sum(axis=axis, keepdims=True),
        lambda x, axis=-1, largest=largest: bool((x > largest).any()),
    )
    values(
        words,
        "global_lse_pool",
        lambda p, x, largest=largest: np.log(overflowing(x, largest).sum(axis=(2, 3))),
        lambda x, largest=largest: bool((x > largest).any()),
    )
calls("base 2", "softmax", lambda x, axis=-1: {0: x * math.log(2)}, several_weights)
calls("base 2", "global_lse_pool", lambda x: {0: x * math.log(2)}, on_map)
gradients(
    "sum of the next row",
    "softmax",
    lambda g, dy, x, axis=-1: (
        (y := softmax(x, axis)[0]) * (dy - np.roll((y * dy).sum(axis=axis, keepdims=True), 1, axis=-2)),
    ),
    lambda x, axis=-1: axis == -1 and x.shape[-2] > 1 and x.shape[-1] > 1,
)

values("softsign", "sigmoid", lambda y, x: 0.5 + 0.5 * x / (1 + np.maximum(x, -x)))
values(
    "clamped to ±4", "sigmoid", lambda y, x: logistic(np.clip(x, -4, 4)), lambda x: bool((np.maximum(x, -x) > 4).any())
)
gradients(
    "slope of the next image",
    "sigmoid",
    lambda g, dy, x: (dy * np.roll((y := logistic(x)) * (1 - y), 1, axis=0),),
    several_images,
)
gradients(
    "mask of the next channel",
    "relu",
    lambda g, dy, x: (dy * np.roll(x > 0, 1, axis=1),),
    lambda x: x.ndim > 1 and x.shape[1] > 1,
)
gradients("mask of the next image", "relu", lambda g, dy, x: (dy * np.roll(x > 0, 1, axis=0),), several_images)
gradients("slope of the gate alone", "hard_swish", lambda g, dy, x: (dy * np.where((x > -3) & (x < 3), x / 6, 0),))

values(
    "gate of image 0 for all",
    "gate",
    lambda y, x, a: x * of_first(spread_gate(a, x)),
    lambda x, a: len(x) > 1 and len(a) == len(x),
)
values(
    "every 16th position passed on",
    "gate",
    lambda y, x, a: passed_on(y, x),
    lambda x, a: whole_tile(x),
)
gradients(
    "of one channel alone",
    "gate",
    lambda g, dy, x, a: replaced(g, _1=(dy * x)[:, :1].sum().reshape(a.shape)),
    lambda x, a: a.size == 1 and x.shape[1] > 1,
)


def passed_on(y, x):
    changed = y.reshape(*y.shape[:2], -1).copy()
    changed[..., TILE - 1 :: TILE] = x.reshape(changed.shape)[..., TILE - 1 :: TILE]
    return changed.reshape(y.shape)


@fault("gradient: additions lost", "backward", "gate", lambda x, a: a.size < x.size)
def racing_gate(original, x, a):
    y, backward = original(x, a)
    return y, lambda dy: (backward(dy)[0], backward(with_losses(dy))[1])


@fault("gradient: of the gate added up over images", "backward", "gate", lambda x, a: len(x) > 1 and len(a) == len(x))
def stale_gate(original, x, a):
    y, backward = original(x, a)
    return y, lambda dy: replaced(found := backward(dy), _1=np.cumsum(found[1], axis=0))


def norm_by(scale_of, mean_of=lambda x, options: x.mean(axis=(0, 2, 3))):
    """Normalise in training by another mean and variance."""

    def value(result, x, **options):
        mean = mean_of(x, options)
        scale = 1 / np.sqrt(scale_of(x, options) + options.get("eps", 1e-5))
        y = (x - mean[:, None, None]) * (scale * options["weight"])[:, None, None] + options["bias"][:, None, None]
        return y, result[1]

    return value


values(
    "variance about the running mean",
    "batch_norm",
    norm_by(lambda x, options: ((x - options["running_mean"][:, None, None]) ** 2).mean(axis=(0, 2, 3))),
    in_training,
)
values(
    "running variance, own mean",
    "batch_norm",
    norm_by(lambda x, options: options["running_var"]),
    in_training,
)
values(
    "statistics of image 0",
    "batch_norm",
    norm_by(
        lambda x, options: ((x[0] - x[0].mean(axis=(1, 2), keepdims=True)) ** 2).mean(axis=(1, 2)),
        lambda x, options: x[0].mean(axis=(1, 2)),
    ),
    lambda x, *_, training=False, **__: training and len(x) > 1 and positions(x) > 1,
)
values(
    "bias before the scale",
    "batch_norm",
    lambda r, x, *, weight, bias, **_: (r[0] + ((weight - 1) * bias)[:, None, None], r[1]),
)


@fault("gradient: with running statistics", "backward", "batch_norm", in_training)
def running_gradient(original, x, **options):
    return original(x, **options)[0], original(x, **options | {"training": False})[1]


def parts_cut_late(x, sizes, axis):
    return x.shape[axis] > 1


calls("cut one position late", "split", lambda x, sizes, axis: {0: np.roll(x, -1, axis=axis)}, parts_cut_late)


@fault("gradient: cut one position late", "backward", "concatenate", lambda arrays, axis: len(arrays) > 1)
def late_parts(original, arrays, axis):
    value, backward = original(arrays, axis)
    return value, lambda dy: backward(np.roll(dy, -1, axis=axis))


def half_a_pixel_off(x, size, align_corners=False):
    return {0: (x + np.concatenate([x[..., 1:], x[..., -1:]], axis=3)) / 2}


def nearest_read(y, x, size, align_corners=False):
    rows, columns = (np.arange(m) * n // m for n, m in zip(x.shape[2:], size, strict=True))
    return x[:, :, rows][..., columns]


calls("half a pixel off", "resize_bilinear", half_a_pixel_off, changes_size)
values("nearest read", "resize_bilinear", nearest_read, changes_size)
calls("mask of image 0 for all", "dropout", lambda x, mask, rate: {1: of_first(mask)}, several_images)
for name in ("take", "select"):
    calls("positions of image 0 for all", name, lambda x, index: {1: of_first(index)}, several_images)


@fault("gradient: accumulator not cleared", "backward", "score", several_images)
def uncleared_score(original, x, *args):
    value, backward = original(x, *args)
    return value, lambda ds: (backward(ds)[0], *backward(uncleared(ds))[1:])


@fault("numbers in reverse order", "forward", "top", lambda x, k: k > 1)
def reversed_top(original, x, k):
    (y, index), backward = original(x, k)
    return (y[:, ::-1].copy(), index), backward


def tall_window(x, window, stride):
    return min(window, x.shape[2]) > 1


def without_last_row(p, x, window, stride):
    windows, _ = ops.unfold_windows(x, window, stride)
    return windows[..., :-1, :].sum(axis=(4, 5)) / window_area(x, window)


calls(
    "one row late",
    "window_average",
    lambda x, window, stride: {0: np.roll(x, -1, axis=2)},
    lambda x, *_: x.shape[2] > 1,
)
values("last row left out", "window_average", without_last_row, tall_window)
gradients(
    "averaged over windows, not summed",
    "window_average",
    lambda g, dp, x, window, stride: (g[0] / window_count(x, x.shape[2:], window, stride),),
    lambda x, window, stride: stride < window and positions(x) > 1,
)


def most_windows(y, z, size, window, stride):
    count = window_count(z, size, window, stride)
    return y * (count / count.max())


values("counts of the middle at the edges", "overlap_average", most_windows, overlaps)
values(
    "length of the next position",
    "l2_normalize",
    lambda u, x, eps=1e-5: x / (np.roll(length_of(x), 1, axis=-1) + eps),
    lambda x, *_: x.shape[-1] > 1,
)
values(
    "largest for length",
    "l2_normalize",
    lambda u, x, eps=1e-5: x / (np.maximum(x, -x).max(axis=1, keepdims=True) + eps),
    lambda x, *_: x.shape[1] > 1,
)


def many_terms(a, *_):
    return a.shape[-1] >= TILE


values("diagonal twice", "gram", lambda g, a: g * (1 + np.eye(a.shape[-2], dtype=a.dtype)), lambda a: a.shape[-1] > 0)
for way in ("forward", "both"):
    calls("every 16th position read from its neighbour", "gram", lambda a: {0: neighbour_read(a)}, many_terms, way)
gradients("of the next image", "gram", lambda g, dg, a: (np.roll(g[0], 1, axis=0),), several_images)
calls("every 16th term read from its neighbour", "matmul", lambda a, b: {0: neighbour_read(a)}, many_terms)
calls("right side of image 0 for all", "matmul", lambda a, b: {1: of_first(b)}, lambda a, b: len(b) > 1)
gradients(
    "right side of image 0 for all",
    "matmul",
    lambda g, dc, a, b: replaced(g, _0=dc @ of_first(b).swapaxes(-1, -2)),
    lambda a, b: len(b) > 1,
)


# Attention in blocks


def two_tiles(q, k, v, scale=1.0):
    return k.shape[-1] > TILE


def many_queries(q, k, v, scale=1.0):
    return q.shape[-1] > TILE


def images_of(q, *_, **__):
    return len(q) > 1


def heads_of(q, *_, **__):
    return q.ndim == 4 and q.shape[1] > 1


def logits_above(largest):
    return lambda q, k, v, scale=1.0: bool((scale * (q.swapaxes(-1, -2) @ k) > largest).any())


def unsubtracted(largest):
    return lambda z: (e := overflowing(z, largest)) / e.sum(axis=-1, keepdims=True)


def exponentials(z):
    return np.exp(z - z.max(axis=-1, keepdims=True))


def first_tile_skipped(z):
    low = z.copy()
    low[..., :TILE] = -1e4
    return softmax(low)[0]


def last_tile_counted_twice(z):
    e = exponentials(z)
    e = 2 * e - without_last(e, 1, z.shape[-1] - last_tile(z))
    return e / e.sum(axis=-1, keepdims=True)


def sum_of_last_tile(z):
    e = exponentials(z)
    return e / e[..., last_tile(z) :].sum(axis=-1, keepdims=True)


def last_tile(a):
    """Return where the last tile begins."""
    return (a.shape[-1] - 1) // TILE * TILE


def only_last_tile(a):
    changed = a.copy()
    changed[..., : last_tile(a)] = 0
    return changed


def early_and_all(z):
    """Return the exponentials of the first tile by its own maximum, and all by that of all."""
    first = z[..., :TILE].max(axis=-1, keepdims=True)
    return np.exp(z[..., :TILE] - first), exponentials(z)


def stale_accumulator(z):
    early, e = early_and_all(z)
    return np.concatenate([early, e[..., TILE:]], axis=-1) / e.sum(axis=-1, keepdims=True)


def stale_sum(z):
    early, e = early_and_all(z)
    return e / (early.sum(axis=-1, keepdims=True) + e[..., TILE:].sum(axis=-1, keepdims=True))


def of_base_2(z):
    """Take weights from a log-sum-exp to base 2, as if it were to base e."""
    log_sum = z.max(axis=-1, keepdims=True) + np.log(exponentials(z).sum(axis=-1, keepdims=True))
    return np.exp(z - log_sum / math.log(2))


spoilt("first key tile skipped", "forward", two_tiles, weigh=first_tile_skipped)
spoilt("last key tile twice", "forward", two_tiles, weigh=last_tile_counted_twice)
spoilt("sum of the last tile alone", "forward", two_tiles, weigh=sum_of_last_tile)
spoilt("accumulator not rescaled", "forward", two_tiles, weigh=stale_accumulator)
spoilt("sum not rescaled", "forward", two_tiles, weigh=stale_sum)
spoilt("maximum not subtracted", "forward", logits_above(SINGLE), weigh=unsubtracted(SINGLE))
spoilt("maximum not subtracted, float16", "forward", logits_above(HALF), weigh=unsubtracted(HALF))
spoilt("log-sum-exp to base 2", "backward", weigh=of_base_2)
spoilt(
    "sum of the next row",
    "backward",
    gradient=lambda s, ds: s * (ds - np.roll((s * ds).sum(axis=-1, keepdims=True), 1, axis=-2)),
    when=lambda q, k, v, scale=1.0: min(q.shape[-1], k.shape[-1]) > 1,
)
for way in ("forward", "both"):
    calls(
        "base 2",
        "dot_product_attention",
        lambda q, k, v, scale=1.0: {0: q * math.log(2)},
        several_keys,
        way,
    )
    for i, words in ((1, "keys"), (2, "values")):
        calls(
            f"{words} of image 0 for all",
            "dot_product_attention",
            lambda *args, i=i: {i: of_first(args[i])},
            images_of,
            way,
        )
        calls(
            f"every 16th of the {words} read from its neighbour",
            "dot_product_attention",
            lambda *args, i=i: {i: neighbour_read(args[i])},
            lambda q, k, v, scale=1.0: k.shape[-1] >= TILE,
            way,
        )
values("heads in the wrong order", "dot_product_attention", lambda o, *_: o[:, ::-1].copy(), heads_of)
gradients(
    "heads in the wrong order",
    "dot_product_attention",
    lambda g, do, *_: replaced(g, _1=g[1][:, ::-1].copy()),
    heads_of,
)


def spoilt_gradients(name, change, when=several_keys):
    """Change gradients, given weights, their gradients and those of the logits: ``change(g, s, ds, dz, do, q, k)``."""

    @fault(f"gradient: {name}", "backward", "dot_product_attention", when)
    def apply(original, q, k, v, scale=1.0):
        value, backward = original(q, k, v, scale)

        def wrong(do):
            s, _ = softmax(scale * (q.swapaxes(-1, -2) @ k))
            ds = do.swapaxes(-1, -2) @ v
            dz = s * (ds - (s * ds).sum(axis=-1, keepdims=True))
            return change(backward(do), s, ds, scale * dz, do, q, k)

        return value, wrong


spoilt_gradients("ds for dz in dk", lambda g, s, ds, dz, do, q, k: replaced(g, _1=q @ ds))
spoilt_gradients(
    "dv of the last query tile alone",
    lambda g, s, ds, dz, do, q, k: replaced(g, _2=only_last_tile(do) @ s),
    many_queries,
)
spoilt_gradients(
    "dk of the last query tile alone",
    lambda g, s, ds, dz, do, q, k: replaced(g, _1=only_last_tile(q) @ dz),
    many_queries,
)
spoilt_gradients(
    "dq of the last key tile alone",
    lambda g, s, ds, dz, do, q, k: replaced(g, _0=only_last_tile(k) @ dz.swapaxes(-1, -2)),
    two_tiles,
)
spoilt_gradients("additions lost in dk", lambda g, s, ds, dz, do, q, k: replaced(g, _1=q @ with_losses(dz)))
spoilt_gradients("additions lost in dv", lambda g, s, ds, dz, do, q, k: replaced(g, _2=do @ with_losses(s)))


def same_tile(a):
    tile = np.arange(a.shape[-1]) // TILE
    return (tile[:, None] == tile).astype(a.dtype)


spoilt_affinity("own tile twice", "forward", rectify=lambda a: a * (a > 0) * (1 + same_tile(a)))
spoilt_affinity(
    "own tile alone", "forward", lambda u, v: u.shape[-1] > TILE, rectify=lambda a: a * (a > 0) * same_tile(a)
)
spoilt_affinity("mask of the next position", "backward", slope=lambda a: np.roll(a > 0, 1, axis=-1))
calls("features of image 0 for all", "affinity_sums", lambda u, v: {0: of_first(u)}, several_images)
calls("values of image 0 for all", "affinity_sums", lambda u, v: {1: of_first(v)}, several_images)
calls(
    "every 16th position read from its neighbour",
    "affinity_sums",
    lambda u, v: {0: neighbour_read(u)},
    lambda u, v: u.shape[-1] >= TILE,
)


# Passes whose results, inputs or parameters are spoilt


def row_unwritten(a):
    changed = a.copy()
    changed[:, :, -1] = 0
    return changed


def column_unwritten(a):
    changed = a.copy()
    changed[..., -1] = 0
    return changed


def image_unwritten(a):
    changed = a.copy()
    changed[-1] = 0
    return changed


def channels_swapped(a):
    changed = a.copy()
    changed[:, 0], changed[:, 1] = a[:, 1], a[:, 0]
    return changed


def sixteenth_unwritten(a):
    changed = a.reshape(*a.shape[:2], -1).copy()
    changed[..., TILE - 1 :: TILE] = 0
    return changed.reshape(a.shape)


def added_to_last(a):
    """Add every image's numbers to those of the image before."""
    changed = a.copy()
    changed[1:] += a[:-1]
    return changed


for of in (of_outputs, of_inputs):
    of("last row unwritten", row_unwritten, lambda a: a.ndim == 4 and a.shape[2] > 1)
    of("last column unwritten", column_unwritten, lambda a: a.ndim == 4 and a.shape[3] > 1)
    of("last image unwritten", image_unwritten, several_images)
    of("first channels swapped", channels_swapped, lambda a: a.shape[1] > 1)
    of("every 16th position unwritten", sixteenth_unwritten, whole_tile)
    of("added to the image before", added_to_last, several_images)
of_inputs("of inputs averaged over the batch", lambda g: g / len(g), several_images)


def in_bfloat16(a):
    mantissa, exponent = np.frexp(a)
    return np.ldexp(np.rint(np.ldexp(mantissa, 8)), exponent - 8)


read("input in bfloat16", in_bfloat16)
read("every 16th position read from its neighbour", lambda x: neighbour_read(x, 2), whole_tile)
read("image 0 for all", of_first, several_images)
of_parameters("in bfloat16", lambda g, x: in_bfloat16(g), always)
of_parameters("of square weights transposed", lambda g, x: g.swapaxes(0, 1) if is_square(g) else g, always)


def is_square(weight):
    return weight.ndim > 1 and weight.shape[0] == weight.shape[1] > 1


@fault("parameters in bfloat16", "both", when=lambda module, *_: bool(module.parameter_shapes()))
def coarse_parameters(run, module, params, inputs, upstream):
    return run(module, {name: in_bfloat16(a) for name, a in params.items()}, inputs, upstream)


@fault("gradient: dy in bfloat16", "backward")
def coarse_upstream(run, module, params, inputs, upstream):
    return run(module, params, inputs, {name: in_bfloat16(dy) for name, dy in upstream.items()})


@fault("gradient: dy of image 0 for all", "backward", when=lambda m, p, inputs, u: len(main_input(inputs)) > 1)
def first_upstream(run, module, params, inputs, upstream):
    return run(module, params, inputs, {name: of_first(dy) for name, dy in upstream.items()})


@fault("mask begins a position late", "both", when=lambda module, *_: hasattr(module, "late"))
def late_mask(run, module, params, inputs, upstream):
    return run(dataclasses.replace(module, late=1), params, inputs, upstream)


@fault("no mask", "both", when=lambda module, *_: hasattr(module, "late"))
def no_mask(run, module, params, inputs, upstream):
    return run(dataclasses.replace(module, late=TILE**2), params, inputs, upstream)


HELD_OUT = frozenset(FAULTS[TUNED_ON:])
"""Faults that no limit was tuned on."""


# Planting


@contextlib.contextmanager
def replace_primitive(name, function):
    """Put a function in a primitive's place wherever systems look it up."""
    original = getattr(ops, name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(ops, name, function))
        for module in [m for n, m in sys.modules.items() if n.startswith("npattn.attention.")]:
            for attribute, value in vars(module).items():
                if isinstance(value, dict) and any(item is original for item in value.values()):
                    changed = {key: function for key, item in value.items() if item is original}
                    stack.enter_context(mock.patch.dict(value, changed))
                elif value is original:
                    stack.enter_context(mock.patch.object(module, attribute, function))
        yield original


def sites(run, faults, module, *given):
    """Find where faults can stand: run once, and list for each fault the calls of its primitive that it applies to.

    A fault of a whole pass has the one site 0, or none.
    """
    found = {fault: [] for fault in faults}
    with contextlib.ExitStack() as stack:
        for primitive in {fault.primitive for fault in faults} - {""}:
            here = [fault for fault in faults if fault.primitive == primitive]
            original = getattr(ops, primitive)
            stack.enter_context(replace_primitive(primitive, watched(original, here, found)))
        run(module, *given)
    for fault in faults:
        if not fault.primitive and fault.when(module, *given):
            found[fault].append(0)
    return {fault: places for fault, places in found.items() if places}


def watched(original, faults, found):
    count = -1

    @functools.wraps(original)
    def primitive(*args, **options):
        nonlocal count
        count += 1
        for fault in faults:
            if fault.when(*args, **options):
                found[fault].append(count)
        return original(*args, **options)

    return primitive


def faulty(run, fault, site):
    """Return `run` with a fault in the call of that number: ``(module, params, inputs, upstream)`` to results."""
    if not fault.primitive:
        return functools.partial(fault.apply, run)

    def wrong(module, *given):
        original = getattr(ops, fault.primitive)
        count = -1

        @functools.wraps(original)
        def primitive(*args, **options):
            nonlocal count
            count += 1
            return fault.apply(original, *args, **options) if count == site else original(*args, **options)

        with replace_primitive(fault.primitive, primitive):
            return run(module, *given)

    return wrong
