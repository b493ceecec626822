"""External attention: positions look at a small memory that is learnt, not at each other."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import layers, ops
from npattn.array_checks import check_variance
from npattn.fields import boolean, integer
from npattn.module import Module, Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter, he_normal, norm_buffers, norm_parameters
from npattn.synonyms import Naming
from npattn.typing import Array, Params


@dataclass(frozen=True)
class ExternalAttention(Module):
    """Describe every position by how much it has of each of S memories, and put it together from what these hold.

    A memory's keys score every position, and its values say what it stands for: both are layers without bias, learnt
    from all images. Scores are normalised twice, by a softmax over the positions, one for each memory, and then over
    the memories, so that a position's weights add up to 1 and no memory wins by the size of its scores alone. Work
    grows as the number of positions. The block has a layer before and one behind, with a norm, adds the map, and
    rectifies.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    memory : int, default 64
        S, how many memories there are.
    block : bool, default True
        Whether there are the layers around, or the two memories alone.
    training : bool, default False
        Whether batch norm takes the batch's own statistics.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; when called in training, if the block's norm sees fewer than two positions
        in the whole batch.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["memory"]``: (B, S, H, W). Parameters, named as in the
    authors' code: ``linear_0.weight`` (S, C, 1), the keys, and ``linear_1.weight`` (C, S, 1), the values; in the block
    ``conv1.weight`` (C, C, 1, 1) and ``conv1.bias`` (C,), ``conv2.0.weight`` (C, C, 1, 1), ``conv2.1.weight`` and
    ``conv2.1.bias`` (C,), and the running statistics ``conv2.1.running_mean`` and ``conv2.1.running_var``. Kernels
    start from a normal distribution of variance 2 / fan-out. The names ``mk`` and ``mv`` of other PyTorch code are
    read too.

    References
    ----------
    Guo, Liu, Mu, Hu: Beyond Self-attention: External Attention using Two Linear Layers for Visual Tasks, 2021, eq. 7
    to 11, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> module = ExternalAttention(channels=8, memory=4)
    >>> run = module(module.init(seed=0), np.random.RandomState(0).standard_normal((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); memory (2, 4, 7, 5))
    >>> run.attention["memory"].sum(axis=1)[0, 0].round(6)
    array([1., 1., 1., 1., 1.])
    >>> dx, grads = run.backward(run.output)
    >>> list(grads)[:3]
    ['conv1.weight', 'conv1.bias', 'linear_0.weight']
    """

    key: ClassVar = "external"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Beyond Self-attention: External Attention using Two Linear Layers for Visual Tasks",
        authors="Guo, Liu, Mu, Hu",
        venue="arXiv",
        year=2021,
        url="https://arxiv.org/abs/2105.02358",
    )
    published: ClassVar = (Naming({"mk": "linear_0", "mv": "linear_1"}),)

    channels: int = integer(least=1)
    memory: int = integer(least=1, default=64)
    block: bool = boolean(default=True)
    training: bool = boolean(default=False)

    @classmethod
    def example(cls) -> ExternalAttention:
        """Return a small instance: 16 channels, 5 memories."""
        return cls(channels=16, memory=5)

    def parameters(self) -> dict[str, Parameter]:
        """Declare keys and values of the memories, and the layers around them."""
        channels, initial = self.channels, functools.partial(he_normal, fan="out")
        memories = {
            "linear_0.weight": initial(self.memory, channels, 1),
            "linear_1.weight": initial(channels, self.memory, 1),
        }
        if not self.block:
            return memories
        return {
            **layers.conv_parameters("conv1", channels, channels, initial=initial),
            **memories,
            **layers.conv_parameters("conv2.0", channels, channels, initial=initial, bias=False),
            **norm_parameters("conv2.1", channels),
        }

    def buffers(self) -> dict[str, Parameter]:
        """Declare batch norm's running mean and variance."""
        return norm_buffers("conv2.1", self.channels) if self.block else {}

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a batch whose variance batch norm can't estimate."""
        super().check_inputs(inputs)
        if self.block and self.training:
            check_variance(self, inputs[0])

    def forward(self, params: Params, x: Array) -> Pass:
        """Score, normalise twice, put together; and the layers around. The tags are the derivation's."""
        u, running = x, dict[str, Array]()
        if self.block:
            u, back_conv1 = layers.conv(x, params, "conv1")                                            # (1)
        z, back_keys = layers.conv(u, params, "linear_0")                                              # (2)
        s, back_softmax = ops.softmax(flatten_positions(z))                                            # (3)
        a, back_sum = ops.sum_normalize(s, axis=1)                                                     # (4)
        o, back_values = layers.conv(a.reshape(z.shape), params, "linear_1")                           # (5)
        y = o
        if self.block:
            r, back_conv2 = layers.conv(o, params, "conv2.0")                                          # (6)
            (n, running), back_norm = layers.batch_norm(r, params, "conv2.1", training=self.training)  # (7)
            t, back_add = ops.add(x, n)                                                                # (8)
            y, back_relu = ops.relu(t)                                                                 # (9)

        def backward(dy):
            do, grads_around = dy, {}
            if self.block:
                dt = back_relu(dy)                                                                     # (9')
                dx, dn = back_add(dt)                                                                  # (8')
                dr, grads_norm = back_norm(dn)                                                         # (7')
                do, grads_conv2 = back_conv2(dr)                                                       # (6')
                grads_around = grads_conv2 | grads_norm
            da, grads_values = back_values(do)                                                         # (5')
            ds = back_sum(da.reshape(a.shape))                                                         # (4')
            dz = back_softmax(ds)                                                                      # (3')
            du, grads_keys = back_keys(dz.reshape(z.shape))                                            # (2')
            grads = grads_keys | grads_values | grads_around
            if not self.block:
                return du, grads
            dx, grads_conv1 = back_conv1(du, accumulate_into=dx)                                       # (1')
            return dx, grads_conv1 | grads

        return Pass(y, backward, attention={"memory": a.reshape(z.shape)}, buffers=running)
