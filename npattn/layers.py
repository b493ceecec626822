"""Layers: primitives that find their parameters by name, and name the gradients.

Every layer is called with an array, a mapping of names to arrays, and a name, under which it finds its own parameters
there: ``conv(x, params, "query_conv")`` reads ``query_conv.weight`` and ``query_conv.bias``. It returns its value and
the way back, as a primitive does, and ``backward(dy, accumulate_into=None)`` returns ``(dx, grads)``, where `grads` has
the same names; that of several layers in a row, `conv_norm_act`, takes nothing to add to. So a parameter's name stands
where it is declared and where its layer is called, and gradients are merged with ``|``.

Gradients are added in one way. Where several steps read a map, its gradient is the sum of what they send back, and each
is given what has come before it: ``dx = back_pool(dp, accumulate_into=dx)`` is dx + back_pool(dp), without another map.
A pool writes to the array that it is given; a layer adds that array to the gradient that it makes itself. Where a map
forks into branches of several steps, or a skip connection passes some, `ops.add` adds up what the branches send back.

`gather_relative` alone is given no array: it reads a table of numbers that belongs to no map.

The functions that end in ``_parameters`` and ``_buffers``, from `npattn.parameters`, declare what the layers read.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from npattn import ops
from npattn.array_checks import check_variance
from npattn.module import Pass
from npattn.ops import gating
from npattn.ops.elementwise import ACTIVATIONS
from npattn.parameters import (
    CONV_AND_NORM,
    add_prefix,
    conv_norm_act_buffers,
    conv_norm_act_parameters,
    conv_parameters,
    linear_parameters,
    strip_prefix,
)
from npattn.typing import Array, Backward, Params

__all__ = [
    "affine",
    "batch_norm",
    "conv",
    "conv1d",
    "conv_norm_act",
    "conv_norm_act_buffers",
    "conv_norm_act_parameters",
    "conv_parameters",
    "gather_relative",
    "group_norm",
    "layer_norm",
    "linear",
    "linear_parameters",
    "merge",
    "named",
    "project",
    "relative_logits",
    "scale",
    "score",
    "submodule",
]


def conv(
    x: Array,
    params: Params,
    name: str,
    *,
    separator: str = ".",
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[Array, Backward]:
    """Slide kernels over a map, (B, C, H, W) to (B, O, H', W'), as `ops.conv2d`.

    Parameters
    ----------
    x : array, (B, C, H, W)
    params : mapping of str to array
    name : str
        The kernels are ``name.weight``, (O, C / groups, k, k), (O, C, 1) or (O, C), and, if there is one, ``name.bias``
        is (O,).
    separator : str, default "."
        What stands between the two words of their names.
    stride, padding, dilation, groups : int, default 1, 0, 1, 1
        Step between outputs, zeros added on every side (a pair: of rows, of columns), step between the kernel's taps,
        and into how many groups that don't see each other the channels are cut.

    Returns
    -------
    y : array, (B, O, H', W')
    backward : callable
        ``backward(dy, accumulate_into=None)`` returns ``(dx, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"query.weight": np.full((1, 2), 3.0), "query.bias": np.ones(1)}
    >>> y, backward = conv(np.ones((1, 2, 1, 1)), params, "query")
    >>> y
    array([[[[7.]]]])
    >>> dx, grads = backward(y)
    >>> grads
    {'query.weight': array([[7., 7.]]), 'query.bias': array([7.])}
    """

    def conv2d(x, weight, bias=None):
        kernel = weight if weight.ndim == 4 else weight.reshape(*weight.shape[:2], 1, 1)  # linear in every position
        return ops.conv2d(x, kernel, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)

    return named(conv2d, x, params, [f"{name}{separator}weight", f"{name}{separator}bias"])


def project(x: Array, params: Params, names: Sequence[str]) -> tuple[tuple[Array, ...], Backward]:
    """Map the channels of every position by several layers, (B, C, H, W) to (B, O_i, H, W), as `ops.project`.

    Parameters
    ----------
    x : array, (B, C, H, W)
    params : mapping of str to array
    names : sequence of str
        Of each layer the matrix is ``name.weight``, (O_i, C, 1, 1), and ``name.bias`` is (O_i,).

    Returns
    -------
    ys : tuple of array, (B, O_i, H, W)
    backward : callable
        ``backward(dys, accumulate_into=None)`` returns ``(dx, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"keys.weight": np.full((1, 1, 1, 1), 3.0), "keys.bias": np.ones(1)}
    >>> params |= {"values.weight": np.full((1, 1, 1, 1), 5.0), "values.bias": np.zeros(1)}
    >>> (k, v), backward = project(np.full((1, 1, 1, 1), 2.0), params, ("keys", "values"))
    >>> k.item(), v.item()
    (7.0, 10.0)
    >>> dx, grads = backward((k, v))
    >>> dx.item(), list(grads)
    (71.0, ['keys.weight', 'keys.bias', 'values.weight', 'values.bias'])
    """
    parameters = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    ys, back = ops.project(x, *(params[name] for name in parameters))

    def backward(dys, accumulate_into=None):
        dx, *gradients = back(dys, accumulate_into)
        return dx, dict(zip(parameters, gradients, strict=True))

    return ys, backward


def conv1d(x: Array, params: Params, name: str) -> tuple[Array, Backward]:
    """Slide a kernel along rows, (B, L) to (B, L), as `ops.conv1d`.

    Parameters
    ----------
    x : array, (B, L)
    params : mapping of str to array
    name : str
        The kernel is ``name.weight``, (1, 1, k).

    Returns
    -------
    z : array, (B, L)
    backward : callable
        ``backward(dz, accumulate_into=None)`` returns ``(dx, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> z, backward = conv1d(np.array([[1.0, 2.0]]), {"conv.weight": np.array([[[1.0, 10.0, 0.0]]])}, "conv")
    >>> z
    array([[10., 21.]])
    """
    return named(ops.conv1d, x, params, [f"{name}.weight"])


def linear(x: Array, params: Params, name: str) -> tuple[Array, Backward]:
    """Map rows of features linearly, (B, in) to (B, out), as `ops.linear`.

    Parameters
    ----------
    x : array, (B, in)
    params : mapping of str to array
    name : str
        ``name.weight`` is (out, in) or (out, in, 1, 1), and, if there is one, ``name.bias`` is (out,).

    Returns
    -------
    z : array, (B, out)
    backward : callable
        ``backward(dz, accumulate_into=None)`` returns ``(dx, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> z, backward = linear(np.ones((1, 2)), {"fc1.weight": np.array([[3.0, 4.0]])}, "fc1")
    >>> dx, grads = backward(z)
    >>> grads
    {'fc1.weight': array([[7., 7.]])}
    """
    return named(ops.linear, x, params, [f"{name}.weight", f"{name}.bias"])


def layer_norm(x: Array, params: Params, name: str, *, eps: float = 1e-5) -> tuple[Array, Backward]:
    """Give the channels of every row mean 0 and variance 1, then a learnt scale and shift, as `ops.layer_norm`.

    Parameters
    ----------
    x : array, (..., C)
    params : mapping of str to array
    name : str
        ``name.weight`` and ``name.bias`` are (C,), or (C, 1, 1), as of a norm of maps with one position.
    eps : float, default 1e-5
        What is added to the variance.

    Returns
    -------
    n : array, shape of `x`
    backward : callable
        ``backward(dn, accumulate_into=None)`` returns ``(dx, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"norm.weight": np.array([1.0, 2.0]), "norm.bias": np.zeros(2)}
    >>> n, backward = layer_norm(np.array([[1.0, 3.0]]), params, "norm", eps=0.0)
    >>> n
    array([[-1.,  2.]])
    >>> dx, grads = backward(n)
    >>> grads
    {'norm.weight': array([1., 2.]), 'norm.bias': array([-1.,  2.])}
    """

    def normalize(x, weight, bias):
        return ops.layer_norm(x, weight.reshape(x.shape[-1]), bias.reshape(x.shape[-1]), eps=eps)

    return named(normalize, x, params, [f"{name}.weight", f"{name}.bias"])


def group_norm(x: Array, params: Params, name: str, groups: int) -> tuple[Array, Backward]:
    """Give groups of channels mean 0 and variance 1, then channels a learnt scale and shift, as `ops.group_norm`.

    Parameters
    ----------
    x : array, (B, C, H, W)
    params : mapping of str to array
    name : str
        ``name.weight`` and ``name.bias`` are (C,).
    groups : int

    Returns
    -------
    n : array, shape of `x`
    backward : callable
        ``backward(dn, accumulate_into=None)`` returns ``(dx, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"gn.weight": np.array([1.0, 2.0]), "gn.bias": np.zeros(2)}
    >>> n, backward = group_norm(np.array([[[[1.0]], [[3.0]]]]), params, "gn", 1)
    >>> n.ravel().round(3)
    array([-1.,  2.])
    >>> dx, grads = backward(n)
    >>> {name: gradient.round(3) for name, gradient in grads.items()}
    {'gn.weight': array([1., 2.]), 'gn.bias': array([-1.,  2.])}
    """
    return named(functools.partial(ops.group_norm, groups=groups), x, params, [f"{name}.weight", f"{name}.bias"])


def score(v: Array, params: Params, name: str) -> tuple[Array, Backward]:
    """Score every position of a map laid out in a row, (B, C, N) to (B, N), as `ops.score`.

    Parameters
    ----------
    v : array, (B, C, N)
    params : mapping of str to array
    name : str
        ``name.weight`` is (1, C, 1, 1) and ``name.bias`` (1,).

    Returns
    -------
    s : array, (B, N)
    backward : callable
        ``backward(ds, accumulate_into=None)`` returns ``(dv, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"score.weight": np.ones((1, 2, 1, 1)), "score.bias": np.ones(1)}
    >>> s, backward = score(np.ones((1, 2, 3)), params, "score")
    >>> s
    array([[3., 3., 3.]])
    """
    return named(ops.score, v, params, [f"{name}.weight", f"{name}.bias"])


def relative_logits(q: Array, params: Params, name: str, *, scale: float = 1.0) -> tuple[Array, Backward]:
    """Multiply queries, (..., d, h, w), with the vectors of all keys' offsets, as `ops.relative_logits`.

    Parameters
    ----------
    q : array, (..., d, h, w)
    params : mapping of str to array
    name : str
        The vectors are ``name.height_rel``, (2K - 1, d), and ``name.width_rel``, (2L - 1, d).
    scale : float, default 1

    Returns
    -------
    z : array, (..., h w, K L)
    backward : callable
        ``backward(dz, accumulate_into=None)`` returns ``(dq, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"pos.height_rel": np.array([[0.0]]), "pos.width_rel": np.array([[2.0], [3.0], [4.0]])}
    >>> z, backward = relative_logits(np.array([[[1.0, 10.0]]]), params, "pos")
    >>> z
    array([[ 3.,  4.],
           [20., 30.]])
    >>> dq, grads = backward(z)
    >>> grads["pos.width_rel"].ravel()
    array([200., 303.,   4.])
    """
    logits = functools.partial(ops.relative_logits, scale=scale)
    return named(logits, q, params, [f"{name}.height_rel", f"{name}.width_rel"])


def gather_relative(params: Params, name: str, size: tuple[int, int]) -> tuple[Array, Backward]:
    """Look up for each pair of positions what a table has for their offset, (count, N, N), as `ops.gather_relative`.

    Parameters
    ----------
    params : mapping of str to array
    name : str
        The table's own: ``params[name]`` is ((2h - 1)(2w - 1), count).
    size : pair of int
        h and w.

    Returns
    -------
    g : array, (count, h w, h w)
    backward : callable
        ``backward(dg)`` returns `grads` alone: no map is read.

    Examples
    --------
    >>> import numpy as np
    >>> g, backward = gather_relative({"table": np.array([[10.0], [20.0], [30.0]])}, "table", (1, 2))
    >>> g
    array([[[20., 10.],
            [30., 20.]]])
    >>> backward(np.ones_like(g))["table"].ravel()
    array([1., 2., 1.])
    """
    g, back = ops.gather_relative(params[name], size)
    return g, lambda dg: {name: back(dg)}


def scale(x: Array, params: Params, name: str) -> tuple[Array, Backward]:
    """Multiply by one learnt number, as `ops.gate`.

    Parameters
    ----------
    x : array, any shape
    params : mapping of str to array
    name : str
        The number's own: ``params[name]`` is (1,).

    Returns
    -------
    y : array, shape of `x`
    backward : callable
        ``backward(dy, accumulate_into=None)`` returns ``(dx, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> y, backward = scale(np.array([[1.0, 2.0]]), {"gamma": np.array([10.0])}, "gamma")
    >>> y
    array([[10., 20.]])
    """
    return named(ops.gate, x, params, [name])


def affine(x: Array, params: Params, weight: str, bias: str) -> tuple[Array, Backward]:
    """Give every channel a learnt scale and shift: y = w x + b.

    Parameters
    ----------
    x : array, (B, C, H, W)
    params : mapping of str to array
    weight, bias : str
        The names of the two, (1, C, 1, 1) each.

    Returns
    -------
    y : array, shape of `x`
    backward : callable
        ``backward(dy, accumulate_into=None)`` returns ``(dx, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"scale": np.full((1, 1, 1, 1), 2.0), "shift": np.ones((1, 1, 1, 1))}
    >>> y, backward = affine(np.array([[[[3.0, 4.0]]]]), params, "scale", "shift")
    >>> y
    array([[[[7., 9.]]]])
    >>> dx, grads = backward(np.ones_like(y))
    >>> {name: gradient.ravel() for name, gradient in grads.items()}
    {'scale': array([7.]), 'shift': array([2.])}
    """
    return named(gating.affine, x, params, [weight, bias])


def batch_norm(
    x: Array, params: Params, name: str, *, training: bool, momentum: float = 0.1
) -> tuple[tuple[Array, dict[str, Array]], Backward]:
    """Give every channel mean 0 and variance 1, then a learnt scale and shift, as `ops.batch_norm`.

    Parameters
    ----------
    x : array, (B, C, H, W)
    params : mapping of str to array
    name : str
        The parameters are ``name.weight`` and ``name.bias``, the buffers ``name.running_mean`` and
        ``name.running_var``, (C,).
    training : bool
        Whether the statistics are the batch's own.
    momentum : float, default 0.1
        Weight of the batch in the new running statistics.

    Returns
    -------
    (y, running) : array, shape of `x`, and dict of array
        `running` holds the new buffers by name; it is empty unless in training.
    backward : callable
        ``backward(dy, accumulate_into=None)`` returns ``(dx, grads)``; the buffers have no gradients.

    Raises
    ------
    ValueError
        If in training a channel has but one value, or none: a system's own door may not have seen this map.

    Examples
    --------
    >>> import numpy as np
    >>> params = {f"bn.{word}": np.ones(1) for word in ("weight", "bias", "running_mean", "running_var")}
    >>> (y, running), backward = batch_norm(np.zeros((1, 1, 2, 2)), params, "bn", training=True)
    >>> running
    {'bn.running_mean': array([0.9]), 'bn.running_var': array([0.9])}
    """
    if training:
        check_variance(f"batch_norm {name!r}", x)
    statistics = [f"{name}.running_mean", f"{name}.running_var"]
    old = {"running_mean": params[statistics[0]], "running_var": params[statistics[1]]}

    def normalize(x, weight, bias):
        return ops.batch_norm(x, weight=weight, bias=bias, **old, training=training, momentum=momentum)

    (y, new), backward = named(normalize, x, params, [f"{name}.weight", f"{name}.bias"])
    return (y, dict(zip(statistics, new, strict=True)) if training else {}), backward


def conv_norm_act(
    x: Array,
    params: Params,
    name: str,
    *,
    training: bool,
    parts: tuple[str, str] = CONV_AND_NORM,
    activation: str = "relu",
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[tuple[Array, dict[str, Array]], Backward]:
    """Convolve without bias, normalise by batch norm, apply an activation: (B, C, H, W) to (B, O, H', W').

    Parameters
    ----------
    x : array, (B, C, H, W)
    params : mapping of str to array
    name : str
        `name` is that of the layers together, which are numbered as in PyTorch's `Sequential`: the kernel is
        ``name.0.weight``, and the norm's parameters and buffers are ``name.1.weight``, ``name.1.bias`` and so on.
    training : bool
        As `batch_norm`.
    parts : pair of str, default ("0", "1")
        Names of the convolution and of the norm within the layer.
    activation : {"relu", "leaky_relu", "silu", "gelu", "hard_swish"}, default "relu"
        The function that comes last.
    stride, dilation, groups : int, default 1
        As `conv`. There are as many zeros on every side as keep the size of the map where `stride` is 1.

    Returns
    -------
    (s, running) : array, (B, O, H', W'), and dict of array
        H' is H / stride, rounded up, and W' likewise; `running` as of `batch_norm`.
    backward : callable
        ``backward(ds)`` returns ``(dx, grads)``.

    Notes
    -----
    ``derivations/layers.md`` derives the gradient; the tags are its equation numbers, and x is its t.

    Examples
    --------
    >>> import numpy as np
    >>> declared = conv_norm_act_parameters("conv5a", 4, 8, 3) | conv_norm_act_buffers("conv5a", 4)
    >>> params = {name: parameter.draw(np.random.RandomState(0)) for name, parameter in declared.items()}
    >>> (s, running), backward = conv_norm_act(np.ones((2, 8, 7, 5)), params, "conv5a", training=False)
    >>> dx, grads = backward(s)
    >>> {name: grad.shape for name, grad in grads.items()}
    {'conv5a.0.weight': (4, 8, 3, 3), 'conv5a.1.weight': (4,), 'conv5a.1.bias': (4,)}
    """
    kernel, norm = (f"{name}.{part}" for part in parts)
    padding = dilation * (params[f"{kernel}.weight"].shape[2] // 2)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    z, back_conv = conv(x, params, kernel, **options)                         # (1)
    (h, running), back_norm = batch_norm(z, params, norm, training=training)  # (2)
    s, back_activation = ACTIVATIONS[activation](h)                           # (3)

    def backward(ds):
        dh = back_activation(ds)                                              # (3')
        dz, grads_norm = back_norm(dh)                                        # (2')
        dx, grads_conv = back_conv(dz)                                        # (1')
        return dx, grads_conv | grads_norm

    return (s, running), backward


def merge(*named: dict[str, Array]) -> dict[str, Array]:
    """Put what several layers name into one dict.

    Parameters
    ----------
    *named : dict of array

    Returns
    -------
    dict of array

    Examples
    --------
    >>> merge({"fc1.weight": 1}, {"fc2.weight": 2})
    {'fc1.weight': 1, 'fc2.weight': 2}
    """
    return functools.reduce(operator.or_, named)


def submodule(forward: Callable[..., Pass], params: Params, name: str, *inputs: Array) -> Pass:
    """Run a system inside of another, whose parameters and buffers have names that begin with ``name.``.

    Parameters
    ----------
    forward : callable
        The inner system's `forward`.
    params : mapping of str to array
        Those of the whole.
    name : str
    *inputs : array

    Returns
    -------
    Pass
        The inner system's, with gradients and buffers by their names in the whole.

    Examples
    --------
    >>> import numpy as np
    >>> from npattn import ChannelAttention
    >>> run = submodule(ChannelAttention(channels=2).forward, {"sc.gamma": np.ones(1)}, "sc", np.ones((1, 2, 3, 3)))
    >>> dx, grads = run.backward(run.output)
    >>> grads
    {'sc.gamma': array([36.])}
    """
    run = forward(strip_prefix(f"{name}.", params), *inputs)
    back = run.backward  # alone: the inner output need not live on

    def backward(dy):
        dx, grads = back(dy)
        return dx, add_prefix(f"{name}.", grads)

    return replace(run, backward=backward, buffers=add_prefix(f"{name}.", run.buffers))


def named(primitive: Callable[..., Any], x: Array, params: Params, names: Sequence[str]) -> tuple[Any, Backward]:
    """Make a layer of a primitive: call it with the parameters of some names, and name their gradients.

    Parameters
    ----------
    primitive : callable
        ``primitive(x, *values)`` returns ``(y, backward)``, and ``backward(dy)`` a gradient for each argument. It may
        see the values in other shapes than they have in `params`.
    x : array
    params : mapping of str to array
    names : sequence of str
        In the order of the primitive's arguments; those of which there may be none, such as a bias, come last.

    Returns
    -------
    y
        What the primitive returns.
    backward : callable
        ``backward(dy, accumulate_into=None)`` returns ``(dx, grads)``.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"fc.weight": np.array([[3.0, 4.0]])}
    >>> z, backward = named(ops.linear, np.ones((1, 2)), params, ["fc.weight", "fc.bias"])
    >>> dx, grads = backward(z)
    >>> grads
    {'fc.weight': array([[7., 7.]])}
    """
    shapes = {name: params[name].shape for name in names if name in params}
    y, back = primitive(x, *(params[name] for name in shapes))

    def backward(dy, accumulate_into=None):
        dx, *gradients = back(dy)
        if accumulate_into is not None:
            dx = ops.accumulate(dx, accumulate_into)
        # A bias that isn't there has the gradient None, which is left over.
        pairs = zip(shapes.items(), gradients, strict=False)
        return dx, {name: gradient.reshape(shape) for (name, shape), gradient in pairs}

    return y, backward
