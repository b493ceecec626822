"""Mistakes in batch norm."""

from typing import Any

import numpy as np

from npattn.oracle.mistakes.arrays import both, on_map, several_channels, several_images
from npattn.oracle.mistakes.families import ONLY_IMAGE_0, ONLY_LAST_IMAGE
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, always, argument, gradient, instead, value
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

NAME = "batch_norm"
AXES = (0, 2, 3)


def per_channel(a: Array) -> Array:
    return a[:, None, None]


def in_training(*_: Any, training: bool, **__: Any) -> bool:
    return training


def several(x: Array, *_: Any, **__: Any) -> bool:
    """Whether the variance of a channel says anything."""
    return x.size > 2 * x.shape[1]


def mean_of(x: Array) -> Array:
    return x.mean(axis=AXES)


def variance_of(x: Array, mean: Array) -> Array:
    centred = x - per_channel(mean)
    return mean_of(centred * centred)


def statistics(x: Array, weight: Array, bias: Array, *running: Array, training: bool, **_: Any) -> tuple[Array, ...]:
    """Return mean and variance, as batch norm takes them."""
    return (mean := mean_of(x), variance_of(x, mean)) if training else running


def normalised(name: str, deviation: Apply, when: When = always, statistics: Apply = statistics) -> Mistake:
    """Normalise by another deviation or other statistics: ``deviation(variance, eps, count)``."""

    def change(result, x, weight, bias, *running, **options):
        mean, variance = statistics(x, weight, bias, *running, **options)
        scale = 1 / deviation(variance, options["eps"], x.size // x.shape[1])
        return (x - per_channel(mean)) * per_channel(scale * weight) + per_channel(bias), result[1]

    return value(NAME, name, change, when)


def root(variance: Array, eps: float, count: float | None) -> Array:
    return np.sqrt(variance + eps)


def differentiated(name: str, change: Apply) -> Mistake:
    """Differentiate otherwise through the statistics: ``change(dy, n, mean, slope, count)``, n being what is normal.

    `mean` is that of dy over a channel, `slope` that of dy n.
    """

    def changed(gradients, dy, x, weight, *others, eps, **options):
        _, dweight, dbias = gradients
        mean, variance = statistics(x, weight, *others, **options)
        scale, count = 1 / root(variance, eps, None), x.size // x.shape[1]
        n = (x - per_channel(mean)) * per_channel(scale)
        dx = change(dy, n, per_channel(dbias / count), per_channel(dweight / count), count)
        return dx * per_channel(weight * scale), dweight, dbias

    return gradient(NAME, None, name, changed, lambda x, *_, training, **__: training and several(x))


def about_running_mean(
    x: Array, weight: Array, bias: Array, running_mean: Array, *_: Any, **__: Any
) -> tuple[Array, ...]:
    return mean_of(x), mean_of((x - per_channel(running_mean)) ** 2)


def of_running_variance(
    x: Array, weight: Array, bias: Array, running_mean: Array, running_var: Array, **_: Any
) -> tuple[Array, ...]:
    return mean_of(x), running_var


def of_image_0(x: Array, *_: Any, **__: Any) -> tuple[Array, ...]:
    mean = x[0].mean(axis=(1, 2))
    return mean, ((x[0] - per_channel(mean)) ** 2).mean(axis=(1, 2))


def frozen(*_: Any, **__: Any) -> bool:
    return False


TUNED_ON = [
    normalised("unbiased variance", lambda v, eps, n: np.sqrt(v * (n / (n - 1)) + eps), in_training),
    normalised("epsilon 1e-3", lambda v, eps, n: np.sqrt(v + 1e-3)),
    normalised("epsilon beside the root", lambda v, eps, n: np.sqrt(v) + eps),
    normalised("epsilon beside the root, 1e-3", lambda v, eps, n: np.sqrt(v) + 1e-3),
    normalised("no root", lambda v, eps, n: v + eps),
    value(NAME, "lost bias", lambda r, x, weight, bias, *_, **__: (r[0] - per_channel(bias), r[1])),
    argument(NAME, "training", "running statistics in training", frozen, in_training, way="both"),
    argument(
        NAME,
        "training",
        "statistics of the batch in inference",
        always,
        lambda x, *_, training, **__: not training and several(x),
        way="both",
    ),
    differentiated("mean constant", lambda dy, n, mean, slope, count: dy - n * slope),
    differentiated("variance constant", lambda dy, n, mean, slope, count: dy - mean),
    differentiated("statistics constant", lambda dy, n, mean, slope, count: dy),
    differentiated("unbiased", lambda dy, n, mean, slope, count: dy - mean - n * (slope * (count / (count - 1)))),
    ONLY_IMAGE_0.in_upstream(NAME, 1, 2),
    gradient(NAME, 1, "of weight from x as it is", lambda g, dy, x, *_, **__: (dy * x).sum(axis=AXES)),
]
HELD_OUT = [
    normalised("variance about the running mean", root, in_training, about_running_mean),
    normalised("running variance, own mean", root, in_training, of_running_variance),
    normalised("statistics of image 0", root, both(in_training, both(on_map, several_images)), of_image_0),
    value(
        NAME,
        "bias before the scale",
        lambda r, x, weight, bias, *_, **__: (r[0] + per_channel((weight - 1) * bias), r[1]),
    ),
    argument(NAME, "training", "with running statistics", frozen, in_training, way="backward"),
]


def over_axes(axes: tuple[int, ...]) -> Apply:
    """Return a function that normalises over other axes, in training."""

    def change(result, x, weight, bias, *_, eps, **__):
        centred = x - x.mean(axis=axes, keepdims=True)
        n = centred / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
        return n * per_channel(weight) + per_channel(bias), result[1]

    return change


def biased(result: Any, x: Array, *others: Any, momentum: float, **_: Any) -> tuple[Array, ...]:
    """Remember the variance of the batch as it is."""
    old, count = others[3], x.size // x.shape[1]
    new = result[1][1] - (1 - momentum) * old
    return result[0], (result[1][0], (1 - momentum) * old + new * ((count - 1) / count))


def kept(result: Any, x: Array, weight: Array, bias: Array, *running: Array, **_: Any) -> tuple[Array, ...]:
    """Remember nothing."""
    return result[0], running


def of_batch_alone(result: Any, x: Array, *others: Any, momentum: float, **_: Any) -> tuple[Array, ...]:
    """Remember the batch's statistics as they are."""
    old = others[2:]
    return result[0], tuple((new - (1 - momentum) * a) / momentum for new, a in zip(result[1], old, strict=True))


def by_running(
    result: Any, x: Array, weight: Array, bias: Array, *running: Array, eps: float, **_: Any
) -> tuple[Array, ...]:
    """Normalise by the running statistics."""
    mean, variance = map(per_channel, running)
    return (x - mean) / np.sqrt(variance + eps) * per_channel(weight) + per_channel(bias), result[1]


def left_out(norm: Apply, x: Array, *others: Any, **options: Any) -> tuple[Any, Backward]:
    (_, running), backward = norm(x, *others, **options)
    return (x * 1.0, running), lambda dy: (dy, *(np.zeros_like(g) for g in backward(dy)[1:]))


def averaged(g: Array, dy: Array, x: Array, *_: Any, **__: Any) -> Array:
    return g / (x.size // x.shape[1])


def not_divided(g: Array, dy: Array, x: Array, *others: Any, eps: float, **options: Any) -> Array:
    _, variance = statistics(x, *others, **options)
    return g * per_channel(root(variance, eps, None))


ADDED = [
    value(NAME, "normalised over each image (layer norm)", over_axes((1, 2, 3)), several),
    value(NAME, "normalised over each image and channel (instance norm)", over_axes((2, 3)), on_map),
    value(NAME, "normalised over channels", over_axes((1,)), several_channels),
    value(NAME, "normalised over the batch alone", over_axes((0,)), both(in_training, several_images)),
    value(NAME, "running statistics in training, while they are updated", by_running, in_training),
    value(NAME, "running statistics not updated", kept, in_training),
    value(NAME, "running statistics replaced", of_batch_alone, in_training),
    value(NAME, "bias twice", lambda r, x, weight, bias, *_, **__: (r[0] + per_channel(bias), r[1])),
    argument(NAME, 1, "weight lost", lambda x, weight, *_, **__: np.ones_like(weight)),
    argument(NAME, 1, "1 added to the weight", lambda x, weight, *_, **__: weight + 1),
    instead(NAME, "weight and bias exchanged", lambda norm, x, w, b, *o, **options: norm(x, b, w, *o, **options)),
    instead(NAME, "left out", left_out),
    value(NAME, "followed by a ReLU", lambda r, *_, **__: (np.maximum(r[0], 0), r[1])),
    gradient(NAME, 0, "not divided by the deviation", not_divided),
    differentiated("mean's sum, not divided", lambda dy, n, mean, slope, count: dy - mean * count - n * slope),
    differentiated("variance's sum, not divided", lambda dy, n, mean, slope, count: dy - mean - n * slope * count),
    ONLY_LAST_IMAGE.in_upstream(NAME, 1, 2),
    gradient(NAME, 0, "weight lost", lambda g, dy, x, weight, *_, **__: g / per_channel(weight)),
    *(
        gradient(NAME, i, f"of the {a} averaged, not summed", averaged, several)
        for i, a in ((1, "weight"), (2, "bias"))
    ),
    value(NAME, "biased variance remembered", biased, in_training),
    argument(NAME, "momentum", "momentum the other way round", lambda *_, momentum, **__: 1 - momentum, in_training),
    *(
        argument(NAME, "momentum", f"momentum {number}", lambda *_, number=number, **__: number, in_training)
        for number in (0.1, 0.01)
    ),
    normalised("epsilon lost", lambda v, eps, n: np.sqrt(v)),
    normalised("epsilon 1e-6", lambda v, eps, n: np.sqrt(v + 1e-6)),
    normalised("epsilon 1e-5", lambda v, eps, n: np.sqrt(v + 1e-5), lambda *_, eps, **__: eps != 1e-5),
    normalised("epsilon 1e-2", lambda v, eps, n: np.sqrt(v + 1e-2)),
    normalised("epsilon beside the root, 1e-2", lambda v, eps, n: np.sqrt(v) + 1e-2),
    normalised("epsilon 0.1", lambda v, eps, n: np.sqrt(v + 0.1)),
    normalised("epsilon 1", lambda v, eps, n: np.sqrt(v + 1)),
]
