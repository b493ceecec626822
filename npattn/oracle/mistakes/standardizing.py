"""Mistakes in layer norm, group norm and z-scores."""

from typing import Any

import numpy as np

from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.arrays import both, longer, several_channels
from npattn.oracle.mistakes.families import ONLY_IMAGE_0, ONLY_LAST_IMAGE
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, argument, gradient, instead, value
from npattn.typing import Array, Backward

__all__ = ["ADDED"]

LAYER, GROUP, SCORE = "layer_norm", "group_norm", "z_score"
EPSILONS = {"epsilon lost": 0.0, "epsilon 1e-6": 1e-6, "epsilon 1e-3": 1e-3, "epsilon 1e-2": 1e-2, "epsilon 1": 1.0}


def blocks(x: Array, groups: int) -> Array:
    """Lay what is normalised together along the last axis: (B, groups, ...)."""
    return x.reshape(x.shape[0], groups, -1)


def parts(
    x: Array, weight: Array, bias: Array, groups: int | None = None, **options: Any
) -> tuple[Any, Any, Any, Apply]:
    """Return what is normalised together along the last axis, scale and shift of the same shape, and what undoes it."""
    if groups is None:
        return x, weight, bias, lambda a: a
    per_channel = (np.broadcast_to(a[:, None, None], x.shape[1:]) for a in (weight, bias))
    scale, shift = (a.reshape(groups, -1) for a in per_channel)
    return blocks(x, groups), scale, shift, lambda a: a.reshape(x.shape)


def several(x: Array, weight: Array, bias: Array, groups: int | None = None, **_: Any) -> bool:
    """Whether a variance says anything."""
    return (x if groups is None else blocks(x, groups)).shape[-1] > 2


def normalised(primitive: str, name: str, deviation: Apply, when: When = several) -> Mistake:
    """Normalise by another deviation: ``deviation(variance, eps, count)``."""

    def change(result, x, weight, bias, *groups, eps, **options):
        rows, scale, shift, undo = parts(x, weight, bias, *groups, **options)
        centred = rows - rows.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        return undo(centred / deviation(variance, eps, rows.shape[-1]) * scale + shift)

    return value(primitive, name, change, when)


def differentiated(primitive: str, name: str, change: Apply) -> Mistake:
    """Differentiate otherwise through the statistics: ``change(dn, n, mean, along)``, n being what is normal."""

    def changed(gradients, dy, x, weight, bias, *groups, eps, **options):
        rows, scale, _, undo = parts(x, weight, bias, *groups, **options)
        centred = rows - rows.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
        n, dn = centred / deviation, dy.reshape(rows.shape) * scale
        mean, along = (a.mean(axis=-1, keepdims=True) for a in (dn, dn * n))
        return undo(change(dn, n, mean, along) / deviation), *gradients[1:]

    return gradient(primitive, None, name, changed, several)


def scale_of(x: Array, weight: Array) -> Array:
    """Return the weight as it stands beside a map of channels first, or last."""
    return weight if x.shape[-1] == len(weight) and x.ndim != 4 else weight[:, None, None]


def left_out(norm: Apply, x: Array, weight: Array, bias: Array, *others: Any, **options: Any) -> tuple[Any, Backward]:
    _, backward = norm(x, weight, bias, *others, **options)
    return x * 1.0, lambda dy: (dy, *(np.zeros_like(g) for g in backward(dy)[1:]))


def exchanged(norm: Apply, x: Array, weight: Array, bias: Array, *others: Any, **options: Any) -> tuple[Any, Backward]:
    return norm(x, bias, weight, *others, **options)


def of_both(primitive: str) -> list[Mistake]:
    """List the mistakes that both norms know."""
    return [
        normalised(primitive, "unbiased variance", lambda v, eps, n: np.sqrt(v * (n / (n - 1)) + eps)),
        normalised(primitive, "epsilon beside the root", lambda v, eps, n: np.sqrt(v) + eps),
        normalised(primitive, "no root", lambda v, eps, n: v + eps),
        differentiated(primitive, "mean constant", lambda dn, n, mean, along: dn - n * along),
        differentiated(primitive, "variance constant", lambda dn, n, mean, along: dn - mean),
        differentiated(primitive, "statistics constant", lambda dn, n, mean, along: dn),
        ONLY_IMAGE_0.in_upstream(primitive, 1, 2),
    ]


def added_to(primitive: str) -> list[Mistake]:
    """List further mistakes that both norms know."""
    return [
        *(
            normalised(primitive, name, lambda v, eps, n, other=other: np.sqrt(v + other))
            for name, other in EPSILONS.items()
        ),
        *(
            value(primitive, f"padding to a multiple of {size} counted in mean and variance", *padding_counted(size))
            for size in (16, 32)
        ),
        *(
            form(primitive, f"last tile of {size} left out of mean and variance", *whole_tiles(size))
            for size in (arrays.TILE, *arrays.TILES)
            for form in (value, read_by_weight)
        ),
        differentiated(primitive, "mean's sum, not divided", lambda dn, n, mean, a: dn - mean * n.shape[-1] - n * a),
        differentiated(
            primitive, "variance's sum, not divided", lambda dn, n, mean, a: dn - mean - n * a * n.shape[-1]
        ),
        ONLY_LAST_IMAGE.in_upstream(primitive, 1, 2),
        argument(primitive, 1, "weight lost", lambda x, weight, *_, **__: np.ones_like(weight)),
        argument(primitive, 1, "1 added to the weight", lambda x, weight, *_, **__: weight + 1),
        argument(primitive, 2, "lost bias", lambda x, weight, bias, *_, **__: np.zeros_like(bias)),
        argument(primitive, 2, "bias twice", lambda x, weight, bias, *_, **__: 2 * bias),
        instead(primitive, "weight and bias exchanged", exchanged),
        instead(primitive, "left out", left_out),
        gradient(primitive, 0, "weight lost", lambda g, dy, x, weight, *_, **__: g / scale_of(x, weight)),
    ]


def padding_counted(size: int) -> tuple[Apply, When]:
    """Let zeros that fill up what is normalised to a multiple of a size take part in mean and variance."""

    def length(x, groups):
        return (x if groups is None else blocks(x, groups)).shape[-1]

    def change(result, x, weight, bias, groups=None, *, eps, **options):
        rows, scale, shift, undo = parts(x, weight, bias, *([] if groups is None else [groups]), **options)
        n = -(-length(x, groups) // size) * size
        mean = rows.sum(axis=-1, keepdims=True) / n
        variance = (rows * rows).sum(axis=-1, keepdims=True) / n - mean * mean
        return undo((rows - mean) / np.sqrt(variance + eps) * scale + shift)

    def when(x, weight, bias, groups=None, **_):
        return several(x, weight, bias, groups) and length(x, groups) % size > 0

    return change, when


def read_by_weight(primitive: str, name: str, change: Apply, when: When) -> Mistake:
    """Normalise otherwise, and make the gradient of the weight of what is there; that of x is right."""

    def other(norm, x, weight, bias, *groups, **options):
        right, backward = norm(x, weight, bias, *groups, **options)
        n = change(right, x, np.ones_like(weight), np.zeros_like(bias), *groups, **options)

        def wrong(dy):
            dx, dweight, dbias = backward(dy)
            axes = tuple(i for i in range(x.ndim) if i != (1 if groups else x.ndim - 1))
            return dx, (dy * n).sum(axis=axes).reshape(dweight.shape), dbias

        return change(right, x, weight, bias, *groups, **options), wrong

    return instead(primitive, name, other, when, way="both")


def whole_tiles(size: int) -> tuple[Apply, When]:
    """Take mean and variance of whole tiles alone: the change, and when something is left over."""

    def start(x, groups):
        return arrays.tail_of((x if groups is None else blocks(x, groups)).shape[-1], size)

    def change(result, x, weight, bias, groups=None, *, eps, **options):
        rows, scale, shift, undo = parts(x, weight, bias, *([] if groups is None else [groups]), **options)
        some = rows[..., : start(x, groups)]
        centred = some - some.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        return undo((rows - some.mean(axis=-1, keepdims=True)) / np.sqrt(variance + eps) * scale + shift)

    return change, lambda x, weight, bias, groups=None, **_: start(x, groups) is not None


def without_mean(x: Array, weight: Array, bias: Array, *groups: int, eps: float, **options: Any) -> Array:
    rows, scale, shift, undo = parts(x, weight, bias, *groups, **options)
    return undo(rows / np.sqrt((rows * rows).mean(axis=-1, keepdims=True) + eps) * scale + shift)


def over_tokens(result: Any, x: Array, weight: Array, bias: Array, *, eps: float) -> Array:
    centred = x - x.mean(axis=-2, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-2, keepdims=True) + eps) * weight + bias


def over_batch(y: Array, x: Array, weight: Array, bias: Array, groups: int, *, eps: float) -> Array:
    """Normalise each channel over all images."""
    axes = (0, 2, 3)
    centred = x - x.mean(axis=axes, keepdims=True)
    n = centred / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
    return n * weight[:, None, None] + bias[:, None, None]


def interleaved(norm: Apply, x: Array, weight: Array, bias: Array, groups: int, **options: Any) -> tuple[Any, Backward]:
    """Group channels that stand `groups` apart."""
    order = np.arange(x.shape[1]).reshape(-1, groups).T.ravel()
    back = np.argsort(order)
    y, backward = norm(x[:, order], weight[order], bias[order], groups, **options)

    def backward_too(dy):
        dx, dweight, dbias = backward(dy[:, order])
        return dx[:, back], dweight[back], dbias[back]

    return y[:, back], backward_too


def several_groups(x: Array, weight: Array, bias: Array, groups: int, **_: Any) -> bool:
    return 1 < groups < x.shape[1]


def several_numbers(x: Array, *_: Any, **__: Any) -> bool:
    """Whether a row has more numbers than two, whose z-scores are always the same."""
    return x.shape[-1] > 2


def several_rows(x: Array, *_: Any, **__: Any) -> bool:
    return x.size > x.shape[-1]


def scored(name: str, change: Apply, when: When = several_numbers) -> Mistake:
    """Score otherwise: ``change(x, centred, variance, eps)``."""

    def changed(z, x, eps=1e-5, *, correction=1):
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred * centred).sum(axis=-1, keepdims=True) / max(x.shape[-1] - correction, 1)
        return change(x, centred, variance, eps)

    return value(SCORE, name, changed, when)


def of_score_differentiated(name: str, change: Apply) -> Mistake:
    """Differentiate otherwise through the statistics: ``change(direct, shared)``, a deviation's gradients by both ways.

    One is by its own score, the other by the standard deviation, which all share.
    """

    def changed(g, dz, x, eps=1e-5, *, correction=1):
        degrees = max(x.shape[-1] - correction, 1)
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred * centred).sum(axis=-1, keepdims=True) / degrees)
        along = (dz * centred).sum(axis=-1, keepdims=True) / (deviation + eps) ** 2
        return change(dz / (deviation + eps), -along * centred / (degrees * np.where(deviation == 0, 1, deviation)))

    return gradient(SCORE, 0, name, changed, several_numbers)


def without_row_mean(x: Array, centred: Array, variance: Array, eps: float) -> Array:
    return x / (np.sqrt((x * x).mean(axis=-1, keepdims=True)) + eps)


def with_other_count(z: Array, x: Array, eps: float = 1e-5, *, correction: int = 1) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    degrees = max(x.shape[-1] - (1 - correction), 1)
    return centred / (np.sqrt((centred * centred).sum(axis=-1, keepdims=True) / degrees) + eps)


def with_statistics_of_all_rows(z: Array, x: Array, eps: float = 1e-5, *, correction: int = 1) -> Array:
    centred = x - x.mean()
    return centred / (np.sqrt((centred * centred).sum() / max(x.size - correction, 1)) + eps)


def central(a: Array) -> Array:
    return a - a.mean(axis=-1, keepdims=True)


OF_SCORES = [
    scored("mean not subtracted", without_row_mean),
    scored("mean subtracted in the deviation alone", lambda x, c, v, e: x / (np.sqrt(v) + e)),
    scored("mean subtracted alone", lambda x, c, v, e: c),
    scored("left out", lambda x, c, v, e: x),
    value(SCORE, "divided by N for N - 1, or the reverse", with_other_count, several_numbers),
    value(SCORE, "statistics of all rows", with_statistics_of_all_rows, both(several_numbers, several_rows)),
    scored("sum for variance", lambda x, c, v, e: c / (np.sqrt((c * c).sum(axis=-1, keepdims=True)) + e)),
    scored("no root", lambda x, c, v, e: c / (v + e)),
    scored("epsilon under the root", lambda x, c, v, e: c / np.sqrt(v + e)),
    *(
        scored(name, lambda x, c, v, e, other=other: c / (np.sqrt(v) + other + (other == 0) * 1e-290))
        for name, other in EPSILONS.items()
    ),
    of_score_differentiated("mean constant", lambda direct, shared: direct + shared),
    of_score_differentiated("deviation constant", lambda direct, shared: central(direct)),
    of_score_differentiated("statistics constant", lambda direct, shared: direct),
    of_score_differentiated("deviation's part with its sign turned", lambda direct, shared: central(direct - shared)),
]

ADDED = [
    *OF_SCORES,
    *of_both(LAYER),
    *of_both(GROUP),
    value(LAYER, "mean not subtracted (RMS norm)", lambda y, *a, **o: without_mean(*a, **o), several),
    value(GROUP, "mean not subtracted", lambda y, *a, **o: without_mean(*a, **o), several),
    value(LAYER, "over tokens, not channels", over_tokens, both(lambda x, *_, **__: x.ndim > 1, longer(-2))),
    value(
        GROUP, "normalised over the batch (batch norm)", over_batch, arrays.both(arrays.several_images, arrays.on_map)
    ),
    instead(GROUP, "channels of a group interleaved", interleaved, several_groups),
    *added_to(LAYER),
    *added_to(GROUP),
    argument(GROUP, 3, "one group (layer norm)", lambda *_, **__: 1, lambda x, w, b, groups, **_: groups > 1),
    argument(
        GROUP,
        3,
        "a group a channel (instance norm)",
        lambda x, *_, **__: x.shape[1],
        both(several_channels, lambda x, w, b, groups, **_: groups < x.shape[1] and x.shape[2] * x.shape[3] > 2),
    ),
]
