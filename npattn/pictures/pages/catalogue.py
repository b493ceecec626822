"""Every picture by its name, and how it is written small."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from npattn.attention import CATALOGUE
from npattn.pictures.pages.beliefs import draw_beliefs
from npattn.pictures.pages.circuit import draw_first_gradient, draw_squeeze_excitation
from npattn.pictures.pages.comparing import draw_compared
from npattn.pictures.pages.contexts import draw_context
from npattn.pictures.pages.cutting import draw_cutting
from npattn.pictures.pages.dealing import draw_dealing
from npattn.pictures.pages.depth import draw_depth
from npattn.pictures.pages.diversity import draw_diversity
from npattn.pictures.pages.equivariance import draw_equivariance
from npattn.pictures.pages.errors import draw_kernels
from npattn.pictures.pages.judging import draw_judged_kernels
from npattn.pictures.pages.jump import draw_jump
from npattn.pictures.pages.layers import draw_layers
from npattn.pictures.pages.matrices import draw_banded_matrix, draw_softmax_jacobian, draw_tiles
from npattn.pictures.pages.mixing import draw_mixing
from npattn.pictures.pages.norms import draw_norms
from npattn.pictures.pages.panels import draw_panels
from npattn.pictures.pages.pooling import draw_pools
from npattn.pictures.pages.projecting import draw_projected
from npattn.pictures.pages.projection import draw_projection
from npattn.pictures.pages.reading import draw_reading
from npattn.pictures.pages.relative import draw_relative
from npattn.pictures.pages.repeating import draw_repeating
from npattn.pictures.pages.separating import draw_separating
from npattn.pictures.pages.steps import draw_steps
from npattn.pictures.pages.tiles import draw_transformed
from npattn.typing import Array

__all__ = ["PICTURES", "WIDTH", "draw_pixels", "pixels_of", "write_picture"]

WIDTH = 800
"""Pixels of every picture from left to right: those of a page."""
NUMS_COLOURS = 256, 128, 64, 48, 32, 24, 16, 12
"""Numbers of colours that are tried in turn until a file is small."""
MOST_BYTES = 58_000
"""Of a file."""
Draw: TypeAlias = Callable[[], Figure]
SHOWN_ELSEWHERE = {"cbam-channel", "cbam-spatial", "residual"}
"""Systems whose attention is that of a part of them, or of what they are parts of: no panels of their own."""
NUMS_PANELS = {"flexible-segmentation": 2}
"""How many panels show a system whose last one is that of a part of it."""

PICTURES: dict[str, Draw] = {
    "first_gradient_circuit": draw_first_gradient,
    "squeeze_excitation_circuit": draw_squeeze_excitation,
    "efficient_channel_matrix": draw_banded_matrix,
    "batch_norm_projection": draw_projection,
    "batch_norm": draw_projected,
    "dot_product_attention": draw_compared,
    "dot_product_attention_jacobian": draw_softmax_jacobian,
    "dot_product_attention_tiles": draw_tiles,
    "cross_entropy": draw_beliefs,
    "layer_norm": draw_norms,
    "depth_wise_convolution": draw_separating,
    "global_pooling": draw_pools,
    "linear_attention": draw_context,
    "nearest_upsampling": draw_repeating,
    "bilinear_upsampling": draw_reading,
    "relative_logits": draw_relative,
    "softmax_over_branches": draw_mixing,
    "window_partition": draw_cutting,
    "channel_shuffle": draw_dealing,
    "winograd": draw_transformed,
    "soft_hard_jump": draw_jump,
    "checking_gradients": draw_steps,
    "error_budgets_kernels": draw_kernels,
    "your_own_system": draw_judged_kernels,
    "diversity": draw_diversity,
    "equivariance": draw_equivariance,
    "layers": draw_layers,
    "residual": draw_depth,
} | {
    Path(system.derivation).stem: functools.partial(draw_panels, key, NUMS_PANELS.get(key, 1))
    for key, system in CATALOGUE.items()
    if key not in SHOWN_ELSEWHERE
}
"""How each is drawn; a system's own picture bears the name of its page."""


def draw_pixels(name: str) -> Array:
    """Draw a picture, (H, W, 3), uint8."""
    return pixels_of(PICTURES[name]())


def pixels_of(figure: Figure) -> Array:
    """Draw a figure as wide as a page, (H, W, 3), uint8."""
    figure.set_dpi(WIDTH / figure.get_size_inches()[0])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_picture(name: str, path: Path) -> None:
    """Write a picture as PNG, with no more colours than `MOST_BYTES` allow.

    Parameters
    ----------
    name : str
        One of `PICTURES`.
    path : path
        File that is written, or overwritten.

    Raises
    ------
    KeyError
        If there is no such picture.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_picture("efficient_channel_matrix", Path(folder, "matrix.png"))
    ...     Path(folder, "matrix.png").stat().st_size <= MOST_BYTES
    True
    """
    image = Image.fromarray(draw_pixels(name))
    for colours in NUMS_COLOURS:
        file = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
        if file.tell() <= MOST_BYTES:
            break
    path.write_bytes(file.getvalue())
