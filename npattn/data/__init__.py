"""A real photograph, and feature maps made from it: what the systems look at when they are checked and shown."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from npattn.checks import require_integers

__all__ = ["Filter", "photo_features", "photo_filters", "photograph"]

PLANES = {  # opponent colours: what is common to red, green and blue, and two contrasts
    "luminance": (1 / 3, 1 / 3, 1 / 3),
    "red-green": (1 / 2, -1 / 2, 0),
    "blue-yellow": (-1 / 4, -1 / 4, 1 / 2),
}
GOLDEN_RATIO = (1 + 5**0.5) / 2


@dataclass(frozen=True)
class Filter:
    """One oriented Gaussian-derivative filter.

    Attributes
    ----------
    order : int
        1, which answers to edges, or 2, which answers to lines.
    sigma : float
        Width of the Gaussian in pixels of the photograph.
    plane : str
        The colour plane it reads: luminance, red-green or blue-yellow.
    angle : float
        Direction of the derivative in radians, from the x axis towards the bottom of the picture.
    """

    order: int
    sigma: float
    plane: str
    angle: float

    def __str__(self) -> str:
        return f"{'edge' if self.order == 1 else 'line'} {np.degrees(self.angle):.0f}°, σ {self.sigma:g}, {self.plane}"


def photograph() -> np.ndarray:
    """Return the photograph, a cat's face.

    Returns
    -------
    numpy.ndarray, (200, 300, 3), uint8
        Rows, columns, and red, green and blue from 0 to 255. ``npattn/data/README.md`` says where it is from.

    Examples
    --------
    >>> photograph().shape
    (200, 300, 3)
    """
    with resources.files(__name__).joinpath("chelsea.npy").open("rb") as file:
        return np.load(file, allow_pickle=False)


def photo_filters(channels: int) -> list[Filter]:
    """List the filters behind the channels of `photo_features`.

    Orders, widths and colour planes take turns; angles follow the golden ratio, so that any number of channels is
    spread evenly over all directions and no two filters are the same.

    Parameters
    ----------
    channels : int

    Returns
    -------
    list of Filter

    Examples
    --------
    >>> print(*photo_filters(3), sep="\\n")
    edge 0°, σ 1, luminance
    line 111°, σ 1, luminance
    edge 42°, σ 2, luminance
    """
    turns = itertools.cycle(itertools.product(PLANES, (1.0, 2.0, 4.0), (1, 2)))
    return [
        Filter(order, sigma, plane, np.pi * (GOLDEN_RATIO * i % 1))
        for i, (plane, sigma, order) in zip(range(channels), turns, strict=False)
    ]


def photo_features(channels: int, height: int, width: int, dtype: Any = np.float64) -> np.ndarray:
    """Filter the photograph into a feature map of any size, as the first layers of a network do.

    Every channel is the magnitude of one filter's response (`photo_filters`), sampled at height × width positions
    and scaled so that its mean square over the photograph is 1.

    Parameters
    ----------
    channels, height, width : int
    dtype : dtype, default float64

    Returns
    -------
    numpy.ndarray, (1, channels, height, width)

    Raises
    ------
    TypeError, ValueError
        If a size is no integer, or below 1.

    Notes
    -----
    A Gaussian's derivative in direction θ is a combination of those along the axes: of first order
    cos θ ∂x + sin θ ∂y, of second order cos² θ ∂xx + 2 cos θ sin θ ∂xy + sin² θ ∂yy (Freeman, Adelson: The Design and
    Use of Steerable Filters, PAMI 1991). So five filtered pictures per width and plane serve every angle.

    Examples
    --------
    >>> x = photo_features(channels=64, height=28, width=42)
    >>> x.shape, x.dtype
    ((1, 64, 28, 42), dtype('float64'))
    """
    from scipy import ndimage

    require_integers("photo_features", channels=channels, height=height, width=width)
    pixels = photograph() / 255.0
    rows = (np.arange(height) + 0.5) * pixels.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * pixels.shape[1] / width - 0.5
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"))

    derivatives = {}
    features = np.empty((1, channels, height, width), dtype)
    for channel, bank in enumerate(photo_filters(channels)):
        key = bank.order, bank.sigma, bank.plane
        if key not in derivatives:
            axes = [(bank.order - j, j) for j in range(bank.order, -1, -1)]  # times along y, along x
            plane = pixels @ np.array(PLANES[bank.plane])
            full = np.stack([ndimage.gaussian_filter(plane, bank.sigma, order=axis, mode="nearest") for axis in axes])
            sampled = np.stack([ndimage.map_coordinates(f, grid, order=1, mode="nearest") for f in full])
            derivatives[key] = sampled, np.einsum("iyx,jyx->ij", full, full) / plane.size
        sampled, moments = derivatives[key]
        cos, sin = np.cos(bank.angle), np.sin(bank.angle)
        steer = np.array([cos, sin] if bank.order == 1 else [cos**2, 2 * cos * sin, sin**2])
        features[0, channel] = np.abs(np.tensordot(steer, sampled, 1)) / np.sqrt(steer @ moments @ steer)
    return features
