"""Soft-hard attention: the positions that score highest are chosen, and only these are weighed against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import layers, ops
from npattn.fields import integer
from npattn.module import Module, Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter
from npattn.typing import Array, Params


@dataclass(frozen=True)
class SoftHardAttention(Module):
    """Choose the k positions that score highest, and average their features by the softmax of their scores.

    A 1×1 convolution scores every position, s = w · x + β. The choice of T, the k highest, is hard; the weights in it
    are soft: y = Σ_T a_n x_n with a_n = exp s_n / Σ_T exp s_m. With k = 1 this is the feature at the highest score;
    with all positions it is soft attention. The gradient is exact as long as T stays the same; where T changes, y
    jumps.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    k : int
        Positions that are chosen.

    Raises
    ------
    TypeError
        If `channels` or `k` is no integer.
    ValueError
        If `channels` or `k` is below 1. In a call, if the map has fewer than k positions.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C). ``attention["weights"]``: (B, H, W), 0 at positions that are not chosen.
    Parameters: ``score.weight`` (1, C, 1, 1), ``score.bias`` (1,), both from the uniform distribution that PyTorch's
    layers start from. Of equal scores the first position is chosen. A score that is NaN counts as the highest, so that
    it is chosen and shows in the output.

    References
    ----------
    Soft and hard attention, 软、硬注意力: Xu et al.: Show, Attend and Tell, ICML 2015. The k highest scores, and a
    softmax over these alone: Shazeer et al.: Outrageously Large Neural Networks, ICLR 2017, eq. 3 and 5, for experts;
    Zhao et al.: Explicit Sparse Transformer, 2019, for attention.

    Examples
    --------
    >>> import numpy as np
    >>> module = SoftHardAttention(channels=8, k=3)
    >>> x = np.random.RandomState(0).standard_normal((2, 8, 7, 5))
    >>> run = module(module.init(seed=0), x)
    >>> run
    Pass(output: float64 (2, 8); weights (2, 7, 5))
    >>> np.count_nonzero(run.attention["weights"], axis=(1, 2))
    array([3, 3])
    >>> dx, grads = run.backward(np.ones((2, 8)))
    >>> np.count_nonzero(dx.any(axis=1), axis=(1, 2))
    array([3, 3])
    """

    key: ClassVar = "soft-hard"
    family: ClassVar = "spatial"
    paper: ClassVar = Paper(
        title="Explicit Sparse Transformer: Concentrated Attention Through Explicit Selection",
        authors="Zhao, Lin, Zhang, Ren, Su, Sun",
        venue="arXiv",
        year=2019,
        url="https://arxiv.org/abs/1912.11637",
    )

    channels: int = integer(least=1)
    k: int = integer(least=1)

    @classmethod
    def example(cls) -> SoftHardAttention:
        """Return a small instance: 32 channels, 4 positions."""
        return cls(channels=32, k=4)

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the averaged features."""
        return {"output": (batch, self.channels)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the convolution that scores."""
        return layers.conv_parameters("score", 1, self.channels)

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a map that has fewer positions than are to be chosen."""
        super().check_inputs(inputs)
        height, width = inputs[0].shape[2:]
        if height * width < self.k:
            raise ValueError(
                f"{self}: x has shape {inputs[0].shape}; expected at least k={self.k} positions to choose from, "
                f"the map has {height * width}: give a larger map or a smaller k"
            )

    def forward(self, params: Params, x: Array) -> Pass:
        """Score, choose, take the chosen features, weigh them, add them up. The tags are the derivation's."""
        v = flatten_positions(x)
        s, back_score = layers.score(v, params, "score")    # (1)
        (t, index), back_top = ops.top(s, self.k)           # (2)
        f, back_take = ops.take(v, index)                   # (3)
        a, back_softmax = ops.softmax(t)                    # (4)
        y, back_product = ops.matmul(f, a[:, :, None])      # (5)

        def backward(dy):
            df, da = back_product(dy[:, :, None])           # (5')
            dt = back_softmax(da[:, :, 0])                  # (4')
            dv = back_take(df)                              # (3')
            ds = back_top(dt)                               # (2')
            dv, grads = back_score(ds, accumulate_into=dv)  # (1')
            return dv.reshape(x.shape), grads

        weights = back_top(a)  # laid out over the positions as a gradient would be
        return Pass(y[:, :, 0], backward, attention={"weights": weights.reshape(x.shape[0], *x.shape[2:])})
