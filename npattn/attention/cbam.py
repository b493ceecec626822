"""CBAM: a network decides which channels matter, then, on the map so weighted, which positions do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.array_checks import check_variance
from npattn.fields import boolean, choice, choices, integer
from npattn.module import Module, Paper, Pass
from npattn.ops.elementwise import ACTIVATIONS, GATES
from npattn.ops.global_pooling import GLOBAL_POOLS
from npattn.parameters import Parameter, add_prefix, norm_buffers, norm_parameters
from npattn.synonyms import Naming
from npattn.typing import Array, Params

PAPER = Paper(
    title="CBAM: Convolutional Block Attention Module",
    authors="Woo, Park, Lee, Kweon",
    venue="ECCV",
    year=2018,
    url="https://arxiv.org/abs/1807.06521",
)


@dataclass(frozen=True)
class CBAMChannelGate(Module):
    """Gate each channel by a two-layer network that several summaries of the channels share.

    Each pool makes one number of every channel. One network of two layers, the same for all pools, takes each
    pool's numbers to logits; the logits are added: a = σ(Σ_pool W₂ φ(W₁ pool(x) + b₁) + b₂), y = x ⊙ a, where φ is
    relu and σ the logistic sigmoid unless said otherwise.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 16
        r; the hidden layer has max(1, C // r) channels.
    pools : tuple of str, default ("avg", "max")
        Some of ``"avg"``, ``"max"``, ``"lp"`` (the Euclidean norm) and ``"lse"`` (logsumexp), each at most once.
    hidden : int, optional
        Channels of the hidden layer, in place of C // r.
    bias : bool, default True
        Whether the two layers have biases, as in the authors' code; timm's have none.
    activation : {"relu", "leaky_relu", "silu", "gelu", "hard_swish"}, default "relu"
        φ, between the layers.
    gate : {"sigmoid", "hard_sigmoid"}, default "sigmoid"
        σ, which makes the gates.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these, or `pools` is empty or repeats a pool.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["channel"]``: (B, C). Parameters, named as in the
    authors' code: ``mlp.1.weight`` (C/r, C), ``mlp.1.bias`` (C/r,), ``mlp.3.weight`` (C, C/r), ``mlp.3.bias`` (C,),
    which start as that code's `Linear` layers do, uniform in ±1/√inputs; timm's ``fc1`` and ``fc2`` are read too. A
    maximum's gradient goes to its first position; that of a Euclidean norm is 0 where the whole channel is 0.

    References
    ----------
    Woo, Park, Lee, Kweon: CBAM: Convolutional Block Attention Module, ECCV 2018, eq. 2.

    Examples
    --------
    >>> import numpy as np
    >>> module = CBAMChannelGate(channels=8, reduction=4, pools=("avg", "max", "lse"))
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); channel (2, 8))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> {name: grad.shape for name, grad in grads.items()}
    {'mlp.1.weight': (2, 8), 'mlp.1.bias': (2,), 'mlp.3.weight': (8, 2), 'mlp.3.bias': (8,)}
    """

    key: ClassVar = "cbam-channel"
    family: ClassVar = "channel"
    paper: ClassVar = PAPER
    published: ClassVar = (Naming({"fc1": "mlp.1", "fc2": "mlp.3"}),)

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=16)
    pools: tuple[str, ...] = choices(GLOBAL_POOLS, default=("avg", "max"))
    hidden: int | None = integer(least=1, default=None)
    bias: bool = boolean(default=True)
    activation: str = choice(ACTIVATIONS, default="relu")
    gate: str = choice(GATES, default="sigmoid")

    @classmethod
    def example(cls) -> CBAMChannelGate:
        """Return a small instance: 32 channels, 4 in the hidden layer."""
        return cls(channels=32, reduction=8)

    @property
    def hidden_channels(self) -> int:
        """Channels of the hidden layer: `hidden`, or C/r."""
        return self.hidden or max(1, self.channels // self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the two layers, to the hidden channels and back."""
        channels, hidden = self.channels, self.hidden_channels
        first = layers.linear_parameters("mlp.1", hidden, channels, bias=self.bias)
        return first | layers.linear_parameters("mlp.3", channels, hidden, bias=self.bias)

    def forward(self, params: Params, x: Array) -> Pass:
        """Pool, excite, add, scale. The tags are the equation numbers of the derivation."""
        k, (batch, channels) = len(self.pools), x.shape[:2]
        pooled, back_pools = ops.global_pools(x, self.pools)                     # (1)
        p = np.concatenate(pooled)  # k B rows: to the shared layers, pools are so many more images
        h, back_fc1 = layers.linear(p, params, "mlp.1")                          # (2)
        r, back_activation = ACTIVATIONS[self.activation](h)                     # (3)
        u, back_fc2 = layers.linear(r, params, "mlp.3")                          # (4)
        z = u.reshape(k, batch, channels).sum(axis=0)                            # (5)
        a, back_sigmoid = GATES[self.gate](z)                                    # (6)
        y, back_gate = ops.gate(x, a)                                            # (7)

        def backward(dy):
            dx, da = back_gate(dy)                                               # (7')
            dz = back_sigmoid(da)                                                # (6')
            du = np.concatenate([dz] * k)                                        # (5')
            dr, grads_fc2 = back_fc2(du)                                         # (4')
            dh = back_activation(dr)                                             # (3')
            dp, grads_fc1 = back_fc1(dh)                                         # (2')
            dx = back_pools(dp.reshape(k, batch, channels), accumulate_into=dx)  # (1')
            return dx, grads_fc1 | grads_fc2

        return Pass(y, backward, attention={"channel": a})


@dataclass(frozen=True)
class CBAMSpatialGate(Module):
    """Gate each position by a convolution over what the channels have there at most and on average.

    The maximum and the mean over the channels, in this order, make a map of two channels; a k×k convolution with zeros
    beyond the edges makes one of it: a = σ(BN(conv([max_C x; mean_C x]))), y = x ⊙ a.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    batch_norm : bool, default True
        Whether batch norm stands between convolution and sigmoid, as in the authors' code; the paper's eq. 3 has none.
    training : bool, default False
        Whether batch norm uses the batch's own statistics, and ``run.buffers`` holds the new running ones.
    kernel_size : int, default 7
        k, odd.
    gate : {"sigmoid", "hard_sigmoid"}, default "sigmoid"
        σ, which makes the gates.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; when called in training with batch norm, if the batch has fewer than two
        positions.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["spatial"]``: (B, 1, H, W). Parameters, named as in the
    authors' code: ``spatial.conv.weight`` (1, 2, k, k), without bias, which starts as that code's `Conv2d` does,
    uniform in ±1/√(2k²); ``spatial.bn.weight`` (1,) from 1 and ``spatial.bn.bias`` (1,) from 0. Running statistics:
    ``spatial.bn.running_mean`` (1,), ``spatial.bn.running_var`` (1,), in which a batch has weight 0.01. timm's
    ``conv.conv`` and ``conv.bn`` are read too; its kernel has the mean first, and is turned round.

    References
    ----------
    Woo, Park, Lee, Kweon: CBAM: Convolutional Block Attention Module, ECCV 2018, eq. 3.

    Examples
    --------
    >>> import numpy as np
    >>> module = CBAMSpatialGate(channels=8, training=True)
    >>> params = module.init(seed=0)
    >>> run = module(params, np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); spatial (2, 1, 7, 5); spatial.bn.running_mean (1,); spatial.bn.running_var (1,))
    >>> params |= run.buffers
    """

    key: ClassVar = "cbam-spatial"
    family: ClassVar = "spatial"
    paper: ClassVar = PAPER

    published: ClassVar = (
        Naming({"conv.conv": "spatial.conv", "conv.bn": "spatial.bn"}, reversed_inputs=["spatial.conv.weight"]),
    )

    channels: int = integer(least=1)
    batch_norm: bool = boolean(default=True)
    training: bool = boolean(default=False)
    kernel_size: int = integer(least=1, default=7, odd=True)
    gate: str = choice(GATES, default="sigmoid")

    @classmethod
    def example(cls) -> CBAMSpatialGate:
        """Return a small instance: 16 channels."""
        return cls(channels=16)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the kernel, and batch norm's scale and shift."""
        kernel = layers.conv_parameters("spatial.conv", 1, 2, self.kernel_size, bias=False)
        return kernel | norm_parameters("spatial.bn", 1) if self.batch_norm else kernel

    def buffers(self) -> dict[str, Parameter]:
        """Declare batch norm's running mean and variance."""
        return norm_buffers("spatial.bn", 1) if self.batch_norm else {}

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a batch whose variance batch norm can't estimate."""
        super().check_inputs(inputs)
        if self.batch_norm and self.training:
            check_variance(self, inputs[0])

    def forward(self, params: Params, x: Array) -> Pass:
        """Pool over the channels, convolve, normalise, scale. The tags are the equation numbers of the derivation."""
        margin = self.kernel_size // 2
        m, back_max = ops.max_pool(x, axis=1)                                  # (8)
        q, back_mean = ops.average_pool(x, axis=1)                             # (9)
        t, back_join = ops.concatenate((m, q), axis=1)                         # (10)
        z, back_conv = layers.conv(t, params, "spatial.conv", padding=margin)  # (11)
        running: dict[str, Array] = {}
        if self.batch_norm:
            normalised = layers.batch_norm(z, params, "spatial.bn", training=self.training, momentum=0.01)
            (z, running), back_norm = normalised                               # (12)
        a, back_sigmoid = GATES[self.gate](z)                                  # (13)
        y, back_gate = ops.gate(x, a)                                          # (14)

        def backward(dy):
            grads_norm = {}
            dx, da = back_gate(dy)                                             # (14')
            dz = back_sigmoid(da)                                              # (13')
            if self.batch_norm:
                dz, grads_norm = back_norm(dz)                                 # (12')
            dt, grads_conv = back_conv(dz)                                     # (11')
            dm, dq = back_join(dt)                                             # (10')
            dx = back_mean(dq, accumulate_into=dx)                             # (9')
            dx = back_max(dm, accumulate_into=dx)                              # (8')
            return dx, grads_conv | grads_norm

        return Pass(y, backward, attention={"spatial": a}, buffers=running)


@dataclass(frozen=True)
class CBAM(Module):
    """Gate the channels of a map, then the positions of the gated map.

    The map passes two gates one after the other, and the second looks at what the first let through:
    f = x ⊙ a_channel(x), y = f ⊙ a_spatial(f). `CBAMChannelGate` and `CBAMSpatialGate` are the two.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    spatial : bool, default True
        Whether there is a spatial gate.
    reduction, pools, hidden, bias, activation
        Those of `CBAMChannelGate`, with its defaults.
    batch_norm, training, kernel_size
        Those of `CBAMSpatialGate`, with its defaults.
    gate : {"sigmoid", "hard_sigmoid"}, default "sigmoid"
        σ of both.

    Raises
    ------
    TypeError, ValueError
        What the two raise.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["channel"]``: (B, C); ``attention["spatial"]``:
    (B, 1, H, W). Parameters, named as in the authors' code: ``ChannelGate.mlp.1.weight``, ``ChannelGate.mlp.1.bias``,
    ``ChannelGate.mlp.3.weight``, ``ChannelGate.mlp.3.bias``, ``SpatialGate.spatial.conv.weight``,
    ``SpatialGate.spatial.bn.weight``, ``SpatialGate.spatial.bn.bias``, shaped as in the two; the running statistics
    stand beside the last two. timm's names, ``channel.fc1.weight`` and so on, are read too.

    References
    ----------
    Woo, Park, Lee, Kweon: CBAM: Convolutional Block Attention Module, ECCV 2018, eq. 1.

    Examples
    --------
    >>> import numpy as np
    >>> module = CBAM(channels=8, reduction=4)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); channel (2, 8); spatial (2, 1, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> grads["SpatialGate.spatial.conv.weight"].shape
    (1, 2, 7, 7)
    """

    key: ClassVar = "cbam"
    family: ClassVar = "both"
    paper: ClassVar = PAPER
    published: ClassVar = (
        Naming.join(
            ("channel.", "ChannelGate.", CBAMChannelGate.published[0]),
            ("spatial.", "SpatialGate.", CBAMSpatialGate.published[0]),
        ),
    )

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=16)
    pools: tuple[str, ...] = choices(GLOBAL_POOLS, default=("avg", "max"))
    spatial: bool = boolean(default=True)
    batch_norm: bool = boolean(default=True)
    training: bool = boolean(default=False)
    hidden: int | None = integer(least=1, default=None)
    bias: bool = boolean(default=True)
    activation: str = choice(ACTIVATIONS, default="relu")
    gate: str = choice(GATES, default="sigmoid")
    kernel_size: int = integer(least=1, default=7, odd=True)

    @classmethod
    def example(cls) -> CBAM:
        """Return a small instance: 32 channels, 4 in the hidden layer."""
        return cls(channels=32, reduction=8)

    @property
    def channel_gate(self) -> CBAMChannelGate:
        """The first gate."""
        of_layers = self.hidden, self.bias, self.activation, self.gate
        return CBAMChannelGate(self.channels, self.reduction, self.pools, *of_layers)

    @property
    def spatial_gate(self) -> CBAMSpatialGate:
        """The second gate, in use if `spatial` is true."""
        return CBAMSpatialGate(self.channels, self.batch_norm, self.training, self.kernel_size, self.gate)

    def parameters(self) -> dict[str, Parameter]:
        """Declare those of the channel gate, then those of the spatial gate."""
        second = add_prefix("SpatialGate.", self.spatial_gate.parameters()) if self.spatial else {}
        return add_prefix("ChannelGate.", self.channel_gate.parameters()) | second

    def buffers(self) -> dict[str, Parameter]:
        """Declare the spatial gate's running statistics."""
        return add_prefix("SpatialGate.", self.spatial_gate.buffers()) if self.spatial else {}

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a batch whose variance batch norm can't estimate."""
        super().check_inputs(inputs)
        if self.spatial and self.batch_norm and self.training:
            check_variance(self, inputs[0])

    def forward(self, params: Params, x: Array) -> Pass:
        """Gate the channels, then the positions. The tags are the equation numbers of the derivation."""
        second = self.spatial_gate.forward if self.spatial else identity
        f = layers.submodule(self.channel_gate.forward, params, "ChannelGate", x)  # (15)
        g = layers.submodule(second, params, "SpatialGate", f.output)              # (16)

        def backward(dy):
            df, grads_spatial = g.backward(dy)                                     # (16')
            dx, grads_channel = f.backward(df)                                     # (15')
            return dx, grads_channel | grads_spatial

        return Pass(g.output, backward, {**f.attention, **g.attention}, g.buffers)


def identity(_: Params, x: Array) -> Pass:
    """Hand a map on as it is."""
    return Pass(x, lambda dy: (dy, {}))
