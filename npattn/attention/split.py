"""Split attention: groups of channels computed several times over, and mixed by weights that the whole map decides."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.attention.selective_kernel import BranchChoice
from npattn.calls import require_several_images
from npattn.checks import require_equal_shares
from npattn.fields import boolean, choice, integer
from npattn.module import Paper, Pass
from npattn.ops.elementwise import ACTIVATIONS
from npattn.parameters import Parameter, norm_buffers, norm_parameters, round_channels
from npattn.typing import Array, Backward, Params


@dataclass(frozen=True)
class SplitAttention(BranchChoice):
    """Compute a convolution R times over, and let each channel choose among the R results.

    A grouped convolution with batch norm and rectifier gives R maps of O channels, the splits. Their sum, averaged over
    the positions and passed through two layers, says for each channel how much of which split it takes: weights a_r
    that a softmax over the splits makes, a sigmoid if there is but one. Then y = Σ_r a_r ⊙ v_r. The channels are cut
    into cardinal groups, which don't see each other in any of the layers.

    Parameters
    ----------
    in_channels : int
        C, channels of the map.
    out_channels : int, optional
        O, channels of the result; by default C.
    kernel_size : int, default 3
        Of the convolution, odd.
    stride, dilation : int, default 1
        Step between the positions of the result, and between the kernel's taps.
    groups : int, default 1
        K, cardinal groups.
    radix : int, default 2
        R, splits.
    reduction : int, default 4
        r; between the two layers there are R C/r channels, rounded to a multiple of 8, at least 32.
    hidden : int, optional
        Channels between the two layers for each split, in place of that.
    activation : {"relu", "leaky_relu", "silu", "gelu", "hard_swish"}, default "relu"
        The rectifiers.
    batch_norm : bool, default True
        Whether there are norms; timm's block has none unless it is told.
    bias : bool, default False
        Whether the convolution has a bias.
    training : bool, default False
        Whether batch norm takes the batch's statistics and hands back new running ones.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; if K R does not divide C, or K not O or what is between the layers; when
        called in training with a single image.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, O, ⌈H/stride⌉, ⌈W/stride⌉). ``attention["branch_weights"]``: (B, R, O).
    Parameters, named as in timm and in the authors' code: ``conv.weight`` (R O, C / (K R), k, k), ``conv.bias`` (R O,);
    ``bn0.weight``, ``bn0.bias`` (R O,) and running statistics; ``fc1.weight`` (hidden, O / K, 1, 1), ``fc1.bias``;
    ``bn1.weight``, ``bn1.bias`` (hidden,) and running statistics; ``fc2.weight`` (R O, hidden / K, 1, 1), ``fc2.bias``.

    References
    ----------
    Zhang et al.: ResNeSt: Split-Attention Networks, CVPR workshops 2022, section 3.1 and figure 2.

    Examples
    --------
    >>> import numpy as np
    >>> module = SplitAttention(in_channels=8)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); branch_weights (2, 2, 8))
    >>> dx, grads = run.backward(run.output)
    >>> grads["fc2.weight"].shape
    (16, 32, 1, 1)
    """

    key: ClassVar = "split"
    family: ClassVar = "channel"
    paper: ClassVar = Paper(
        title="ResNeSt: Split-Attention Networks",
        authors="Zhang, Wu, Zhang, Zhu, Lin, Zhang, Sun, He, Mueller, Manmatha, Li, Smola",
        venue="CVPR workshops",
        year=2022,
        url="https://arxiv.org/abs/2004.08955",
    )

    in_channels: int = integer(least=1)
    out_channels: int | None = integer(least=1, default=None)
    kernel_size: int = integer(least=1, default=3, odd=True)
    stride: int = integer(least=1, default=1)
    dilation: int = integer(least=1, default=1)
    groups: int = integer(least=1, default=1)
    radix: int = integer(least=1, default=2)
    reduction: int = integer(least=1, default=4)
    hidden: int | None = integer(least=1, default=None)
    activation: str = choice(ACTIVATIONS, default="relu")
    batch_norm: bool = boolean(default=True)
    bias: bool = boolean(default=False)
    training: bool = boolean(default=False)

    def __post_init__(self) -> None:
        """Refuse, besides, channels that can't be cut so."""
        super().__post_init__()
        for name, parts, of, channels in (
            ("groups * radix", self.groups * self.radix, "in_channels", self.in_channels),
            ("groups", self.groups, "out_channels", self.output_channels),
            ("groups", self.groups, "hidden_channels", self.hidden_channels),
        ):
            require_equal_shares("SplitAttention", name, parts, of, channels)

    @classmethod
    def example(cls) -> SplitAttention:
        """Return a small instance: 8 channels, two splits, four channels between the layers for each."""
        return cls(in_channels=8, hidden=4)

    @property
    def hidden_channels(self) -> int:
        """Channels between the two layers, of all splits together."""
        if self.hidden:
            return self.hidden * self.radix
        return round_channels(self.in_channels * self.radix / self.reduction, least=32)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layers in the order of the authors' code."""
        splits, hidden, groups = self.radix * self.output_channels, self.hidden_channels, self.groups
        read = self.in_channels // (groups * self.radix)
        declared = layers.conv_parameters("conv", splits, read, self.kernel_size, bias=self.bias)
        if self.batch_norm:
            declared |= norm_parameters("bn0", splits)
        declared |= layers.conv_parameters("fc1", hidden, self.output_channels // groups)
        if self.batch_norm:
            declared |= norm_parameters("bn1", hidden)
        return declared | layers.conv_parameters("fc2", splits, hidden // groups)

    def buffers(self) -> dict[str, Parameter]:
        """Declare the running statistics of the norms."""
        if not self.batch_norm:
            return {}
        return norm_buffers("bn0", self.radix * self.output_channels) | norm_buffers("bn1", self.hidden_channels)

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a single image in training, of which the norm behind the pool sees one value a channel."""
        super().check_inputs(inputs)
        if self.batch_norm:
            require_several_images(self, inputs[0])

    def forward(self, params: Params, x: Array) -> Pass:
        """Split, fuse, select. The tags are the equation numbers of the derivation."""
        norm = functools.partial(layers.batch_norm, training=self.training) if self.batch_norm else identity
        act, groups, radix, width = ACTIVATIONS[self.activation], self.groups, self.radix, self.output_channels
        padding = self.dilation * (self.kernel_size // 2)
        options: dict[str, Any] = {"stride": self.stride, "padding": padding, "dilation": self.dilation}
        u, back_conv = layers.conv(x, params, "conv", groups=groups * radix, **options)         # (1)
        (n, running0), back_norm0 = norm(u, params, "bn0")                                      # (2)
        w, back_act0 = act(n)                                                                   # (3)
        v, back_split = ops.split(w, [width] * radix, axis=1)                                   # (4)
        t, back_sum = ops.add(*v)                                                               # (5)
        p, back_pool = ops.global_average_pool(t)                                               # (6)
        p = p[:, :, None, None]
        h, back_fc1 = layers.conv(p, params, "fc1", groups=groups)                              # (7)
        (q, running1), back_norm1 = norm(h, params, "bn1")                                      # (8)
        r, back_act1 = act(q)                                                                   # (9)
        z, back_fc2 = layers.conv(r, params, "fc2", groups=groups)                              # (10)
        a, back_weigh = weigh(z.reshape(len(x), groups, radix, width // groups))                # (11)
        a = a.swapaxes(1, 2).reshape(len(x), radix, width)
        gated = [ops.gate(v[m], a[:, m]) for m in range(radix)]                                 # (12)
        weighed, backs_gate = zip(*gated, strict=True)
        y, back_mix = ops.add(*weighed)                                                         # (13)

        def backward(dy):
            dweighed = back_mix(dy)                                                             # (13')
            gradients = [back(d) for back, d in zip(backs_gate, dweighed, strict=True)]         # (12')
            dv, da = zip(*gradients, strict=True)
            da = np.stack(da, axis=1).reshape(len(x), radix, groups, width // groups).swapaxes(1, 2)
            dz = back_weigh(da)                                                                 # (11')
            dr, grads_fc2 = back_fc2(dz.reshape(z.shape))                                       # (10')
            dq = back_act1(dr)                                                                  # (9')
            dh, grads_norm1 = back_norm1(dq)                                                    # (8')
            dp, grads_fc1 = back_fc1(dh)                                                        # (7')
            dt = back_pool(dp[:, :, 0, 0])                                                      # (6')
            dv = [ops.accumulate(d, share) for d, share in zip(dv, back_sum(dt), strict=True)]  # (5')
            dw = back_split(dv)                                                                 # (4')
            dn = back_act0(dw)                                                                  # (3')
            du, grads_norm0 = back_norm0(dn)                                                    # (2')
            dx, grads_conv = back_conv(du)                                                      # (1')
            return dx, layers.merge(grads_conv, grads_norm0, grads_fc1, grads_norm1, grads_fc2)

        return Pass(y, backward, attention={"branch_weights": a}, buffers=running0 | running1)


def weigh(z: Array) -> tuple[Array, Backward]:
    """Turn the logits of the splits, (B, K, R, O / K), into weights: of one split, into gates."""
    return ops.softmax(z, axis=2) if z.shape[2] > 1 else ops.sigmoid(z)


def identity(x: Array, params: Params, name: str) -> tuple[tuple[Array, dict[str, Array]], Backward]:
    """Hand a map on as it is, where there is no norm."""

    def backward(dx):
        return dx, {}

    return (x, {}), backward
