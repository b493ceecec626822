"""Non-local block: every position adds what it gathers from all others, behind a norm that starts at 0."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.array_checks import check_variance
from npattn.attention_maps import MapByRows
from npattn.fields import boolean, choice, integer, number
from npattn.module import Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter, he_normal, norm_buffers, round_channels, zeros
from npattn.synonyms import Naming
from npattn.typing import Array, Backward, Params

VARIANTS = {"embedded_gaussian": ops.dot_product_attention, "dot_product": ops.linear_attention}
"""How positions gather: by the softmax of their products with all others, or by the products themselves."""
OTHER_NAMES = {"t": ("theta",), "p": ("phi.0", "phi"), "g": ("g.0", "g"), "z": ("W", "W.0"), "norm": ("W.1",)}
"""What other PyTorch code calls the layers; before a pool they stand in a `Sequential`."""
MMCV = {
    **{"theta.conv": "t", "phi.0.conv": "p", "phi.conv": "p", "g.0.conv": "g", "g.conv": "g"},
    **{"conv_out.conv": "z", "conv_out.bn": "norm"},
}
"""What mmcv calls them."""


def pool(x: Array) -> tuple[Array, Backward]:
    """Keep the maximum of every block of 2×2 positions; a last row or column without a second is left out."""
    height, width = (length - length % 2 for length in x.shape[2:])
    windows, back_cut = ops.unfold_windows(x[:, :, :height, :width], 2, 2)
    p, back_max = ops.max_pool(windows.reshape(*windows.shape[:4], 4), axis=4)

    def backward(dp):
        dwindows = back_max(dp[..., None])
        dx = np.zeros_like(x)
        dx[:, :, :height, :width] = back_cut(dwindows.reshape(windows.shape))
        return dx

    return p[..., 0], backward


@dataclass(frozen=True)
class NonLocal(MapByRows):
    """Add to every position a sum of the values of all positions, by how its query goes with their keys.

    Three 1×1 convolutions make queries, keys and values with fewer channels, a fourth leads back, and batch norm stands
    behind it, whose scale starts at 0. In the embedded Gaussian form position j weighs position i by the softmax of
    scale q_j · k_i over i; in the dot-product form by scale q_j · k_i / M, M being the number of keys, so that the work
    grows as the number of positions. Keys and values may be pooled first, 2×2 positions to one.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 8
        Queries, keys and values have D = C / reduction channels, rounded to a multiple of 8, at least 8; the paper's
        have C/2.
    variant : {"embedded_gaussian", "dot_product"}, default "embedded_gaussian"
        Whether there is a softmax.
    subsample : bool, default False
        Whether keys and values are pooled: the maximum of every 2×2 positions.
    scale : float, optional
        Factor of the products. By default 1/√C in the embedded Gaussian form, as in timm, and 1 in the other; the
        paper's is 1 in both.
    hidden : int, optional
        D, in place of that.
    batch_norm : bool, default True
        Whether there is a norm.
    training : bool, default False
        Whether batch norm takes the batch's own statistics.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; when called, if a map has fewer than 2 × 2 positions for `subsample`, and
        in training with batch norm if the batch has fewer than two positions.

    Notes
    -----
    Input ``x``: (B, C, H, W), with `subsample` of at least 2 × 2 positions. Output: (B, C, H, W). Parameters, named as
    in timm: of queries, keys and values ``t.weight``, ``p.weight`` and ``g.weight`` (D, C, 1, 1), ``t.bias``,
    ``p.bias`` and ``g.bias`` (D,); ``z.weight`` (C, D, 1, 1) and ``z.bias`` (C,); ``norm.weight`` and ``norm.bias``
    (C,), and the running statistics ``norm.running_mean`` and ``norm.running_var``. Kernels start from a normal
    distribution of variance 2 / fan-out, biases and norm at 0; without the norm ``z.weight`` starts at 0. The names
    ``theta``, ``phi``, ``g``, ``W.0`` and ``W.1`` of other PyTorch code, and those of mmcv, are read too. The pass has
    no attention map: `attention_map` makes the rows of it that are asked for. Row j holds the weights of all keys for
    position j; in the embedded Gaussian form they add up to 1.

    References
    ----------
    Wang, Girshick, Gupta, He: Non-local Neural Networks, CVPR 2018, eq. 1, 3, 4, 6, section 3.3.

    Examples
    --------
    >>> module = NonLocal(channels=16)
    >>> params, x = module.init(seed=0), np.ones((2, 16, 6, 5))
    >>> run = module(params, x)
    >>> run
    Pass(output: float64 (2, 16, 6, 5))
    >>> dx, grads = run.backward(np.ones((2, 16, 6, 5)))
    >>> grads["t.weight"].shape
    (8, 16, 1, 1)
    >>> module.attention_map(params, x, rows=[0, 29]).shape
    (2, 2, 30)
    """

    key: ClassVar = "non-local"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Non-local Neural Networks",
        authors="Wang, Girshick, Gupta, He",
        venue="CVPR",
        year=2018,
        url="https://arxiv.org/abs/1711.07971",
    )
    pairs_positions: ClassVar = True
    published: ClassVar = (
        Naming({other: ours for ours, others in OTHER_NAMES.items() for other in others}),
        Naming(MMCV),
    )

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=8)
    variant: str = choice(VARIANTS, default="embedded_gaussian")
    subsample: bool = boolean(default=False)
    scale: float | None = number(default=None)
    hidden: int | None = integer(least=1, default=None)
    batch_norm: bool = boolean(default=True)
    training: bool = boolean(default=False)

    @classmethod
    def example(cls) -> NonLocal:
        """Return a small instance: 16 channels, 4 in queries, keys and values."""
        return cls(channels=16, hidden=4)

    @property
    def hidden_channels(self) -> int:
        """D, channels of queries, keys and values: `hidden`, or C/r."""
        return self.hidden or round_channels(self.channels / self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layers that make queries, keys and values, the one that leads back, and the norm."""
        channels, hidden = self.channels, self.hidden_channels
        initial = functools.partial(he_normal, fan="out")
        last = initial if self.batch_norm else zeros
        norm = {"norm.weight": zeros(channels), "norm.bias": zeros(channels)} if self.batch_norm else {}
        return {
            **layers.conv_parameters("t", hidden, channels, initial=initial),
            **layers.conv_parameters("p", hidden, channels, initial=initial),
            **layers.conv_parameters("g", hidden, channels, initial=initial),
            **layers.conv_parameters("z", channels, hidden, initial=last),
            **norm,
        }

    def buffers(self) -> dict[str, Parameter]:
        """Declare batch norm's running mean and variance."""
        return norm_buffers("norm", self.channels) if self.batch_norm else {}

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a map that a pool leaves nothing of, and a batch whose variance can't be estimated."""
        super().check_inputs(inputs)
        if self.subsample and min(inputs[0].shape[2:]) < 2:
            raise ValueError(
                f"{self}: x has shape {inputs[0].shape}; expected at least 2 × 2 positions, of which the pool makes a "
                "key: give a larger map, or set subsample=False"
            )
        if self.batch_norm and self.training:
            check_variance(self, inputs[0])

    def product_scale(self, keys: int) -> float:
        """Return the factor of the products of queries and keys, of which there are so many."""
        if self.variant == "dot_product":
            return (1.0 if self.scale is None else self.scale) / keys
        return self.channels**-0.5 if self.scale is None else self.scale

    def forward(self, params: Params, x: Array) -> Pass:
        """Make queries, keys and values, gather, lead back, normalise, add. The tags are the derivation's."""
        q, back_query = layers.conv(x, params, "t")                                                 # (1)
        k, back_key = layers.conv(x, params, "p")                                                   # (2)
        v, back_value = layers.conv(x, params, "g")                                                 # (3)
        if self.subsample:
            k, back_pool_key = pool(k)                                                              # (4)
            v, back_pool_value = pool(v)                                                            # (5)
        attend, scale = VARIANTS[self.variant], self.product_scale(k.shape[2] * k.shape[3])
        rows = map(flatten_positions, (q, k, v))
        o, back_attention = attend(*rows, scale)                                                    # (6)
        z, back_z = layers.conv(o.reshape(q.shape), params, "z")                                    # (7)
        n, running = z, dict[str, Array]()
        if self.batch_norm:
            (n, running), back_norm = layers.batch_norm(z, params, "norm", training=self.training)  # (8)
        y, back_add = ops.add(x, n)                                                                 # (9)

        def backward(dy):
            dx, dn = back_add(dy)                                                                   # (9')
            dz, grads_norm = dn, {}
            if self.batch_norm:
                dz, grads_norm = back_norm(dn)                                                      # (8')
            do, grads_z = back_z(dz)                                                                # (7')
            dq, dk, dv = back_attention(do.reshape(o.shape))                                        # (6')
            dk, dv = dk.reshape(k.shape), dv.reshape(v.shape)
            if self.subsample:
                dv = back_pool_value(dv)                                                            # (5')
                dk = back_pool_key(dk)                                                              # (4')
            dx, grads_value = back_value(dv, accumulate_into=dx)                                    # (3')
            dx, grads_key = back_key(dk, accumulate_into=dx)                                        # (2')
            dx, grads_query = back_query(dq.reshape(q.shape), accumulate_into=dx)                   # (1')
            return dx, grads_query | grads_key | grads_value | grads_z | grads_norm

        return Pass(y, backward, buffers=running)

    def map_rows(self, params: Params, rows: slice | list[int], x: Array) -> Array:
        """Make the weights of all keys for some positions."""
        q, k = (layers.conv(x, params, name)[0] for name in ("t", "p"))
        q, k = map(flatten_positions, (q, pool(k)[0] if self.subsample else k))
        s = self.product_scale(k.shape[2]) * ops.matmul(q[:, :, rows].swapaxes(1, 2), k)[0]
        return s if self.variant == "dot_product" else ops.softmax(s)[0]
