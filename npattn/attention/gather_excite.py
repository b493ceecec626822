"""Gather-excite: averages of neighbourhoods, or what kernels make of them, gate the positions that they are of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from npattn import layers, ops
from npattn.array_checks import check_variance
from npattn.fields import boolean, choice, integer, side
from npattn.module import Module, Paper, Pass
from npattn.ops.convolution import pair
from npattn.ops.elementwise import ACTIVATIONS, GATES
from npattn.parameters import Parameter, nearest_channels, norm_buffers, norm_parameters
from npattn.typing import Array, Backward, Gradients, Params

Link: TypeAlias = Callable[[Array], tuple[tuple[Array, dict[str, Array]], Backward]]
"""What gathers: it returns what is gathered, with new running statistics, and the way back."""


def gather_by_kernel(
    x: Array, params: Params, name: str, *, stride: int, norm: bool, training: bool, activation: str | None
) -> tuple[tuple[Array, dict[str, Array]], Backward]:
    """Slide one kernel over each channel, with a norm and an activation behind if there are any."""
    conv, norm_behind = f"gather.{name}", f"gather.{name}".replace("conv", "norm")
    running: dict[str, Array] = {}
    padding = padding_of(params[f"{conv}.weight"])
    q, back_conv = layers.conv(x, params, conv, stride=stride, padding=padding, groups=x.shape[1])  # (1)
    if norm:
        (q, running), back_norm = layers.batch_norm(q, params, norm_behind, training=training)      # (2)
    if activation:
        q, back_activation = ACTIVATIONS[activation](q)                                             # (3)

    def backward(dq):
        grads_norm = {}
        if activation:
            dq = back_activation(dq)                                                                # (3')
        if norm:
            dq, grads_norm = back_norm(dq)                                                          # (2')
        dx, grads_conv = back_conv(dq)                                                              # (1')
        return dx, grads_conv | grads_norm

    return (q, running), backward


def padding_of(kernel: Array) -> tuple[int, int]:
    """Return the rows and columns of zeros before and behind a map that a kernel slides over."""
    rows, columns = kernel.shape[2:]
    return (rows - 1) // 2, (columns - 1) // 2


def gather_by_average(x: Array, extent: int) -> tuple[tuple[Array, dict[str, Array]], Backward]:
    """Average neighbourhoods, or the whole map, in the form of a kernel: without statistics and parameters."""
    p, back_average = ops.gather_average(x, extent) if extent else ops.average_pool(x, axis=(2, 3))

    def backward(dp):
        return back_average(dp), {}

    return (p, {}), backward


def gather_along(x: Array, links: list[Link]) -> tuple[tuple[Array, dict[str, Array]], Backward]:
    """Go through the links of a chain, and back through them."""
    backs: list[Backward] = []
    running: dict[str, Array] = {}
    for link in links:
        (x, new), back_link = link(x)
        backs, running = [back_link, *backs], running | new

    def backward(dp):
        grads: Gradients = {}
        for back_link in backs:
            dp, grads_link = back_link(dp)
            grads = grads_link | grads
        return dp, grads

    return (x, running), backward


@dataclass(frozen=True)
class GatherExcite(Module):
    """Gate every position of every channel by what is gathered from the neighbourhood that it lies in.

    Gather: over neighbourhoods of 2e - 1 rows and columns, e apart, a channel is averaged, or put through depth-wise
    3×3 kernels of stride 2, one behind the other, until e = 2^k positions have become one. Excite: two layers mix the
    channels of what is gathered, a sigmoid makes gates of it, and each gate serves the e × e positions of its place.
    With e = 0 the whole map is gathered: without kernels that is squeeze-and-excitation.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    extent : int, default 0
        e, even; 0 for the whole map.
    extra_params : bool, default False
        Whether kernels gather, not averages: k of them, where 2^k is the largest power of 2 up to e.
    feat_size : int or pair of int, optional
        Side of the kernel that gathers the whole map, or its rows and columns: needed with `extra_params` and an extent
        of 0, and of no use without. An even side makes one row or column of gates fewer than the map has.
    mlp : bool, default True
        Whether two layers stand between gather and gates; else what is gathered is squashed as it is.
    reduction : int, default 16
        r; there are C/r channels between the two layers, rounded to the nearest whole number, at least 1.
    hidden : int, optional
        Channels between the two layers, in place of that.
    batch_norm : bool, default True
        Whether a norm stands behind each kernel.
    activation : {"relu", "leaky_relu", "silu", "gelu", "hard_swish"}, default "relu"
        Behind each kernel but the last, and between the two layers.
    gate : {"sigmoid", "hard_sigmoid"}, default "sigmoid"
        What makes the gates.
    training : bool, default False
        Whether the norms use the batch's own statistics, and ``run.buffers`` holds the new running ones.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; when called, if an even kernel finds a single row or column, and in
        training with norms, if what is gathered is fewer than two values for a channel.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["blocks"]``: (B, C, H', W'), the gates, with
    H' = ⌈H / e⌉, 2^k in place of e where kernels gather; where all of the map is averaged ``attention["channel"]``:
    (B, C). Parameters, named as in timm: with kernels ``gather.conv1.weight`` (C, 1, 3, 3) and, with norms,
    ``gather.norm1.weight`` (C,) and ``gather.norm1.bias`` (C,), beside which the running statistics stand, then
    ``gather.conv2.weight``, ``gather.norm2.weight`` and ``gather.norm2.bias`` and so on; with the layers
    ``mlp.fc1.weight`` (C/r, C, 1, 1), ``mlp.fc1.bias`` (C/r,), ``mlp.fc2.weight`` (C, C/r, 1, 1), ``mlp.fc2.bias``
    (C,). They start as PyTorch's layers do.

    References
    ----------
    Hu, Shen, Albanie, Sun, Vedaldi: Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks,
    NeurIPS 2018, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> module = GatherExcite(channels=8, extent=2, reduction=4)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); blocks (2, 8, 4, 3))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> {name: grad.shape for name, grad in grads.items()}
    {'mlp.fc1.weight': (2, 8, 1, 1), 'mlp.fc1.bias': (2,), 'mlp.fc2.weight': (8, 2, 1, 1), 'mlp.fc2.bias': (8,)}
    """

    key: ClassVar = "ge"
    family: ClassVar = "both"
    paper: ClassVar = Paper(
        title="Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks",
        authors="Hu, Shen, Albanie, Sun, Vedaldi",
        venue="NeurIPS",
        year=2018,
        url="https://arxiv.org/abs/1810.12348",
    )

    channels: int = integer(least=1)
    extent: int = integer(least=0, default=0, even=True)
    extra_params: bool = boolean(default=False)
    feat_size: int | tuple[int, int] | None = side(least=1, default=None)
    mlp: bool = boolean(default=True)
    reduction: int = integer(least=1, default=16)
    hidden: int | None = integer(least=1, default=None)
    batch_norm: bool = boolean(default=True)
    activation: str = choice(ACTIVATIONS, default="relu")
    gate: str = choice(GATES, default="sigmoid")
    training: bool = boolean(default=False)

    def __post_init__(self) -> None:
        """Refuse, besides, a kernel of no size."""
        super().__post_init__()
        if self.extra_params and not self.extent and self.feat_size is None:
            raise ValueError(
                f"{type(self).__name__}: feat_size=None; expected the side of the kernel that gathers the whole map, "
                "which extra_params=True and extent=0 ask for"
            )

    @classmethod
    def example(cls) -> GatherExcite:
        """Return a small instance: 32 channels, 4 in the hidden layer, two kernels."""
        return cls(channels=32, extent=4, extra_params=True, reduction=8)

    @property
    def hidden_channels(self) -> int:
        """Channels between the two layers: `hidden`, or C/r."""
        return self.hidden or nearest_channels(self.channels / self.reduction)

    @property
    def averages_all(self) -> bool:
        """Whether the whole map is averaged, and its gates are those of the channels."""
        return not self.extra_params and not self.extent

    @property
    def num_kernels(self) -> int:
        """How many kernels gather, one behind the other."""
        if not self.extra_params:
            return 0
        return int(self.extent).bit_length() - 1 if self.extent else 1

    @property
    def stride(self) -> int:
        """How far apart the places are that something is gathered at: 1 where a kernel has the size of the map."""
        return 2**self.num_kernels if self.extent and self.extra_params else self.extent or 1

    def links(self, params: Params) -> list[Link]:
        """List what gathers, one behind the other: one average, or the kernels."""
        if not self.extra_params:
            return [functools.partial(gather_by_average, extent=self.extent)]
        stride, norm, training = 2 if self.extent else 1, self.batch_norm, self.training
        link: Any = functools.partial(gather_by_kernel, params=params, stride=stride, norm=norm, training=training)
        *inner, last = [functools.partial(link, name=f"conv{i}") for i in range(1, self.num_kernels + 1)]
        activated = [functools.partial(each, activation=self.activation) for each in inner]
        return [*activated, functools.partial(last, activation=None)]

    def parameters(self) -> dict[str, Parameter]:
        """Declare the kernels with their norms, and the two layers."""
        channels, hidden, size = self.channels, self.hidden_channels, 3 if self.extent else self.feat_size or 1
        declared: dict[str, Parameter] = {}
        for i in range(1, self.num_kernels + 1):
            declared |= layers.conv_parameters(f"gather.conv{i}", channels, 1, size, bias=False)
            declared |= norm_parameters(f"gather.norm{i}", channels) if self.batch_norm else {}
        if self.mlp:
            declared |= layers.conv_parameters("mlp.fc1", hidden, channels)
            declared |= layers.conv_parameters("mlp.fc2", channels, hidden)
        return declared

    def buffers(self) -> dict[str, Parameter]:
        """Declare the norms' running statistics."""
        declared: dict[str, Parameter] = {}
        for i in range(1, self.num_kernels + 1):
            declared |= norm_buffers(f"gather.norm{i}", self.channels) if self.batch_norm else {}
        return declared

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a map too small for the kernel, and a batch of which what is gathered has no variance."""
        super().check_inputs(inputs)
        (x,), whole = inputs, self.extra_params and not self.extent
        rows, columns = (1 - n % 2 for n in pair(self.feat_size or 1)) if whole else (0, 0)
        if x.shape[2] <= rows or x.shape[3] <= columns:
            raise ValueError(
                f"{self}: x has shape {x.shape}; expected at least {1 + rows} × {1 + columns} positions, as a kernel "
                "with an even side leaves a row or column less: give a larger map, or an odd side"
            )
        if self.training and self.batch_norm and self.num_kernels:
            check_variance(self, x[:, :, rows :: self.stride, columns :: self.stride])

    def forward(self, params: Params, x: Array) -> Pass:
        """Gather, excite, gate. The tags are the equation numbers of the derivation."""
        (p, running), back_gather = gather_along(x, self.links(params))  # (4)
        z = p
        if self.mlp:
            h, back_fc1 = layers.conv(p, params, "mlp.fc1")              # (5)
            r, back_activation = ACTIVATIONS[self.activation](h)         # (6)
            z, back_fc2 = layers.conv(r, params, "mlp.fc2")              # (7)
        a, back_sigmoid = GATES[self.gate](z)                            # (8)
        e = a
        if not self.averages_all:
            e, back_resize = ops.resize_nearest(a, x.shape[2:])          # (9)
        y, back_gate = ops.gate(x, e)                                    # (10)

        def backward(dy):
            grads = {}
            dx, de = back_gate(dy)                                       # (10')
            if not self.averages_all:
                de = back_resize(de)                                     # (9')
            dp = back_sigmoid(de)                                        # (8')
            if self.mlp:
                dr, grads_fc2 = back_fc2(dp)                             # (7')
                dh = back_activation(dr)                                 # (6')
                dp, grads_fc1 = back_fc1(dh)                             # (5')
                grads = grads_fc1 | grads_fc2
            dp, grads_gather = back_gather(dp)                           # (4')
            return ops.accumulate(dx, dp), grads_gather | grads

        maps = {"channel": a[:, :, 0, 0]} if self.averages_all else {"blocks": a}
        return Pass(y, backward, maps, running)
