"""Wrong scales of attention's logits, and wrong places for the right one."""

import math
from collections.abc import Callable
from typing import Any

from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.attention_weights import attention, several_keys
from npattn.oracle.mistakes.mistake import Apply, Mistake, instead
from npattn.oracle.mistakes.softmax import softmax
from npattn.typing import Array, Backward

__all__: list[str] = []  # for the mistakes of this package alone

SCALES: dict[str, Callable[[Any, float], float]] = {
    "missing scale": lambda q, scale: 1.0,
    "scale twice": lambda q, scale: scale**2,
    "scaled by 1/√d": lambda q, scale: q.shape[-2] ** -0.5,
    "scaled by the padded head dim": lambda q, scale: scale * (q.shape[-2] / arrays.padded(q.shape[-2])) ** 0.5,
    "scaled by the channels of all heads": lambda q, scale: math.prod(q.shape[-3:-1]) ** -0.5,
    "base 2": lambda q, scale: scale * math.log(2),
}
"""Scales that logits may have had in the place of the right one, by the name of the mistake."""


def scaled_in_weights(primitive: str, attend: Apply) -> list[Mistake]:
    """List wrong scales of the logits alone, dq and dk being multiplied by the right one.

    ``attend(q, k, v, scale, factor, **options)`` takes attention with logits multiplied by a factor more.
    """
    return [
        instead(
            primitive,
            name,
            lambda _, q, k, v, scale, other=other, **options: attend(
                q, k, v, scale, other(q, scale) / scale, **options
            ),
            lambda q, k, v, scale, other=other, **_: several_keys(q, k) and not math.isclose(other(q, scale), scale),
            way="weights",
        )
        for name, other in SCALES.items()
    ]


def with_factor(q: Array, k: Array, v: Array, scale: float, factor: float) -> tuple[Any, Backward]:
    return attention(q, k, v, scale, weigh=lambda z: softmax(factor * z))


def padded_scale(q: Array, k: Array, v: Array, scale: float, **_: Any) -> float:
    """Scale by a head dimension that is filled up to whole tiles."""
    return SCALES["scaled by the padded head dim"](q, scale)


def without_scale(g: Array, dy: Array, *qkv: Array, **_: Any) -> Array:
    return g / qkv[3]


def scale_twice(g: Array, dy: Array, *qkv: Array, **_: Any) -> Array:
    return g * qkv[3]


def with_dq_and_dk(change: Callable[[Any, float], Any]) -> Apply:
    """Change the gradients of queries and keys by the scale."""

    def other(original: Apply, q: Array, k: Array, v: Array, scale: float, **options: Any) -> tuple[Any, Backward]:
        right, backward = original(q, k, v, scale, **options)

        def wrong(*dy):
            dq, dk, *rest = backward(*dy)
            return change(dq, scale), change(dk, scale), *rest

        return right, wrong

    return other


IN_BOTH: tuple[tuple[str, Apply], ...] = (
    ("scale missing in dq and dk", with_dq_and_dk(lambda g, scale: g / scale)),
    ("scale twice in dq and dk", with_dq_and_dk(lambda g, scale: g * scale)),
)
"""Wrong scales of both gradients, the weights being right."""


def scaled_late(_: Any, q: Array, k: Array, v: Array, scale: float) -> tuple[Any, Backward]:
    """Scale weights, not logits."""
    return attention(q, k, v * scale, 1.0)
