"""The attention systems that are trained, each for a map of 24 channels; two of them are made of others here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn import layers
from npattn.attention import (
    CBAM,
    ChannelAttention,
    CoordinateAttention,
    EfficientChannelAttention,
    FlexibleAttention,
    PositionAttention,
    ScaledDotProductAttention,
    SqueezeExcitation,
)
from npattn.fields import integer
from npattn.module import Module, Pass
from npattn.parameters import Parameter, add_prefix
from npattn.typing import Array, Params
from npattn.wording import describe_type, did_you_mean

__all__ = ["SYSTEMS", "Identity", "PositionAndChannelAttention", "SelfAttention", "check_attention", "make_system"]

CHANNELS = 24
"""Of the map that the systems read."""
SYSTEMS: dict[str, Callable[[], Module]] = {
    "none": lambda: Identity(CHANNELS),
    "se": lambda: SqueezeExcitation(CHANNELS, reduction=4),
    "eca": lambda: EfficientChannelAttention(CHANNELS),
    "flexible": lambda: FlexibleAttention(CHANNELS, reduction=4),
    "cbam": lambda: CBAM(CHANNELS, reduction=4),
    "coordinate": lambda: CoordinateAttention(CHANNELS),
    "pam": lambda: PositionAttention(CHANNELS, reduction=4),
    "cam": lambda: ChannelAttention(CHANNELS),
    "pam+cam": lambda: PositionAndChannelAttention(CHANNELS, reduction=4),
    "sdpa": lambda: SelfAttention(CHANNELS, heads=2, head_dim=8),
    "window": lambda: SelfAttention(CHANNELS, heads=2, head_dim=8, radius=3),
}
"""What makes each system, by its key."""


@dataclass(frozen=True)
class Identity(Module):
    """Hand the map on: a network without attention."""

    channels: int = integer(least=1)

    def forward(self, params: Params, x: Array) -> Pass:
        """Do nothing."""
        return Pass(x, lambda dy: (dy, {}))


@dataclass(frozen=True)
class PositionAndChannelAttention(Module):
    """Add to a map what `PositionAttention` and `ChannelAttention` gather: y = x + γ PAM's sum + β CAM's sum.

    Parameters
    ----------
    channels : int
    reduction : int, default 8
        Of the queries and keys.

    Notes
    -----
    Parameters: those of the two systems under ``sa.`` and ``sc.``, as in `DualAttentionHead`.
    """

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=8)
    pairs_positions = True

    def parameters(self) -> dict[str, Parameter]:
        """Declare the parameters of both systems."""
        position, channel = PositionAttention(self.channels, self.reduction), ChannelAttention(self.channels)
        return add_prefix("sa.", position.parameters()) | add_prefix("sc.", channel.parameters())

    def forward(self, params: Params, x: Array) -> Pass:
        """Run both, and count x, which each of them adds, once."""
        position = layers.submodule(PositionAttention(self.channels, self.reduction).forward, params, "sa", x)
        channel = layers.submodule(ChannelAttention(self.channels).forward, params, "sc", x)

        def backward(dy):
            dx_position, grads_position = position.backward(dy)
            dx_channel, grads_channel = channel.backward(dy)
            return dx_position + dx_channel - dy, grads_position | grads_channel

        return Pass(position.output + channel.output - x, backward, attention=channel.attention)


@dataclass(frozen=True)
class SelfAttention(Module):
    """Add to a map what `ScaledDotProductAttention` gathers for every position, from all or from a window round it.

    Parameters
    ----------
    channels : int
    heads, head_dim : int
    radius : int, optional
        A position sees those at most so many rows and columns away; by default all.

    Notes
    -----
    1×1 convolutions make queries, keys and values, each of heads × head_dim channels, and one makes of the heads'
    outputs what is added: ``query``, ``key``, ``value`` and ``out``.
    """

    channels: int = integer(least=1)
    heads: int = integer(least=1, default=2)
    head_dim: int = integer(least=1, default=4)
    radius: int | None = integer(least=1, default=None)
    pairs_positions = True

    @property
    def attention(self) -> ScaledDotProductAttention:
        """The system itself, which is given its queries, keys and values."""
        return ScaledDotProductAttention(self.heads, head_dim=self.head_dim, mask=self.radius is not None)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the four 1×1 convolutions."""
        inner = self.heads * self.head_dim
        made = (layers.conv_parameters(name, inner, self.channels) for name in ("query", "key", "value"))
        declared: dict[str, Parameter] = {}
        for one in (*made, layers.conv_parameters("out", self.channels, inner)):
            declared |= one
        return declared

    def forward(self, params: Params, x: Array) -> Pass:
        """Make queries, keys and values, attend, bring the heads together, add."""
        made, backs = zip(*(layers.conv(x, params, name) for name in ("query", "key", "value")), strict=True)
        run = self.attention.forward({}, *map(self.split, made), *self.masks(x))
        joined = run.output.swapaxes(2, 3).reshape(made[0].shape)
        o, back_out = layers.conv(joined, params, "out")

        def backward(dy):
            dx, (djoined, grads) = dy, back_out(dy)
            gradients, _ = run.backward(self.split(djoined))
            for back, made_by_heads in zip(backs, gradients, strict=False):  # the mask has none
                dx, more = back(made_by_heads.swapaxes(2, 3).reshape(djoined.shape), accumulate_into=dx)
                grads = grads | more
            return dx, grads

        return Pass(x + o, backward)

    def attention_map(self, params: Params, x: Array, rows: list[int]) -> Array:
        """Make the weights of all positions for some: (B, heads, len(rows), N)."""
        query, key = (self.split(layers.conv(x, params, name)[0]) for name in ("query", "key"))
        return self.attention.attention_map({}, query, key, *self.masks(x), rows=rows)

    def split(self, a: Array) -> Array:
        """Lay the channels out as heads: (B, heads × d, H, W) to (B, heads, N, d)."""
        return a.reshape(len(a), self.heads, self.head_dim, a.shape[2] * a.shape[3]).swapaxes(2, 3)

    def masks(self, x: Array) -> list[Array]:
        """Say which positions are near each other: (1, 1, N, N) of 0 and 1; nothing where all are seen."""
        if self.radius is None:
            return []
        row, column = (np.arange(n, like=x.real) for n in x.shape[2:])
        rows, columns = (np.abs(place[:, None] - place) <= self.radius for place in (row, column))
        near = rows[:, None, :, None] & columns[None, :, None, :]
        positions = x.shape[2] * x.shape[3]
        return [near.reshape(1, 1, positions, positions).astype(x.dtype)]


def make_system(key: str) -> Module:
    """Make the system of a key of `SYSTEMS`.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> make_system("eca")
    EfficientChannelAttention(channels=24, kernel_size=None, gamma=2, b=1)
    """
    if key not in SYSTEMS:
        meant = did_you_mean(key, SYSTEMS, 0.6) or ";"
        raise ValueError(f"unknown system {key!r}{meant} those that can be trained are {', '.join(SYSTEMS)}")
    return SYSTEMS[key]()


def check_attention(system: str, name: str, value: Any) -> Module:
    """Refuse what is no system."""
    if not isinstance(value, Module):
        raise TypeError(f"{system}: {name} is {describe_type(value)}; expected a system, such as SqueezeExcitation")
    return value
