"""A small network that names the digit which every pixel of a map belongs to, with any attention system inside."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, cast

from npattn import layers
from npattn.array_checks import check_variance
from npattn.fields import boolean, checked, integer
from npattn.module import Module, Pass
from npattn.parameters import Parameter, add_prefix
from npattn.training.systems import Identity, check_attention, make_system
from npattn.typing import Array, Params

__all__ = ["PARAMETER_BUDGET", "SegmentationNetwork", "count_parameters", "matched_network"]

PARAMETER_BUDGET = 12_000
"""Trainable numbers that every network of a comparison has, or nearly: the first layer's channels follow from it."""


@dataclass(frozen=True)
class SegmentationNetwork(Module):
    """Classify every pixel by three 3×3 convolutions, with an attention system before the last.

    Blocks of 2 × 2 pixels are the positions. Each convolution is followed by batch norm and ReLU, and a 1×1 convolution
    makes of the last features the logits of a block's four pixels. A position sees 7 × 7 blocks through the
    convolutions: of what lies beyond only attention can tell it.

    Parameters
    ----------
    attention : Module, default `Identity`
        A system of one map that keeps its shape.
    hidden_channels : int, default 24
        Channels behind the first convolution.
    channels : int, default 24
        Channels behind the others, which are those of `attention`.
    classes : int, default 6
        K.
    training : bool, default False
        Whether batch norm uses the batch's own statistics, and ``run.buffers`` holds the new running ones.

    Raises
    ------
    TypeError
        If `attention` is no system, an integer none, or `training` no bool.
    ValueError
        If an integer is below 1, or `attention` is of another number of channels; when called, if a side of the map is
        odd, or in training if the batch has fewer than two positions.

    Notes
    -----
    Input ``x``: (B, 1, H, W). Output: logits, (B, K, H, W). The attention maps are those of `attention`; ``features``,
    (B, C, H, W), is the map that it reads. Parameters: ``conv1``, ``conv2``, ``conv3`` as of `layers.conv_norm_act`,
    those of `attention` under ``attention.``, ``classifier.weight`` (K, C, 1, 1) and ``classifier.bias`` (K,).

    Examples
    --------
    >>> import numpy as np
    >>> module = SegmentationNetwork(make_system("se"))
    >>> run = module(module.init(seed=0), np.ones((2, 1, 20, 20)))
    >>> run
    Pass(output: float64 (2, 6, 20, 20); channel (2, 24); features (2, 24, 10, 10))
    """

    attention: Module = checked(check_attention, default=Identity(channels=24))
    hidden_channels: int = integer(least=1, default=24)
    channels: int = integer(least=1, default=24)
    classes: int = integer(least=1, default=6)
    training: bool = boolean(default=False)

    def __post_init__(self) -> None:
        """Refuse, besides, a system of another number of channels; let it train where the network does."""
        super().__post_init__()
        channels = getattr(self.attention, "channels", None)
        if channels != self.channels:
            raise ValueError(f"{type(self).__name__}: attention has channels={channels}; expected {self.channels}")
        if hasattr(self.attention, "training"):
            attention = dataclasses.replace(cast(Any, self.attention), training=self.training)
            object.__setattr__(self, "attention", attention)

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the map, which has one channel."""
        return {"x": (batch, 1, height, width)}

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the logits."""
        return {"output": (batch, self.classes, height, width)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layers in the order in which they are passed."""
        return {
            **layers.conv_norm_act_parameters("conv1", self.hidden_channels, 4, kernel_size=3),
            **layers.conv_norm_act_parameters("conv2", self.channels, self.hidden_channels, kernel_size=3),
            **add_prefix("attention.", self.attention.parameters()),
            **layers.conv_norm_act_parameters("conv3", self.channels, self.channels, kernel_size=3),
            **layers.conv_parameters("classifier", 4 * self.classes, self.channels),
        }

    def buffers(self) -> dict[str, Parameter]:
        """Declare the running statistics of all norms."""
        return {
            **layers.conv_norm_act_buffers("conv1", self.hidden_channels),
            **layers.conv_norm_act_buffers("conv2", self.channels),
            **add_prefix("attention.", self.attention.buffers()),
            **layers.conv_norm_act_buffers("conv3", self.channels),
        }

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a map without whole blocks, and a batch whose variance batch norm can't estimate."""
        super().check_inputs(inputs)
        if any(side % 2 for side in inputs[0].shape[2:]):
            raise ValueError(
                f"{self}: x has shape {inputs[0].shape}; expected an even height and width: its pixels are read in "
                "blocks of 2 × 2"
            )
        if self.training:
            check_variance(self, inputs[0])

    def forward(self, params: Params, x: Array) -> Pass:
        """Filter twice, attend, filter again, classify. The tags are the equation numbers of the page."""
        training = self.training
        layer = functools.partial(layers.conv_norm_act, params=params, training=training)
        u = blocks_to_channels(x)                                                    # (1)
        (r, running_1), back_1 = layer(u, name="conv1")                              # (2)
        (f, running_2), back_2 = layer(r, name="conv2")                              # (3)
        attended = layers.submodule(self.attention.forward, params, "attention", f)  # (4)
        (h, running_3), back_3 = layer(attended.output, name="conv3")                # (5)
        s, back_classifier = layers.conv(h, params, "classifier")                    # (6)
        z = channels_to_blocks(s)                                                    # (7)

        def backward(dz):
            ds = blocks_to_channels(dz)                                              # (7')
            dh, grads_classifier = back_classifier(ds)                               # (6')
            dy, grads_3 = back_3(dh)                                                 # (5')
            df, grads_attention = attended.backward(dy)                              # (4')
            dr, grads_2 = back_2(df)                                                 # (3')
            du, grads_1 = back_1(dr)                                                 # (2')
            dx = channels_to_blocks(du)                                              # (1')
            return dx, grads_1 | grads_2 | grads_attention | grads_3 | grads_classifier

        buffers = running_1 | running_2 | attended.buffers | running_3
        return Pass(z, backward, {**attended.attention, "features": f}, buffers)


def blocks_to_channels(x: Array) -> Array:
    """Make of every block of 2 × 2 pixels one position of four times the channels.

    Examples
    --------
    >>> import numpy as np
    >>> blocks_to_channels(np.arange(8).reshape(1, 1, 2, 4)).tolist()
    [[[[0, 2]], [[1, 3]], [[4, 6]], [[5, 7]]]]
    """
    batch, channels, height, width = x.shape
    split = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(batch, 4 * channels, height // 2, width // 2)


def channels_to_blocks(x: Array) -> Array:
    """Undo `blocks_to_channels`, which only moves numbers: so each is the other's adjoint too.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(32).reshape(1, 2, 4, 4)
    >>> bool((channels_to_blocks(blocks_to_channels(x)) == x).all())
    True
    """
    batch, channels, height, width = x.shape
    split = x.reshape(batch, channels // 4, 2, 2, height, width)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(batch, channels // 4, 2 * height, 2 * width)


def count_parameters(module: Module) -> int:
    """Count the trainable numbers.

    Examples
    --------
    >>> count_parameters(SegmentationNetwork())
    11976
    """
    return sum(math.prod(shape) for shape in module.parameter_shapes().values())


def matched_network(key: str, training: bool = False) -> SegmentationNetwork:
    """Make the network with a system of `SYSTEMS`, its first layer of as many channels as `PARAMETER_BUDGET` allows.

    Parameters
    ----------
    key : str
    training : bool, default False

    Returns
    -------
    SegmentationNetwork

    Raises
    ------
    ValueError
        If no system has this key.

    Examples
    --------
    >>> [matched_network(key).hidden_channels for key in ("none", "se", "pam+cam")]
    [24, 23, 21]
    """
    attention = make_system(key)

    def excess(hidden: int) -> int:
        return abs(count_parameters(SegmentationNetwork(attention, hidden)) - PARAMETER_BUDGET)

    return SegmentationNetwork(attention, min(range(1, 65), key=excess), training=training)
