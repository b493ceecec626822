"""Hard attention: one position of a map is drawn at random, likelier where it scores high, and looked at alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.array_checks import check_array
from npattn.checks import require_numbers
from npattn.fields import integer
from npattn.module import Module, Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter
from npattn.results import check_upstream
from npattn.typing import Array, Backward, Gradients, Params


@dataclass(frozen=True)
class HardAttention(Module):
    """Draw one position with the probabilities α = softmax(scores), and put out its feature.

    A 1×1 convolution scores every position, s = w · x + β. With standard Gumbel noise g, which is an input, the
    position argmax(s + g) is a draw from α: y = x at it. The argmax has no useful gradient. Backward is the
    *straight-through* estimator: with h one-hot, y = Σ h_n x_n; x receives the exact gradient of that sum, and the
    scores receive the gradient of h as if it were that of α. `score_function_grad` estimates without bias what
    `expected_reward` computes exactly, by going through all positions, as `expected_output` does.

    Parameters
    ----------
    channels : int
        C, channels of the map.

    Raises
    ------
    TypeError
        If `channels` is no integer.
    ValueError
        If `channels` is below 1.

    Notes
    -----
    Inputs ``x``: (B, C, H, W), and ``noise``: (B, N), -log(-log u) of uniform u, with N = H W; zeros in its place
    select the most probable position. Output: (B, C). ``attention["probability"]``: (B, H, W), α;
    ``attention["selected"]``: (B, H, W), h. Parameters: ``score.weight`` (1, C, 1, 1), ``score.bias`` (1,), both from
    the uniform distribution that PyTorch's layers start from. Of equal sums the first position is selected. NaN counts
    as the largest number: the position where the map holds it is selected, and it shows in the output.

    References
    ----------
    Xu et al.: Show, Attend and Tell, ICML 2015, section 4.1. Straight-through: Bengio, Léonard, Courville: Estimating
    or Propagating Gradients Through Stochastic Neurons for Conditional Computation, 2013. Score function: Williams:
    Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, Machine Learning 1992.

    Examples
    --------
    >>> module = HardAttention(channels=8)
    >>> random = np.random.RandomState(0)
    >>> x, noise = random.standard_normal((2, 8, 7, 5)), random.gumbel(size=(2, 35))
    >>> params = module.init(seed=0)
    >>> run = module(params, x, noise)
    >>> run
    Pass(output: float64 (2, 8); probability (2, 7, 5); selected (2, 7, 5))
    >>> np.argwhere(run.attention["selected"])
    array([[0, 4, 3],
           [1, 6, 1]])
    >>> (dx, _), grads = run.backward(np.ones((2, 8)))
    >>> module.expected_output(params, x).output.shape
    (2, 8)
    """

    key: ClassVar = "hard"
    family: ClassVar = "spatial"
    paper: ClassVar = Paper(
        title="Show, Attend and Tell: Neural Image Caption Generation with Visual Attention",
        authors="Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio",
        venue="ICML",
        year=2015,
        url="https://arxiv.org/abs/1502.03044",
    )
    estimator: ClassVar = "straight-through"
    without_gradient: ClassVar = ("noise",)

    channels: int = integer(least=1)

    @classmethod
    def example(cls) -> HardAttention:
        """Return a small instance: 32 channels."""
        return cls(channels=32)

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the map and of the noise, one number a position."""
        return {"x": (batch, self.channels, height, width), "noise": (batch, height * width)}

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the selected feature."""
        return {"output": (batch, self.channels)}

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw the noise from the standard Gumbel distribution."""
        return random.gumbel(size=shape) if name == "noise" else super().draw_input(name, shape, random)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the convolution that scores."""
        return layers.conv_parameters("score", 1, self.channels)

    def forward(self, params: Params, x: Array, noise: Array) -> Pass:
        """Score, weigh, draw a position, select its feature. In (3'), the estimator takes h's gradient for α's."""
        v = flatten_positions(x)
        s, back_score = layers.score(v, params, "score")    # (1)
        a, back_softmax = ops.softmax(s)                    # (2)
        index = (s + noise).real.argmax(axis=1)             # (3)
        y, back_select = ops.select(v, index)               # (4)

        def backward(dy):
            dv, dh = back_select(dy)                        # (4')
            da = dh                                         # (3')
            ds = back_softmax(da)                           # (2')
            dv, grads = back_score(ds, accumulate_into=dv)  # (1')
            return (dv.reshape(x.shape), None), grads

        h = np.zeros_like(s)
        np.put_along_axis(h, index[:, None], 1, axis=1)
        size = x.shape[0], *x.shape[2:]
        return Pass(y, backward, attention={"probability": a.reshape(size), "selected": h.reshape(size)})

    def surrogate(self, params: Params, x: Array, noise: Array) -> Callable[..., Pass]:
        """Return what the straight-through estimator differentiates: Σ (α_n + κ_n) x_n with the constant κ = h - α."""
        attention = self.forward(params, x, noise).attention
        constant = (attention["selected"] - attention["probability"]).reshape(noise.shape)

        def forward(params, x, noise):
            run = self._average(params, x, constant)

            def backward(dy):
                dx, grads = run.backward(dy)
                return (dx, None), grads

            return replace(run, backward=backward)

        return forward

    def score_function_grad(
        self, params: Params, x: Array, noise: Array, reward: Array, baseline: float | Array = 0.0
    ) -> tuple[Array, Gradients]:
        """Estimate the gradient of the expected reward from one draw: (reward - baseline) times that of log α.

        The reward is paid for the position that the noise selects, as in a call. What is estimated is the gradient of
        the sum over the images of Σ_n α_n reward_n, so that a step *along* it raises the expected reward; where the
        reward depends on `x` by itself, that share is not in it. The mean over all draws is exactly what the backward
        pass of `expected_reward` gives, whatever the baseline.

        Parameters
        ----------
        params : mapping of str to array
        x : array, (B, C, H, W)
        noise : array, (B, N)
        reward : array, (B,)
            Of each image, at the position that was selected.
        baseline : float or array, (B,), default 0
            What is taken off the reward: anything that does not depend on the noise. It changes the variance alone.

        Returns
        -------
        dx : array, (B, C, H, W)
        grads : dict of array
            By parameter.

        Raises
        ------
        TypeError, ValueError
            If an argument is refused by a call, `reward` is no array of this shape, or `baseline` neither that nor a
            finite number.
        """
        self.check(params, x, noise)
        self._check_shape("reward", reward, x, x.shape[:1])
        if isinstance(baseline, Real):
            require_numbers(f"{self}.score_function_grad", baseline=baseline)
            baseline = float(baseline)
        else:
            self._check_shape("baseline", baseline, x, x.shape[:1])
        attention = self.forward(params, x, noise).attention
        slope = (attention["selected"] - attention["probability"]).reshape(noise.shape)  # of log α there, by s
        _, back_weights = self._weigh(params, x)
        return back_weights(ds=(reward - baseline)[:, None] * slope)

    def expected_reward(self, params: Params, x: Array, rewards: Array) -> Pass:
        """Compute the expected reward and its exact gradient, by going through all positions: Σ_n α_n r_n.

        Parameters
        ----------
        params : mapping of str to array
        x : array, (B, C, H, W)
        rewards : array, (B, N)
            What is paid for each position.

        Returns
        -------
        Pass
            Output: (B,). Its ``backward`` returns ``((dx, drewards), grads)``.

        Raises
        ------
        TypeError, ValueError
            If an argument is refused by a call, or `rewards` is no array of this shape.
        """
        self._check_map(params, x)
        self._check_shape("rewards", rewards, x, (x.shape[0], x.shape[2] * x.shape[3]))
        a, back_weights = self._weigh(params, x)
        expected = (a * rewards).sum(axis=1)

        def backward(dy):
            check_upstream(self, dy, expected)
            dx, grads = back_weights(da=dy[:, None] * rewards)
            return (dx, dy[:, None] * a), grads

        return Pass(expected, backward, attention={"probability": a.reshape(x.shape[0], *x.shape[2:])})

    def expected_output(self, params: Params, x: Array) -> Pass:
        """Compute the expected output and its exact gradient, by going through all positions: Σ_n α_n x_n.

        This is soft attention, the paper's section 4.2.

        Parameters
        ----------
        params : mapping of str to array
        x : array, (B, C, H, W)

        Returns
        -------
        Pass
            Output: (B, C). Its ``backward`` returns ``(dx, grads)``.

        Raises
        ------
        TypeError, ValueError
            If an argument is refused by a call.
        """
        self._check_map(params, x)
        run = self._average(params, x)

        def backward(dy):
            check_upstream(self, dy, run.output)
            return run.backward(dy)

        return replace(run, backward=backward)

    def _average(self, params: Params, x: Array, constant: float | Array = 0) -> Pass:
        """Average the features under α plus a constant, and differentiate that exactly."""
        a, back_weights = self._weigh(params, x)
        y, back_product = ops.matmul(flatten_positions(x), (a + constant)[:, :, None])

        def backward(dy):
            dv, da = back_product(dy[:, :, None])
            return back_weights(da=da[:, :, 0], accumulate_into=dv)

        return Pass(y[:, :, 0], backward, attention={"probability": a.reshape(x.shape[0], *x.shape[2:])})

    def _weigh(self, params: Params, x: Array) -> tuple[Array, Backward]:
        """Make the weights α; the way back starts from their gradient or from that of the scores."""
        s, back_score = layers.score(flatten_positions(x), params, "score")
        a, back_softmax = ops.softmax(s)

        def backward(da=None, ds=None, accumulate_into=None):
            dv, grads = back_score(back_softmax(da) if ds is None else ds, accumulate_into)
            return dv.reshape(x.shape), grads

        return a, backward

    def _check_map(self, params: Params, x: Array) -> None:
        """Refuse what a call refuses of its parameters and map, where there is no noise."""
        check_array(self, "x", x, "x", x)
        noise = np.empty_like(x, shape=(x.shape[0], x.shape[2] * x.shape[3])) if x.ndim == 4 else x
        self.check(params, x, noise)

    def _check_shape(self, name: str, value: Any, x: Array, expected: tuple[int, ...]) -> None:
        """Refuse what is no array like `x` of the expected shape."""
        check_array(self, name, value, "x", x)
        if value.shape != expected:
            axes = "(batch,)" if len(expected) == 1 else "(batch, positions)"
            raise ValueError(f"{self}: {name} has shape {value.shape}; expected {expected}, {axes}")
