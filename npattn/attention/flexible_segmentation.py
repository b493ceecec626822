"""Flexible segmentation: a map's channels are re-weighted for each image before windows of it are classified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from npattn.attention.flexible import FlexibleAttention
from npattn.attention.sliding_window import Regions, SlidingWindowSegmentation, require_windows
from npattn.checks import require_integers
from npattn.module import Module, Pass
from npattn.parameters import add_prefix, strip_prefix


@dataclass(frozen=True)
class FlexibleSegmentation(Module):
    """Re-weight a map by flexible attention, then segment it by sliding windows.

    u = x ⊙ a with the gates a of `FlexibleAttention`, y the logits of `SlidingWindowSegmentation` on u.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    classes : int
        K, the background, class 0, included.
    window, stride : int
        Side of a window, and the step from one to the next, at most as large.
    reduction : int, default 16
        r; the attention's middle layer is max(1, C // r) wide.

    Raises
    ------
    TypeError
        If one of them is no integer.
    ValueError
        If one of them is below 1, `classes` is below 2, or `stride` is above `window`.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: logits, (B, K, H, W). ``attention["channel"]``: (B, C), the gates;
    ``attention["reweighted"]``: (B, C, H, W), the map u; ``attention["windows"]``: (B, K, R, S), the logits of the
    windows. Parameters, those of the two parts: ``attention.fc1.weight`` (C/r, C), ``attention.fc1.bias`` (C/r,),
    ``attention.fc2.weight`` (C, C/r), ``attention.fc2.bias`` (C,), ``segmentation.classifier.weight`` (K, C),
    ``segmentation.classifier.bias`` (K,).

    References
    ----------
    Both halves of flexible attention, 柔性注意力. The published source of the gates is the channel gate of CBAM (Woo et
    al., ECCV 2018); of windows that share a classifier, OverFeat (Sermanet et al., ICLR 2014).

    Examples
    --------
    >>> import numpy as np
    >>> module = FlexibleSegmentation(channels=8, classes=3, window=4, stride=2, reduction=4)
    >>> run = module(module.init(seed=0), np.ones((1, 8, 6, 6)))
    >>> run
    Pass(output: float64 (1, 3, 6, 6); channel (1, 8); reweighted (1, 8, 6, 6); windows (1, 3, 2, 2))
    >>> module.mask(run.output).shape
    (1, 6, 6)
    >>> module.regions(run).boxes
    array([[[0, 0, 4, 4]]])
    """

    key: ClassVar = "flexible-segmentation"
    paper: ClassVar = FlexibleAttention.paper

    channels: int
    classes: int
    window: int
    stride: int
    reduction: int = 16

    def __post_init__(self):
        name = type(self).__name__
        require_integers(name, channels=self.channels, reduction=self.reduction)
        require_windows(name, self.classes, self.window, self.stride)

    @classmethod
    def example(cls):
        """Return a small instance: 32 channels, 4 in the middle, 3 classes, windows of 3 × 3 that overlap."""
        return cls(channels=32, classes=3, window=3, stride=2, reduction=8)

    @property
    def attention(self) -> FlexibleAttention:
        """The first half."""
        return FlexibleAttention(self.channels, self.reduction)

    @property
    def segmentation(self) -> SlidingWindowSegmentation:
        """The second half."""
        return SlidingWindowSegmentation(self.channels, self.classes, self.window, self.stride)

    def output_shapes(self, batch, height, width):
        """Shape of the logits."""
        return {"output": (batch, self.classes, height, width)}

    def parameters(self):
        """Declare the parameters of both halves."""
        weighting = add_prefix("attention.", self.attention.parameters())
        return weighting | add_prefix("segmentation.", self.segmentation.parameters())

    def forward(self, params, x):
        """Re-weight the map, segment what comes out."""
        weighting = self.attention.forward(strip_prefix("attention.", params), x)      # (1)
        u = weighting.output
        scoring = self.segmentation.forward(strip_prefix("segmentation.", params), u)  # (2)

        def backward(dy):
            du, dsegmentation = scoring.backward(dy)                                   # (2')
            dx, dattention = weighting.backward(du)                                    # (1')
            return dx, add_prefix("attention.", dattention) | add_prefix("segmentation.", dsegmentation)

        maps = weighting.attention | {"reweighted": u} | scoring.attention
        return Pass(scoring.output, backward, attention=maps)

    def mask(self, logits: Any) -> Any:
        """Name every position's class; see `SlidingWindowSegmentation.mask`."""
        return self.segmentation.mask(logits)

    def regions(self, run: Pass, top: int = 1) -> Regions:
        """Find the windows with the highest foreground score; see `SlidingWindowSegmentation.regions`."""
        return self.segmentation.regions(run, top)
