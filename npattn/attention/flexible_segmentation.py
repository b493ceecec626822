"""Flexible segmentation: a map's channels are re-weighted for each image before windows of it are classified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import layers
from npattn.attention.flexible import FlexibleAttention
from npattn.attention.sliding_window import Regions, SlidingWindowSegmentation, require_windows
from npattn.fields import integer
from npattn.module import Module, Pass
from npattn.parameters import Parameter, add_prefix
from npattn.typing import Array, Params


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
        r; the attention's hidden layer has max(1, C // r) channels.

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
    family: ClassVar = "both"
    paper: ClassVar = FlexibleAttention.paper

    channels: int = integer(least=1)
    classes: int = integer(least=1)
    window: int = integer(least=1)
    stride: int = integer(least=1)
    reduction: int = integer(least=1, default=16)

    def __post_init__(self) -> None:
        """Refuse, besides, a single class, and positions in no window."""
        super().__post_init__()
        require_windows(type(self).__name__, self.classes, self.window, self.stride)

    @classmethod
    def example(cls) -> FlexibleSegmentation:
        """Return a small instance: 32 channels, 4 in the hidden layer, 3 classes, windows of 3 × 3 that overlap."""
        return cls(channels=32, classes=3, window=3, stride=2, reduction=8)

    @property
    def attention(self) -> FlexibleAttention:
        """The first half."""
        return FlexibleAttention(self.channels, self.reduction)

    @property
    def segmentation(self) -> SlidingWindowSegmentation:
        """The second half."""
        return SlidingWindowSegmentation(self.channels, self.classes, self.window, self.stride)

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the logits."""
        return {"output": (batch, self.classes, height, width)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the parameters of both halves."""
        weighting = add_prefix("attention.", self.attention.parameters())
        return weighting | add_prefix("segmentation.", self.segmentation.parameters())

    def forward(self, params: Params, x: Array) -> Pass:
        """Re-weight the map, segment what comes out."""
        weighting = layers.submodule(self.attention.forward, params, "attention", x)      # (1)
        u = weighting.output
        scoring = layers.submodule(self.segmentation.forward, params, "segmentation", u)  # (2)

        def backward(dy):
            du, grads_segmentation = scoring.backward(dy)                                 # (2')
            dx, grads_attention = weighting.backward(du)                                  # (1')
            return dx, grads_attention | grads_segmentation

        maps = {**weighting.attention, "reweighted": u, **scoring.attention}
        return Pass(scoring.output, backward, attention=maps)

    def mask(self, logits: Array) -> Array:
        """Name every position's class; see `SlidingWindowSegmentation.mask`."""
        return self.segmentation.mask(logits)

    def regions(self, run: Pass, top: int = 1) -> Regions:
        """Find the windows with the highest foreground score; see `SlidingWindowSegmentation.regions`."""
        return self.segmentation.regions(run, top)
