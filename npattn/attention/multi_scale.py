"""Multi-scale concatenation (ASPP): a map read at several distances at once, and the readings joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import ops
from npattn.checks import brief, describe_type, require_booleans, require_integers
from npattn.module import Module, Paper, Pass
from npattn.parameters import norm_buffers, norm_parameters, strip_prefix, uniform_fan_in


def filter_map(params, names, x, rate, training):
    """Convolve with taps `rate` apart, normalise, rectify: one branch, of the parameters under two names."""
    weight = params[f"{names[0]}.weight"]
    padding = rate * (weight.shape[2] // 2)
    z, back_conv = ops.conv2d(x, weight, padding=padding, dilation=rate)    # (1)
    norm = strip_prefix(f"{names[1]}.", params)
    (n, running), back_norm = ops.batch_norm(z, **norm, training=training)  # (2)
    r, back_relu = ops.relu(n)                                              # (3)

    def backward(dr):
        dn = back_relu(dr)                                                  # (3')
        dz, dscale, dshift = back_norm(dn)                                  # (2')
        dx, dweight, _ = back_conv(dz)                                      # (1')
        grads = {f"{names[0]}.weight": dweight, f"{names[1]}.weight": dscale, f"{names[1]}.bias": dshift}
        return dx, grads

    buffers = dict(zip(norm_buffers(names[1], 0), running, strict=True)) if training else {}
    return Pass(r, backward, buffers=buffers)


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
    >>> import numpy as np
    >>> module = MultiScaleConcat(in_channels=8, out_channels=4, rates=(1, 2, 3))
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 4, 7, 5); branches (2, 5, 7, 5))
    >>> dx, grads = run.backward(run.output)
    >>> grads["convs.3.0.weight"].shape
    (4, 8, 3, 3)
    """

    key: ClassVar = "multi-scale"
    paper: ClassVar = Paper(
        title="Rethinking Atrous Convolution for Semantic Image Segmentation",
        authors="Chen, Papandreou, Schroff, Adam",
        venue="arXiv",
        year=2017,
        url="https://arxiv.org/abs/1706.05587",
    )

    in_channels: int
    out_channels: int
    rates: tuple[int, ...] = (12, 24, 36)
    training: bool = False

    def __post_init__(self):
        name = type(self).__name__
        require_integers(name, in_channels=self.in_channels, out_channels=self.out_channels)
        require_booleans(name, training=self.training)
        if not isinstance(self.rates, (tuple, list)):
            given = describe_type(self.rates)
            raise TypeError(f"{name}: rates={brief(self.rates)} is {given}; expected a tuple of ints")
        if not self.rates:
            raise ValueError(f"{name}: rates={self.rates}; expected at least one rate, such as (12, 24, 36)")
        require_integers(name, **{f"rates[{i}]": rate for i, rate in enumerate(self.rates)})
        object.__setattr__(self, "rates", tuple(self.rates))

    @classmethod
    def example(cls):
        """Return a small instance: 8 channels, 4 in each branch, rates for small maps."""
        return cls(in_channels=8, out_channels=4, rates=(1, 2, 3))

    @property
    def channels(self) -> int:
        """C, by the name that other systems give it."""
        return self.in_channels

    @property
    def layers(self) -> list[tuple[str, str]]:
        """The names of each convolution and its norm: 1×1, the rates, the image, the projection."""
        image = len(self.rates) + 1
        names = [(f"convs.{i}.0", f"convs.{i}.1") for i in range(image)]
        return [*names, (f"convs.{image}.1", f"convs.{image}.2"), ("project.0", "project.1")]

    def input_shapes(self, batch, height, width):
        """Shapes of the map and, in training, of the keep mask."""
        shapes = super().input_shapes(batch, height, width)
        return shapes | {"drop": (batch, self.out_channels, height, width)} if self.training else shapes

    def output_shapes(self, batch, height, width):
        """Shape of the mixed map."""
        return {"output": (batch, self.out_channels, height, width)}

    def draw_input(self, name, shape, random):
        """Draw a keep mask of 0 and 1, the map as elsewhere."""
        return random.randint(0, 2, shape).astype(float) if name == "drop" else super().draw_input(name, shape, random)

    def parameters(self):
        """Declare the layers in the order of torchvision's code."""
        wide, narrow = self.in_channels, self.out_channels
        kernels = [1, *(3 for _ in self.rates), 1, 1]
        inputs = [*(wide for _ in kernels[1:]), narrow * len(kernels[1:])]
        declared = {}
        for (conv, norm), channels, k in zip(self.layers, inputs, kernels, strict=True):
            declared[f"{conv}.weight"] = uniform_fan_in(narrow, channels, k, k)
            declared |= norm_parameters(norm, narrow)
        return declared

    def buffers(self):
        """Declare the running statistics of all norms."""
        return {name: b for _, norm in self.layers for name, b in norm_buffers(norm, self.out_channels).items()}

    def check_inputs(self, inputs):
        """Refuse, besides, a single image in training, of which the norm behind the pool sees one value a channel."""
        super().check_inputs(inputs)
        if self.training and inputs[0].shape[0] < 2:
            raise ValueError(
                f"{self}: x has shape {inputs[0].shape}; expected at least two images: in training batch norm behind "
                "the pool takes the variance of one value for each image; give more images, or set training=False"
            )

    def forward(self, params, x, drop=None):
        """Read at every distance, join, mix, drop. The tags are the equation numbers of the derivation."""
        first, *others, last, project = self.layers

        def part(names, x, rate=1):
            return filter_map(params, names, x, rate, self.training)

        near = part(first, x)                                                                 # (4)
        far = [part(names, x, rate) for names, rate in zip(others, self.rates, strict=True)]  # (5)
        p, back_pool = ops.average_pool(x, axis=(2, 3))                                       # (6)
        image = part(last, p)                                                                 # (7)
        g, back_resize = ops.resize_bilinear(image.output, x.shape[2:])                       # (8)
        v, back_join = ops.concatenate((near.output, *(run.output for run in far), g), axis=1) # (9)
        mixed = part(project, v)                                                              # (10)
        y = mixed.output
        if drop is not None:
            y, back_drop = ops.dropout(y, drop, rate=0.5)                                     # (11)

        def backward(dy):
            if drop is not None:
                dy = back_drop(dy)                                                            # (11')
            dv, grads = mixed.backward(dy)                                                    # (10')
            dnear, *dfar, dg = back_join(dv)                                                  # (9')
            dimage = back_resize(dg)                                                          # (8')
            dp, found = image.backward(dimage)                                                # (7')
            grads |= found
            ways = [back_pool(dp)]                                                            # (6')
            for run, du in zip(far, dfar, strict=True):
                through, found = run.backward(du)                                             # (5')
                ways, grads = [*ways, through], grads | found
            through, found = near.backward(dnear)                                             # (4')
            dx, _ = ops.add(*ways, through)
            grads |= found
            dx = (dx, None) if drop is not None else dx
            return dx, {name: grads[name] for name in self.parameters()}

        buffers = {name: new for run in (near, *far, image, mixed) for name, new in run.buffers.items()}
        branches = v.reshape(len(x), len(self.layers) - 1, self.out_channels, *x.shape[2:]).mean(axis=2)
        return Pass(y, backward, attention={"branches": branches}, buffers=buffers)
