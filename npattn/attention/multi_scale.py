"""Multi-scale concatenation (ASPP): a map read at several distances at once, and the readings joined."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.checks import brief, describe_type, require_integers
from npattn.fields import boolean, checked, integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter
from npattn.typing import Array, Params


def check_rates(system: str, name: str, rates: Any) -> tuple[int, ...]:
    """Refuse what is no tuple of at least one rate; a list is kept as a tuple."""
    if not isinstance(rates, (tuple, list)):
        raise TypeError(f"{system}: {name}={brief(rates)} is {describe_type(rates)}; expected a tuple of ints")
    if not rates:
        raise ValueError(f"{system}: {name}={rates}; expected at least one rate, such as (12, 24, 36)")
    require_integers(system, **{f"{name}[{i}]": rate for i, rate in enumerate(rates)})
    return tuple(rates)


@dataclass(frozen=True)
class MultiScaleConcat(Module):
    """Read every position together with neighbours at several distances, and with the mean of the image.

    Branches look at one map side by side: a 1×1 convolution, for each rate r a 3×3 convolution whose taps are r apart,
    and a 1×1 convolution of the mean over all positions, which every position then receives alike. Each ends in batch
    norm and ReLU. Their maps are concatenated, and a last 1×1 convolution with batch norm and ReLU mixes them.

    Parameters
    ----------
    in_channels : int
        C, channels of the map.
    out_channels : int
        O, channels of each branch and of the output.
    rates : tuple of int, default (12, 24, 36)
        Distances between the taps of the 3×3 convolutions; these are for a map of an eighth of the image's size.
    training : bool, default False
        Whether batch norm uses the batch's own statistics, ``run.buffers`` holds the new running ones, and outputs are
        dropped: the keep mask is an input then.

    Raises
    ------
    TypeError
        If `in_channels`, `out_channels` or one of `rates` is no integer, `rates` no tuple, or `training` no bool.
    ValueError
        If an integer is below 1 or there is no rate; when called in training, if there are fewer than two images.

    Notes
    -----
    Input ``x``: (B, C, H, W); in training also ``drop``: (B, O, H, W), of 1, which keeps an output, and 0, which drops
    it, half of them in the mean; backward returns None for it. Output: (B, O, H, W). ``attention["branches"]``:
    (B, R + 2, H, W), the mean over the channels of each branch, in the order 1×1, R rates, image.

    Parameters, named as in torchvision's ``ASPP``: the 1×1 branch, ``convs.0.0.weight`` (O, C, 1, 1); the branch of the
    i-th rate, i from 1, ``convs.1.0.weight``, ``convs.2.0.weight``, ``convs.3.0.weight`` (O, C, 3, 3); the image's,
    ``convs.4.1.weight`` (O, C, 1, 1) where there are three rates; ``project.0.weight`` (O, (R + 2) O, 1, 1). With each
    goes a batch norm, ``convs.0.1.weight``, ``convs.0.1.bias``, ``convs.1.1.weight``, ``convs.1.1.bias``,
    ``convs.2.1.weight``, ``convs.2.1.bias``, ``convs.3.1.weight``, ``convs.3.1.bias``, ``convs.4.2.weight``,
    ``convs.4.2.bias``, ``project.1.weight``, ``project.1.bias`` (O,), and its running statistics.

    References
    ----------
    Chen et al.: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, section 3.3.

    Examples
    --------
    >>> module = MultiScaleConcat(in_channels=8, out_channels=4, rates=(1, 2, 3))
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 4, 7, 5); branches (2, 5, 7, 5))
    >>> dx, grads = run.backward(run.output)
    >>> grads["convs.3.0.weight"].shape
    (4, 8, 3, 3)
    """

    key: ClassVar = "multi-scale"
    family: ClassVar = "other"
    paper: ClassVar = Paper(
        title="Rethinking Atrous Convolution for Semantic Image Segmentation",
        authors="Chen, Papandreou, Schroff, Adam",
        venue="arXiv",
        year=2017,
        url="https://arxiv.org/abs/1706.05587",
    )
    without_gradient: ClassVar = ("drop",)

    in_channels: int = integer(least=1)
    out_channels: int = integer(least=1)
    rates: tuple[int, ...] = checked(check_rates, default=(12, 24, 36))
    training: bool = boolean(default=False)

    @classmethod
    def example(cls) -> MultiScaleConcat:
        """Return a small instance: 8 channels, 4 in each branch, rates for small maps."""
        return cls(in_channels=8, out_channels=4, rates=(1, 2, 3))

    @property
    def channels(self) -> int:
        """C, by the name that other systems give it."""
        return self.in_channels

    @property
    def image_branch(self) -> str:
        """The name of the branch that sees the mean of the image: that behind the rates' own."""
        return f"convs.{len(self.rates) + 1}"

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the map and, in training, of the keep mask."""
        shapes = super().input_shapes(batch, height, width)
        return shapes | {"drop": (batch, self.out_channels, height, width)} if self.training else shapes

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the mixed map."""
        return {"output": (batch, self.out_channels, height, width)}

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw a keep mask of 0 and 1, the map as elsewhere."""
        return random.randint(0, 2, shape).astype(float) if name == "drop" else super().draw_input(name, shape, random)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layers in the order of torchvision's code."""
        in_channels, out_channels = self.in_channels, self.out_channels
        declared = layers.conv_norm_act_parameters("convs.0", out_channels, in_channels)
        for i, _ in enumerate(self.rates, start=1):
            declared |= layers.conv_norm_act_parameters(f"convs.{i}", out_channels, in_channels, kernel_size=3)
        declared |= layers.conv_norm_act_parameters(self.image_branch, out_channels, in_channels, index=1)
        return declared | layers.conv_norm_act_parameters("project", out_channels, (len(self.rates) + 2) * out_channels)

    def buffers(self) -> dict[str, Parameter]:
        """Declare the running statistics of all norms."""
        declared = layers.conv_norm_act_buffers("convs.0", self.out_channels)
        for i, _ in enumerate(self.rates, start=1):
            declared |= layers.conv_norm_act_buffers(f"convs.{i}", self.out_channels)
        declared |= layers.conv_norm_act_buffers(self.image_branch, self.out_channels, index=1)
        return declared | layers.conv_norm_act_buffers("project", self.out_channels)

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a single image in training, of which the norm behind the pool sees one value a channel."""
        super().check_inputs(inputs)
        if self.training and inputs[0].shape[0] < 2:
            raise ValueError(
                f"{self}: x has shape {inputs[0].shape}; expected at least two images: in training batch norm behind "
                "the pool takes the variance of one value for each image; give more images, or set training=False"
            )

    def forward(self, params: Params, x: Array, drop: Array | None = None) -> Pass:
        """Read at every distance, join, mix, drop. The tags are the equation numbers of the derivation."""
        layer = functools.partial(layers.conv_norm_act, params=params, training=self.training)
        (near, running_near), back_near = layer(x, name="convs.0")                                # (1)
        results = [layer(x, name=f"convs.{i}", dilation=r) for i, r in enumerate(self.rates, 1)]  # (2)
        far, backs_far = zip(*results, strict=True)
        p, back_pool = ops.average_pool(x, axis=(2, 3))                                           # (3)
        (q, running_image), back_image = layer(p, name=self.image_branch, index=1)                # (4)
        g, back_resize = ops.resize_bilinear(q, x.shape[2:])                                      # (5)
        v, back_join = ops.concatenate((near, *(u for u, _ in far), g), axis=1)                   # (6)
        (y, running_mix), back_mix = layer(v, name="project")                                     # (7)
        if drop is not None:
            y, back_drop = ops.dropout(y, drop, rate=0.5)                                         # (8)

        def backward(dy):
            if drop is not None:
                dy = back_drop(dy)                                                                # (8')
            dv, grads_mix = back_mix(dy)                                                          # (7')
            dnear, *dfar, dg = back_join(dv)                                                      # (6')
            dq = back_resize(dg)                                                                  # (5')
            dp, grads_image = back_image(dq)                                                      # (4')
            dx_image = back_pool(dp)                                                              # (3')
            gradients = [back(du) for back, du in zip(backs_far, dfar, strict=True)]              # (2')
            dx_far, grads_far = zip(*gradients, strict=True)
            dx_near, grads_near = back_near(dnear)                                                # (1')
            dx, _ = ops.add(dx_image, *dx_far, dx_near)
            grads = merge(grads_near, *grads_far, grads_image, grads_mix)
            return (dx, None) if drop is not None else dx, grads

        means = v.reshape(len(x), len(self.rates) + 2, self.out_channels, *x.shape[2:]).mean(axis=2)
        running = merge(running_near, *(new for _, new in far), running_image, running_mix)
        return Pass(y, backward, attention={"branches": means}, buffers=running)


def merge(*named: dict[str, Array]) -> dict[str, Array]:
    """Put what several layers name into one dict."""
    return functools.reduce(operator.or_, named)
