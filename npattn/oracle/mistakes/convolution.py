"""Mistakes in convolutions, and of linear layers."""

from typing import Any

import numpy as np

from npattn.oracle.mistakes import families
from npattn.oracle.mistakes.arrays import both, on_tiles_and_tail, several_images, unwritten, without_tail
from npattn.oracle.mistakes.families import (
    LAST_POSITION,
    LAST_TILE,
    LOSSES,
    NEIGHBOUR,
    ONLY_IMAGE_0,
    ONLY_LAST_IMAGE,
    UNCLEARED,
    of_last,
)
from npattn.oracle.mistakes.geometry import (
    dilated,
    dilated_along,
    grouped,
    keeps_size,
    moved,
    one_group,
    padded,
    padded_by,
    shifted_padding,
    stride_ignored,
    strided,
    too_dilated,
    undilated,
    with_edges,
)
from npattn.oracle.mistakes.mistake import (
    Apply,
    Mistake,
    When,
    argument,
    dropped,
    gradient,
    instead,
    mistake,
    upstream,
    value,
)
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

LAYERS = "conv2d", "linear"
ROWS = 4
"""Rows of a map that a kernel takes at once."""


def biased(x: Array, weight: Array, bias: Array | None, **_: Any) -> bool:
    return bias is not None


def adds_up_bias(x: Array, weight: Array, bias: Array | None, **_: Any) -> bool:
    return bias is not None and x.size > x.shape[1]


def without_bias(y: Array, x: Array, weight: Array, bias: Array, **_: Any) -> Array:
    return y - bias.reshape(bias.shape + (1,) * (y.ndim - 2))


def with_bias_twice(y: Array, *layer: Any, **_: Any) -> Array:
    return 2 * y - without_bias(y, *layer)


def unbiased_tail(y: Array, *layer: Any, **_: Any) -> Array:
    added = y - without_bias(y, *layer)
    return y - (added - without_tail(added))


def average(dbias: Array, dy: Array, *_: Any, **__: Any) -> Array:
    return dbias / (dy.size // dy.shape[1])


def of_one_position(dbias: Array, dy: Array, *_: Any, **__: Any) -> Array:
    return dy[-1].reshape(dy.shape[1], -1)[:, -1]


def layer_mistakes(name: str) -> list[Mistake]:
    return [
        value(name, "lost bias", without_bias, biased),
        ONLY_IMAGE_0.in_upstream(name, 1, 2),
        gradient(name, 0, "dx dropped", dropped),
        gradient(name, 2, "bias averaged, not summed", average, adds_up_bias),
        gradient(name, 2, "of the bias from one position of the last image", of_one_position, adds_up_bias),
    ]


def kernel(name: str, change: Apply, when: When, way: str = "forward") -> Mistake:
    """Convolve with another kernel, or make dx with it: ``change(weight)``, where ``when(weight)``."""
    return argument("conv2d", 1, name, lambda x, w, b, **_: change(w), lambda x, w, b, **_: when(w), way=way, of=(0,))


def kernel_mistakes(way: str) -> list[Mistake]:
    return [
        kernel("flipped kernel", lambda w: w[:, :, ::-1, ::-1].copy(), lambda w: w.shape[2] * w.shape[3] > 1, way),
        kernel("transposed weights", lambda w: w.swapaxes(0, 1).copy(), lambda w: 1 < len(w) == w.shape[1], way),
    ]


def tiles_of_rows(x: Array, weight: Array, bias: Array, **_: Any) -> bool:
    return weight.shape[2] > 1 and x.shape[2] > ROWS


def without_halo(conv2d: Apply, *arguments: Any, **options: Any) -> tuple[Any, Backward]:
    """Sum up dx within tiles of rows alone."""
    y, backward = conv2d(*arguments, **options)

    def wrong(dy):
        dx, *rest = backward(dy)
        own = np.zeros_like(dx)
        for first in range(0, dx.shape[2], ROWS):
            at, some = np.s_[:, :, first : first + ROWS], np.zeros_like(dy)
            some[at] = dy[at]
            own[at] = backward(some)[0][at]
        return own, *rest

    return y, wrong


TUNED_ON = [
    *(mistake for name in LAYERS for mistake in layer_mistakes(name)),
    *(mistake for way in ("forward", "backward") for mistake in kernel_mistakes(way)),
    kernel("transposed kernel", lambda w: w.swapaxes(2, 3).copy(), lambda w: w.shape[2] == w.shape[3] > 1),
    kernel("last input channel forgotten", unwritten(slice(None), -1), lambda w: w.shape[1] > 1),
    *(family.in_value("conv2d") for family in (LAST_TILE, LAST_POSITION, families.TRANSPOSED)),
    *(family.in_upstream("conv2d", 1) for family in (LAST_TILE, LAST_POSITION)),
]
HELD_OUT = [
    NEIGHBOUR.in_argument("conv2d", 0),
    *(family.in_upstream("conv2d", 1) for family in (NEIGHBOUR, families.FIRST_TILE, families.LAST_TILE_TWICE)),
    *(family.in_upstream("conv2d", 1) for family in (LOSSES, UNCLEARED)),
    *(family.in_upstream("linear", 1, 2, when=several_images) for family in (UNCLEARED, LOSSES)),
    *(value(name, "bias twice", with_bias_twice, biased) for name in LAYERS),
    value("conv2d", "bias left out of the last tile", unbiased_tail, both(biased, on_tiles_and_tail)),
    instead("conv2d", "edges for zeros", with_edges, padded),
    instead("conv2d", "dilation too large by one", too_dilated, keeps_size),
    instead("conv2d", "dilation too large by one", too_dilated, keeps_size, way="backward", of=(1,)),
    mistake("conv2d", "no sums across tiles of rows", "backward", without_halo, tiles_of_rows),
]


def has_taps(x: Array, weight: Array, *_: Any, **__: Any) -> bool:
    return weight.shape[2] * weight.shape[3] > 1


def square_taps(x: Array, weight: Array, *_: Any, **__: Any) -> bool:
    return weight.shape[2] == weight.shape[3] > 1


def square_layer(x: Array, weight: Array, *_: Any, **__: Any) -> bool:
    return weight.shape[0] == weight.shape[1] > 1


def of_last_rows(dy: Array, *_: Any, **__: Any) -> Array:
    """Leave the first half of the rows out."""
    return dy * (np.arange(len(dy)) >= len(dy) // 2).astype(dy.dtype)[:, None]


def even_rows(x: Array, *_: Any, **__: Any) -> bool:
    return len(x) > 1 and len(x) % 2 == 0


def read_transposed(x: Array, weight: Array, *_: Any, **__: Any) -> Array:
    """Read the memory of a weight as (in, out)."""
    return weight.reshape(weight.shape[1], weight.shape[0]).T.reshape(weight.shape)


def without_border(x: Array, weight: Array, *_: Any, **__: Any) -> Array:
    """Ignore the outermost ring of a kernel."""
    inner = np.zeros_like(weight)
    inner[:, :, 1:-1, 1:-1] = weight[:, :, 1:-1, 1:-1]
    return inner


def of_first_rows(dy: Array, *_: Any, **__: Any) -> Array:
    """Leave the second half of the rows out."""
    return dy * (np.arange(len(dy)) < len(dy) // 2).astype(dy.dtype)[:, None]


def pools_share_bias(x: Array, weight: Array, bias: Array | None, **_: Any) -> bool:
    return bias is not None and even_rows(x)


def read_with_inputs_first(x: Array, weight: Array, *_: Any, **__: Any) -> Array:
    """Read the memory of kernels as (in, out)."""
    taps = weight.reshape(weight.shape[1], weight.shape[0], *weight.shape[2:])
    return taps.swapaxes(0, 1)


def between_channels(x: Array, weight: Array, *_: Any, groups: int = 1, **__: Any) -> bool:
    return groups == 1 and min(weight.shape[:2]) > 1


def depthwise(x: Array, weight: Array, *_: Any, groups: int = 1, **__: Any) -> bool:
    return groups > 1 and len(weight) > 1


ADDED = [
    argument("conv2d", 1, "weight's memory read as (in, out)", read_with_inputs_first, between_channels),
    *(upstream(name, (1,), "of the weights from the last image alone", *of_last(0)) for name in LAYERS),
    *(
        upstream(name, (1,), f"of the weights from the last of every {count} images alone", *of_last(count))
        for name in LAYERS
        for count in (2, 4, 8)
    ),
    upstream("linear", (1, 2), "of the weights from the first half of the rows alone", of_first_rows, even_rows),
    value(
        "linear",
        "bias added once for two pools: half of it in each",
        lambda y, x, weight, bias: y - bias / 2,
        pools_share_bias,
    ),
    *(
        ONLY_LAST_IMAGE.in_upstream(name, *of)
        for name, of in (("conv2d", (1, 2)), ("linear", (1, 2)), ("conv1d", (1,)))
    ),
    instead("conv2d", "stride ignored", stride_ignored, strided),
    *(
        argument(
            "conv2d", 1, f"kernel of the {which} channel", lambda x, w, *_, by=by, **__: np.roll(w, by, 0), depthwise
        )
        for which, by in (("next", -1), ("previous", 1))
    ),
    argument("linear", 1, "weight's memory read as (in, out)", read_transposed, lambda x, w, *_: min(w.shape[:2]) > 1),
    argument(
        "conv2d", 1, "outermost ring of the kernel ignored", without_border, lambda x, w, *_, **__: min(w.shape[2:]) > 2
    ),
    *(
        instead(
            "conv2d", f"padding shifted by one: reads a {what} further {words}", moved(rows * by, columns * by), padded
        )
        for what, rows, columns in (("row and column", 1, 1), ("row", 1, 0), ("column", 0, 1))
        for by, words in ((1, "on"), (-1, "back"))
    ),
    *(
        instead("conv2d", f"dilation along the {which} alone", dilated_along(axis), dilated)
        for axis, which in enumerate(("height", "width"))
    ),
    upstream("linear", (1, 2), "of the weights from the second half of the rows alone", of_last_rows, even_rows),
    instead("conv2d", "padding circular", padded_by(lambda i, n: i % n), padded),
    instead(
        "conv2d", "padding reflected", padded_by(lambda i, n: n - 1 - abs(n - 1 - abs(i)) if n > 1 else 0 * i), padded
    ),
    instead("conv2d", "padding on one side", shifted_padding, padded),
    instead("conv2d", "dilation ignored", undilated, dilated),
    instead("conv2d", "groups ignored", one_group, grouped),
    *(
        instead("conv2d", f"{words} in {d}", other, when, way="backward", of=(i,))
        for words, other, when in (("dilation ignored", undilated, dilated), ("groups ignored", one_group, grouped))
        for i, d in enumerate(("dx", "the weights' gradient"))
    ),
    gradient("conv2d", 1, "of the weights flipped", lambda g, *_, **__: g[:, :, ::-1, ::-1], has_taps),
    gradient("conv2d", 1, "of the weights with kernels transposed", lambda g, *_, **__: g.swapaxes(2, 3), square_taps),
    gradient("conv2d", 1, "of the weights, in and out exchanged", lambda g, *_, **__: g.swapaxes(0, 1), square_layer),
    *(
        gradient(name, 1, "of the weights averaged over images", lambda g, dy, *_, **__: g / len(dy), several_images)
        for name in ("conv2d", "conv1d", "linear")
    ),
    *(value(name, "followed by a ReLU", lambda y, *_, **__: np.maximum(y, 0)) for name in (*LAYERS, "conv1d")),
    *(gradient(name, 2, "bias lost", dropped, biased) for name in LAYERS),
    *(gradient(name, 2, "bias twice", lambda g, *_, **__: 2 * g, biased) for name in LAYERS),
    *(gradient(name, 1, "of the weights lost", dropped) for name in ("conv2d", "conv1d", "linear")),
]
