"""Sliding-window segmentation: windows are classified, and a pixel listens to all the windows that cover it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from npattn import layers, ops
from npattn.array_checks import check_array
from npattn.checks import require_integers
from npattn.fields import integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, he_normal
from npattn.typing import Array, Params
from npattn.wording import describe_type


class Regions(NamedTuple):
    """Windows with the highest foreground scores, T for each image, best first."""

    boxes: Any
    """(B, T, 4) integers: top, left, bottom, right; ``x[b, :, top:bottom, left:right]`` is the window."""
    labels: Any
    """(B, T) integers from 1 on: the best foreground class of each."""
    scores: Any
    """(B, T): the logit of that class minus the background's; positive where the window is no background."""


@dataclass(frozen=True)
class SlidingWindowSegmentation(Module):
    """Classify overlapping windows of a map, and average at every position the logits of the windows that cover it.

    A window slides over the map, S times along a row of windows, R times down. Each window's mean feature p is scored
    by one linear classifier, z = W p + b, and y at a position is the mean of z over the windows there. `mask` names
    every position's class, `regions` the windows where something is; class 0 is the background.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    classes : int
        K, the background included.
    window, stride : int
        Side of a window, and the step from one to the next, at most as large. The last window of a row or column is
        moved inward to end with the map; a window longer than the map is cut to it.

    Raises
    ------
    TypeError
        If one of them is no integer.
    ValueError
        If one of them is below 1, `classes` is below 2, or `stride` is above `window`.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: logits, (B, K, H, W). ``attention["windows"]``: (B, K, R, S), the logits of the
    windows. Parameters: ``classifier.weight`` (K, C), ``classifier.bias`` (K,). Published initial values are not known;
    weights start here from He's normal distribution and the bias at 0.

    References
    ----------
    The second half of flexible attention, 柔性注意力, where windows slide over a re-weighted map. One classifier that
    all windows of a feature map share: Sermanet et al.: OverFeat: Integrated Recognition, Localization and Detection
    using Convolutional Networks, ICLR 2014.

    Examples
    --------
    >>> module = SlidingWindowSegmentation(channels=8, classes=3, window=4, stride=2)
    >>> run = module(module.init(seed=0), np.random.RandomState(0).standard_normal((2, 8, 7, 6)))
    >>> run
    Pass(output: float64 (2, 3, 7, 6); windows (2, 3, 3, 2))
    >>> module.mask(run.output).shape
    (2, 7, 6)
    >>> module.regions(run, top=2).boxes[0]
    array([[0, 2, 4, 6],
           [2, 2, 6, 6]])
    """

    key: ClassVar = "sliding-window"
    family: ClassVar = "spatial"
    paper: ClassVar = Paper(
        title="OverFeat: Integrated Recognition, Localization and Detection using Convolutional Networks",
        authors="Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun",
        venue="ICLR",
        year=2014,
        url="https://arxiv.org/abs/1312.6229",
    )

    channels: int = integer(least=1)
    classes: int = integer(least=1)
    window: int = integer(least=1)
    stride: int = integer(least=1)

    def __post_init__(self) -> None:
        """Refuse, besides, a single class, and positions in no window."""
        super().__post_init__()
        require_windows(type(self).__name__, self.classes, self.window, self.stride)

    @classmethod
    def example(cls) -> SlidingWindowSegmentation:
        """Return a small instance: 32 channels, 3 classes, windows of 3 × 3 that overlap."""
        return cls(channels=32, classes=3, window=3, stride=2)

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the logits."""
        return {"output": (batch, self.classes, height, width)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the classifier that all windows share."""
        return layers.linear_parameters("classifier", self.classes, self.channels, initial=he_normal)

    def forward(self, params: Params, x: Array) -> Pass:
        """Average each window, classify it, average the logits at each position."""
        p, back_average = ops.window_average(x, self.window, self.stride)                # (1)
        z, back_classifier = layers.conv(p, params, "classifier")                        # (2)
        y, back_overlap = ops.overlap_average(z, x.shape[2:], self.window, self.stride)  # (3)

        def backward(dy):
            dz = back_overlap(dy)                                                        # (3')
            dp, grads = back_classifier(dz)                                              # (2')
            dx = back_average(dp)                                                        # (1')
            return dx, grads

        return Pass(y, backward, attention={"windows": z})

    def mask(self, logits: Array) -> Array:
        """Name every position's class: the one with the highest logit, the first of equals.

        Parameters
        ----------
        logits : array, (B, K, H, W)
            The output of a forward pass.

        Returns
        -------
        array of int, (B, H, W)

        Raises
        ------
        TypeError, ValueError
            If `logits` is no array of this shape.
        """
        check_array(self, "logits", logits, "logits", logits)
        if logits.ndim != 4 or logits.shape[1] != self.classes:
            raise ValueError(
                f"{self}: logits have shape {logits.shape}; expected (batch, {self.classes}, height, width), "
                "as the output of a forward pass"
            )
        return logits.real.argmax(axis=1)

    def regions(self, run: Pass, top: int = 1) -> Regions:
        """Find the windows with the highest foreground score: best foreground logit minus the background's.

        Parameters
        ----------
        run : Pass
            What calling this module returned.
        top : int, default 1
            T, how many windows of each image; all of them where there are fewer.

        Returns
        -------
        Regions
            Best first; of equal scores the first window, row by row. A score that is NaN stands last.

        Raises
        ------
        TypeError, ValueError
            If `run` is no pass of such a module, or `top` is no integer of at least 1.
        """
        require_integers(f"{type(self).__name__}.regions", top=top)
        if not isinstance(run, Pass):
            raise TypeError(f"{self}: run is {describe_type(run)}; expected the Pass that calling the module returns")
        if getattr(run.output, "ndim", 0) != 4:
            raise ValueError(f"{self}: run is {run}; expected the Pass that calling this module returns")
        height, width = run.output.shape[2:]
        rows, columns = (len(ops.window_starts(length, self.window, self.stride)) for length in (height, width))
        expected = run.output.shape[0], self.classes, rows, columns
        windows = run.attention.get("windows")
        if windows is None or windows.shape != expected:
            given = "is missing" if windows is None else f"has shape {windows.shape}"
            raise ValueError(f"{self}: run.attention['windows'] {given}; expected {expected}, as this module makes it")
        background, foreground = windows.real[:, 0], windows.real[:, 1:]
        scores = (foreground.max(axis=1) - background).reshape(expected[0], rows * columns)
        labels = foreground.argmax(axis=1).reshape(scores.shape) + 1
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        h, w = min(self.window, height), min(self.window, width)
        tops = np.minimum(order // columns * self.stride, height - h)  # the last one is moved inward
        lefts = np.minimum(order % columns * self.stride, width - w)
        boxes = np.stack([tops, lefts, tops + h, lefts + w], axis=2)
        return Regions(boxes, np.take_along_axis(labels, order, 1), np.take_along_axis(scores, order, 1))


def require_windows(call: str, classes: int, window: int, stride: int) -> None:
    """Refuse hyperparameters under which there is nothing to tell apart, or positions lie in no window."""
    if classes == 1:
        raise ValueError(f"{call}: classes=1; expected at least 2: the background, class 0, counts as one")
    if stride > window:
        raise ValueError(
            f"{call}: stride={stride}; expected at most the window's side, {window}: "
            "positions between windows would be in none"
        )
