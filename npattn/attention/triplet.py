"""Triplet attention: gates along each of a map's three axes, by what the two others have in common there."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.array_checks import check_variance
from npattn.fields import boolean, integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, norm_buffers, norm_parameters
from npattn.synonyms import Naming
from npattn.typing import Array, Backward, Params

POOLED_AXES = {"cw": 2, "hc": 3, "hw": 1}
"""The axis that each gate pools over, by the two that it keeps: of height, width and channels."""
MOMENTUM = 0.01
"""Weight of a batch in the running statistics, as the authors' code has it."""
OLDER = {"ChannelGateH": "cw", "ChannelGateW": "hc", "SpatialGate": "hw"}
"""The gates' names in the networks that the authors trained."""


def gate_along(x: Array, params: Params, name: str, *, training: bool) -> tuple[tuple[Array, ...], Backward]:
    """Pool over one axis, and gate the plane of the two others by a convolution over it, as CBAM gates positions."""
    axis, margin = POOLED_AXES[name], params[f"{name}.conv.conv.weight"].shape[2] // 2
    norm = functools.partial(layers.batch_norm, training=training, momentum=MOMENTUM)
    m, back_max = ops.max_pool(x, axis)                                                 # (1)
    p, back_mean = ops.average_pool(x, axis)                                            # (2)
    t, back_join = ops.concatenate((m.swapaxes(1, axis), p.swapaxes(1, axis)), axis=1)  # (3)
    z, back_conv = layers.conv(t, params, f"{name}.conv.conv", padding=margin)          # (4)
    (n, running), back_norm = norm(z, params, f"{name}.conv.bn")                        # (5)
    a, back_sigmoid = ops.sigmoid(n)                                                    # (6)
    y, back_gate = ops.gate(x, a.swapaxes(1, axis))                                     # (7)

    def backward(dy, accumulate_into=None):
        dx, da = back_gate(dy)                                                          # (7')
        dn = back_sigmoid(da.swapaxes(1, axis))                                         # (6')
        dz, grads_norm = back_norm(dn)                                                  # (5')
        dt, grads_conv = back_conv(dz)                                                  # (4')
        dm, dp = back_join(dt)                                                          # (3')
        dx = back_mean(dp.swapaxes(1, axis), accumulate_into=dx)                        # (2')
        dx = back_max(dm.swapaxes(1, axis), accumulate_into=dx)                         # (1')
        return ops.accumulate(accumulate_into, dx), grads_conv | grads_norm

    return (y, a.swapaxes(1, axis), running), backward


@dataclass(frozen=True)
class TripletAttention(Module):
    """Average three gated maps: one gated by channel and column, one by row and channel, one by position.

    CBAM's spatial gate pools over the channels, and so knows no channel from another. Here the map is pooled over its
    rows, its columns and its channels; each time maximum and mean of what is pooled are two planes, over which a
    convolution makes a gate for every place of the plane. No layer has more than the two planes to read, so there are
    few parameters, whatever the number of channels.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    spatial : bool, default True
        Whether there is the third gate, by position: without it two are averaged.
    kernel_size : int, default 7
        k, odd.
    training : bool, default False
        Whether batch norm takes the batch's own statistics.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; when called in training, if some gate's plane has fewer than two numbers
        in the whole batch.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["cw"]``: (B, C, 1, W), ``attention["hc"]``:
    (B, C, H, 1), ``attention["hw"]``: (B, 1, H, W). Parameters, named as in the authors' code: ``cw.conv.conv.weight``
    (1, 2, k, k), without bias, ``cw.conv.bn.weight`` and ``cw.conv.bn.bias`` (1,), and the running statistics
    ``cw.conv.bn.running_mean`` and ``cw.conv.bn.running_var``; ``hc.conv.conv.weight``, ``hc.conv.bn.weight``,
    ``hc.conv.bn.bias`` and ``hw.conv.conv.weight``, ``hw.conv.bn.weight``, ``hw.conv.bn.bias`` likewise; their names in
    the networks that the authors trained, as ``ChannelGateH.spatial.conv.weight``, are read too. Kernels start as that
    code's `Conv2d` do, uniform in ±1/√(2k²). In the running statistics a batch has weight 0.01.

    References
    ----------
    Misra, Nalamada, Arasanipalai, Hou: Rotate to Attend: Convolutional Triplet Attention Module, WACV 2021, section
    3.2, eq. 4.

    Examples
    --------
    >>> module = TripletAttention(channels=8)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); cw (2, 8, 1, 5); hc (2, 8, 7, 1); hw (2, 1, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> grads["hc.conv.conv.weight"].shape
    (1, 2, 7, 7)
    """

    key: ClassVar = "triplet"
    family: ClassVar = "both"
    paper: ClassVar = Paper(
        title="Rotate to Attend: Convolutional Triplet Attention Module",
        authors="Misra, Nalamada, Arasanipalai, Hou",
        venue="WACV",
        year=2021,
        url="https://arxiv.org/abs/2010.03045",
    )
    published: ClassVar = (
        Naming(
            {
                f"{older}.spatial.{part}": f"{name}.conv.{part}"
                for older, name in OLDER.items()
                for part in ("conv", "bn")
            }
        ),
    )

    channels: int = integer(least=1)
    spatial: bool = boolean(default=True)
    kernel_size: int = integer(least=1, default=7, odd=True)
    training: bool = boolean(default=False)

    @classmethod
    def example(cls) -> TripletAttention:
        """Return a small instance: 16 channels."""
        return cls(channels=16)

    @property
    def gates(self) -> list[str]:
        """The gates that there are, by the axes that they keep."""
        return [name for name in POOLED_AXES if self.spatial or name != "hw"]

    def parameters(self) -> dict[str, Parameter]:
        """Declare each gate's kernel, and batch norm's scale and shift."""
        declared: dict[str, Parameter] = {}
        for name in self.gates:
            declared |= layers.conv_parameters(f"{name}.conv.conv", 1, 2, self.kernel_size, bias=False)
            declared |= norm_parameters(f"{name}.conv.bn", 1)
        return declared

    def buffers(self) -> dict[str, Parameter]:
        """Declare each batch norm's running mean and variance."""
        return {key: buffer for name in self.gates for key, buffer in norm_buffers(f"{name}.conv.bn", 1).items()}

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a batch in which some plane's variance can't be estimated."""
        super().check_inputs(inputs)
        if self.training:
            for name in self.gates:
                check_variance(self, inputs[0].swapaxes(1, POOLED_AXES[name]))

    def forward(self, params: Params, x: Array) -> Pass:
        """Gate along each axis, average. The tags are the equation numbers of the derivation."""
        gated = functools.partial(gate_along, x, params, training=self.training)
        (y_cw, a_cw, running), back_cw = gated(name="cw")                        # (8)
        (y_hc, a_hc, running_hc), back_hc = gated(name="hc")                     # (9)
        maps, attention, running = [y_cw, y_hc], {"cw": a_cw, "hc": a_hc}, running | running_hc
        if self.spatial:
            (y_hw, a_hw, running_hw), back_hw = gated(name="hw")                 # (10)
            maps, attention, running = [*maps, y_hw], attention | {"hw": a_hw}, running | running_hw
        f, back_add = ops.add(*maps)                                             # (11)
        y, back_share = ops.gate(f, np.full_like(f, 1 / len(maps), shape=(1,)))  # (12)

        def backward(dy):
            dx, grads_hw = None, {}
            df, _ = back_share(dy)                                               # (12')
            dy_cw, dy_hc, *dy_hw = back_add(df)                                  # (11')
            if self.spatial:
                dx, grads_hw = back_hw(*dy_hw)                                   # (10')
            dx, grads_hc = back_hc(dy_hc, accumulate_into=dx)                    # (9')
            dx, grads_cw = back_cw(dy_cw, accumulate_into=dx)                    # (8')
            return dx, grads_cw | grads_hc | grads_hw

        return Pass(y, backward, attention, running)
