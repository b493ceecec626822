"""Pixel correlation: class maps are refined by letting every position take over what positions that look alike have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import layers, ops
from npattn.fields import integer
from npattn.module import Module, Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter, xavier_uniform
from npattn.typing import Array, Params

EPSILON = 1e-5
"""ε of the authors' code, beside the length of a feature and beside the total of its affinities."""


@dataclass(frozen=True)
class PixelCorrelation(Module):
    """Give every position of a class map the mean of the map over all positions, weighted by similarity of features.

    A 1×1 convolution embeds the features; the affinity of two positions is the cosine of theirs, or 0 where it is
    negative: a_ij = max(u_i · u_j, 0) with u = f / (‖f‖ + ε). Then y_kj = Σ_i m_ki a_ij / (Σ_i a_ij + ε). The N × N
    affinities are never held: memory grows as the number N of positions.

    Parameters
    ----------
    channels : int
        C, channels of the features.
    embedding : int
        E, channels in which positions are compared.

    Raises
    ------
    TypeError
        If `channels` or `embedding` is no integer.
    ValueError
        If `channels` or `embedding` is below 1.

    Notes
    -----
    Inputs ``maps``: (B, K, H, W), any number K of them, and ``features``: (B, C, H, W). Output: (B, K, H, W).
    ``attention["similarity"]``: (B, 1, H, W), each position's total of affinities, which counts what looks like it.
    Parameter, named as in the authors' code: ``f9.weight`` (E, C, 1, 1), without bias; it starts uniform in
    ±4 √(6 / (C + E)), as there. ε is 1e-5 in both places.

    References
    ----------
    Wang, Zhang, Kan, Shan, Chen: Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
    Segmentation, CVPR 2020: the pixel correlation module.

    Examples
    --------
    >>> import numpy as np
    >>> module = PixelCorrelation(channels=16, embedding=8)
    >>> run = module(module.init(seed=0), np.ones((2, 3, 7, 5)), np.ones((2, 16, 7, 5)))
    >>> run
    Pass(output: float64 (2, 3, 7, 5); similarity (2, 1, 7, 5))
    >>> (dmaps, dfeatures), grads = run.backward(np.ones((2, 3, 7, 5)))
    >>> dfeatures.shape, grads["f9.weight"].shape
    ((2, 16, 7, 5), (8, 16, 1, 1))
    """

    key: ClassVar = "pcm"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic Segmentation",
        authors="Wang, Zhang, Kan, Shan, Chen",
        venue="CVPR",
        year=2020,
        url="https://arxiv.org/abs/2004.04581",
    )
    pairs_positions: ClassVar = True

    channels: int = integer(least=1)
    embedding: int = integer(least=1)

    @classmethod
    def example(cls) -> PixelCorrelation:
        """Return a small instance: 16 channels, compared in 8."""
        return cls(channels=16, embedding=8)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layer that embeds the features."""
        return {"f9.weight": xavier_uniform(self.embedding, self.channels, 1, 1, gain=4)}

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of three maps, as an instance of any number, and of the features."""
        return {"maps": (batch, 3, height, width), "features": (batch, self.channels, height, width)}

    def expected_shapes(self, inputs: tuple[Any, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes that go with the maps that are given, however many they are."""
        return self.input_shapes(len(inputs[0]), *inputs[0].shape[2:]) | {"maps": tuple(inputs[0].shape)}

    def forward(self, params: Params, maps: Array, features: Array) -> Pass:
        """Embed, normalise, sum by affinity, divide by the total. The tags are the derivation's."""
        f, back_f9 = layers.conv(features, params, "f9")  # (1)
        u, back_normalize = ops.l2_normalize(f, EPSILON)  # (2)
        rows = map(flatten_positions, (u, maps))
        (t, s), back_affinity = ops.affinity_sums(*rows)  # (3)
        c = 1 / (s + EPSILON)                             # (4)
        y, back_gate = ops.gate(t, c)                     # (5)

        def backward(dy):
            dt, dc = back_gate(dy.reshape(y.shape))       # (5')
            ds = -dc * c * c                              # (4')
            du, dm = back_affinity(dt, ds)                # (3')
            df = back_normalize(du.reshape(u.shape))      # (2')
            dfeatures, grads = back_f9(df)                # (1')
            return (dm.reshape(maps.shape), dfeatures), grads

        similarity = s.reshape(len(maps), 1, *maps.shape[2:])
        return Pass(y.reshape(maps.shape), backward, attention={"similarity": similarity})
