"""SimAM: a gate for every single number of a map, by how far it stands out from its channel; nothing is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import ops
from npattn.fields import choice, integer, positive
from npattn.module import Module, Paper, Pass
from npattn.typing import Array, Params


@dataclass(frozen=True)
class SimAM(Module):
    """Gate every position of every channel by how far it is from the channel's mean.

    A number's distance from the mean, squared and divided by the channel's variance v, says how easily it is told from
    the others of its channel: z = (x - μ)² / (4 (v + λ)) + ½, the inverse of the energy that the paper minimises. Then
    y = x ⊙ σ(z). The formula is all: there are no parameters.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    e_lambda : float, default 1e-4
        λ, above 0; it bounds the quotient where a channel hardly varies.
    variant : {"code", "paper"}, default "code"
        Whether squares are added up and divided by N - 1 or by N, the number of positions, for the variance.

    Raises
    ------
    TypeError
        If `channels` is no integer, `e_lambda` no number, or `variant` no string.
    ValueError
        If `channels` is below 1, `e_lambda` is not above 0 or not finite, or `variant` is another string.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["gate"]``: (B, C, H, W), from σ(½) = 0.622 on. On a map
    of one position every gate is 0.622, where the authors' code divides 0 by 0.

    References
    ----------
    Yang et al.: SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks, ICML 2021,
    section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> module = SimAM(channels=1)
    >>> run = module({}, np.array([[[[1.0, 1.0, 1.0, 5.0]]]]))
    >>> run.attention["gate"].round(3)
    array([[[[0.637, 0.637, 0.637, 0.743]]]])
    >>> dx, grads = run.backward(np.ones((1, 1, 1, 4)))
    >>> grads
    {}
    """

    key: ClassVar = "simam"
    family: ClassVar = "both"
    paper: ClassVar = Paper(
        title="SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks",
        authors="Yang, Zhang, Li, Xie",
        venue="ICML",
        year=2021,
        url="https://proceedings.mlr.press/v139/yang21o.html",
    )

    channels: int = integer(least=1)
    e_lambda: float = positive(default=1e-4)
    variant: str = choice(("code", "paper"), default="code")

    @classmethod
    def example(cls) -> SimAM:
        """Return a small instance: 32 channels."""
        return cls(channels=32)

    def forward(self, params: Params, x: Array) -> Pass:
        """Measure how far each position stands out, squash, gate. The tags are the derivation's equation numbers."""
        correction = 1 if self.variant == "code" else 0
        z, back_energy = ops.inverse_energy(x, self.e_lambda, correction=correction)  # (1)
        a, back_sigmoid = ops.sigmoid(z)                                              # (2)
        y, back_gate = ops.gate(x, a)                                                 # (3)

        def backward(dy):
            dx, da = back_gate(dy)                                                    # (3')
            dz = back_sigmoid(da)                                                     # (2')
            dx = back_energy(dz, accumulate_into=dx)                                  # (1')
            return dx, {}

        return Pass(y, backward, attention={"gate": a})
