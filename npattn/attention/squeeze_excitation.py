"""Squeeze-and-excitation: a network looks at its channels' averages and decides how much of each channel to keep."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import layers, ops
from npattn.calls import require_several_images
from npattn.fields import boolean, choice, integer
from npattn.module import Module, Paper, Pass
from npattn.ops.elementwise import ACTIVATIONS, GATES
from npattn.parameters import Parameter, he_normal, norm_buffers, norm_parameters
from npattn.synonyms import Naming
from npattn.typing import Array, Backward, Params


@dataclass(frozen=True)
class SqueezeExcitation(Module):
    """Gate each channel by a two-layer network of all channels' averages.

    The squeeze averages every channel over its positions. The excitation, two fully connected layers with fewer
    channels between them, turns the averages into one gate in (0, 1) per channel, and the map is multiplied by the
    gates: p = mean x, a = σ(W₂ φ(W₁ p + b₁) + b₂), y = x ⊙ a, where φ is relu and σ the logistic sigmoid unless said
    otherwise.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 16
        r; the hidden layer has max(1, C // r) channels.
    bias : bool, default True
        Whether the two layers have biases, as in torchvision and the authors' released models; eq. 3 has none.
    hidden : int, optional
        Channels of the hidden layer, in place of C // r: what torchvision and timm round in ways of their own.
    activation : {"relu", "leaky_relu", "silu", "gelu", "hard_swish"}, default "relu"
        φ, between the layers; ``"silu"``, also called swish, in EfficientNet. ``"gelu"`` is x Φ(x), without an
        approximation; ``"leaky_relu"`` has the slope 0.01 below 0.
    gate : {"sigmoid", "hard_sigmoid"}, default "sigmoid"
        σ, which makes the gates; ``"hard_sigmoid"`` in MobileNetV3.
    batch_norm : bool, default False
        Whether batch norm stands behind the first layer, as in ReXNet.
    add_maxpool : bool, default False
        Whether the squeeze is the mean of average and maximum, which timm tries out.
    training : bool, default False
        Whether batch norm uses the batch's own statistics, and ``run.buffers`` holds the new running ones.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; when called in training with batch norm, if the batch has fewer than two
        images.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["channel"]``: (B, C). Parameters, named as in
    torchvision's `SqueezeExcitation`: ``fc1.weight`` (C/r, C, 1, 1), ``fc1.bias`` (C/r,), ``fc2.weight``
    (C, C/r, 1, 1), ``fc2.bias`` (C,); batch norm's as in timm: ``bn.weight`` (C/r,), ``bn.bias`` (C/r,) and, beside
    them, the running statistics. Weights start from He's normal distribution, as in the paper, batch norm's at 1;
    biases at 0. `from_state_dict` reads the layers' other published names as well: timm's ``conv_reduce`` and
    ``conv_expand``, ``fc.0`` and ``fc.2``, which are linear, and ReXNet's ``fc.0``, ``fc.1`` and ``fc.3``.

    References
    ----------
    Hu, Shen, Sun: Squeeze-and-Excitation Networks, CVPR 2018: eq. 2 (squeeze), 3 (excitation), 4 (scale).

    Examples
    --------
    >>> import numpy as np
    >>> module = SqueezeExcitation(channels=8, reduction=4)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); channel (2, 8))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> {name: grad.shape for name, grad in grads.items()}
    {'fc1.weight': (2, 8, 1, 1), 'fc1.bias': (2,), 'fc2.weight': (8, 2, 1, 1), 'fc2.bias': (8,)}
    """

    key: ClassVar = "se"
    family: ClassVar = "channel"
    paper: ClassVar = Paper(
        title="Squeeze-and-Excitation Networks",
        authors="Hu, Shen, Sun",
        venue="CVPR",
        year=2018,
        url="https://arxiv.org/abs/1709.01507",
    )

    published: ClassVar = (
        Naming({"conv_reduce": "fc1", "conv_expand": "fc2"}),
        Naming({"fc.0": "fc1", "fc.2": "fc2"}),
        Naming({"fc.0": "fc1", "fc.1": "bn", "fc.3": "fc2"}),
    )

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=16)
    bias: bool = boolean(default=True)
    hidden: int | None = integer(least=1, default=None)
    activation: str = choice(ACTIVATIONS, default="relu")
    gate: str = choice(GATES, default="sigmoid")
    batch_norm: bool = boolean(default=False)
    add_maxpool: bool = boolean(default=False)
    training: bool = boolean(default=False)

    @classmethod
    def example(cls) -> SqueezeExcitation:
        """Return a small instance: 32 channels, 4 in the hidden layer."""
        return cls(channels=32, reduction=8)

    @property
    def hidden_channels(self) -> int:
        """Channels of the hidden layer: `hidden`, or C/r."""
        return self.hidden or max(1, self.channels // self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the two layers, to the hidden channels and back, and the norm between them."""
        channels, hidden = self.channels, self.hidden_channels
        declared = layers.conv_parameters("fc1", hidden, channels, initial=he_normal, bias=self.bias)
        declared |= norm_parameters("bn", hidden) if self.batch_norm else {}
        return declared | layers.conv_parameters("fc2", channels, hidden, initial=he_normal, bias=self.bias)

    def buffers(self) -> dict[str, Parameter]:
        """Declare batch norm's running statistics."""
        return norm_buffers("bn", self.hidden_channels) if self.batch_norm else {}

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a single image in training, of which the norm sees one value a channel."""
        super().check_inputs(inputs)
        if self.batch_norm:
            require_several_images(self, inputs[0])

    def forward(self, params: Params, x: Array) -> Pass:
        """Squeeze, excite, scale. The tags are the equation numbers of the derivation."""
        running: dict[str, Array] = {}
        p, back_pool = ops.global_average_pool(x)             # (1)
        if self.add_maxpool:
            p, back_maximum = mix_in_maximum(p, x)
        h, back_fc1 = layers.linear(p, params, "fc1")         # (2)
        if self.batch_norm:
            (h, running), back_norm = normalize(h, params, training=self.training)
        r, back_activation = ACTIVATIONS[self.activation](h)  # (3)
        z, back_fc2 = layers.linear(r, params, "fc2")         # (4)
        a, back_sigmoid = GATES[self.gate](z)                 # (5)
        y, back_gate = ops.gate(x, a)                         # (6)

        def backward(dy):
            grads_norm = {}
            dx, da = back_gate(dy)                            # (6')
            dz = back_sigmoid(da)                             # (5')
            dr, grads_fc2 = back_fc2(dz)                      # (4')
            dh = back_activation(dr)                          # (3')
            if self.batch_norm:
                dh, grads_norm = back_norm(dh)
            dp, grads_fc1 = back_fc1(dh)                      # (2')
            if self.add_maxpool:
                dp, dx = back_maximum(dp, accumulate_into=dx)
            dx = back_pool(dp, accumulate_into=dx)            # (1')
            return dx, grads_fc1 | grads_norm | grads_fc2

        return Pass(y, backward, attention={"channel": a}, buffers=running)


def mix_in_maximum(p: Array, x: Array) -> tuple[Array, Backward]:
    """Take the mean of the channels' averages and maxima."""
    u, back_max = ops.global_max_pool(x)    # (7)
    p = (p + u) / 2                         # (8)

    def backward(dp, accumulate_into):
        dp = dp / 2                         # (8')
        dx = back_max(dp, accumulate_into)  # (7')
        return dp, dx

    return p, backward


def normalize(h: Array, params: Params, *, training: bool) -> tuple[tuple[Array, dict[str, Array]], Backward]:
    """Normalise the hidden layer over the images."""
    norm = functools.partial(layers.batch_norm, training=training)
    (q, running), back_norm = norm(h[:, :, None, None], params, "bn")  # (9)

    def backward(dq):
        dh, grads = back_norm(dq[:, :, None, None])                    # (9')
        return dh[:, :, 0, 0], grads

    return (q[:, :, 0, 0], running), backward
