"""Real data: a photograph and feature maps made from it, and handwritten digits that networks are trained on."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import scipy

from npattn.checks import require_integers
from npattn.data.digits import DigitMaps, digit_maps, handwritten_digits

__all__ = [
    "DigitMaps",
    "Filter",
    "digit_maps",
    "handwritten_digits",
    "photo_features",
    "photo_filters",
    "photograph",
]

PLANES = {  # opponent colours, orthonormal: what red, green and blue have in common, and two contrasts
    "luminance": np.array([1, 1, 1]) / 3**0.5,
    "red-green": np.array([1, -1, 0]) / 2**0.5,
    "blue-yellow": np.array([-1, -1, 2]) / 6**0.5,
}


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

    Orders, widths and colour planes take turns. The angle grows by √2 half turns from each filter to the next: so any
    number of channels is spread evenly over all directions, and so are those of one order, width and plane.

    Parameters
    ----------
    channels : int

    Returns
    -------
    list of Filter

    Examples
    --------
    >>> for bank in photo_filters(3):
    ...     print(bank)
    edge 0°, σ 1, luminance
    line 75°, σ 1, luminance
    edge 149°, σ 2, luminance
    """
    turns = itertools.cycle(itertools.product(PLANES, (1.0, 2.0, 4.0), (1, 2)))
    return [
        Filter(order, sigma, plane, np.pi * (2**0.5 * i % 1))
        for i, (plane, sigma, order) in zip(range(channels), turns, strict=False)
    ]


def photo_features(channels: int, height: int, width: int, dtype: Any = np.float64) -> np.ndarray:
    """Filter the photograph into a feature map of any size, as the first layers of a network do.

    Every channel is the magnitude of one filter's response (`photo_filters`), sampled at height × width positions.
    The unit, one for all channels, is the root mean square of the luminance's gradient at σ = 1.

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
    Use of Steerable Filters, PAMI 1991). So five filtered pictures per width and plane serve every angle. A derivative
    of order m is multiplied by σᵐ, which makes the widths comparable (Lindeberg: Feature Detection with Automatic
    Scale Selection, IJCV 1998).

    Examples
    --------
    >>> x = photo_features(channels=64, height=28, width=42)
    >>> x.shape, x.dtype
    ((1, 64, 28, 42), dtype('float64'))
    """
    require_integers("photo_features", channels=channels, height=height, width=width)
    sampled = {}
    features = np.empty((1, channels, height, width), dtype)
    for channel, bank in enumerate(photo_filters(channels)):
        key = bank.plane, bank.order, bank.sigma
        if key not in sampled:
            sampled[key] = sampled_derivatives(*key, height, width)
        cos, sin = np.cos(bank.angle), np.sin(bank.angle)
        steer = [cos, sin] if bank.order == 1 else [cos**2, 2 * cos * sin, sin**2]
        features[0, channel] = np.abs(np.tensordot(steer, sampled[key], 1))
    return features


def sampled_derivatives(plane: str, order: int, sigma: float, height: int, width: int) -> np.ndarray:
    """Take the derivatives, in the unit of all channels, at height × width positions."""
    rows, columns = (
        (np.arange(count) + 0.5) * length / count - 0.5
        for count, length in zip((height, width), photograph().shape[:2], strict=True)
    )
    positions = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    return np.stack(
        [
            scipy.ndimage.map_coordinates(full, positions, order=1, mode="nearest")
            for full in derivatives(plane, order, sigma) / unit()
        ]
    )


@functools.cache
def unit() -> float:
    """Compute the unit of all channels."""
    return np.sqrt(np.mean(np.sum(derivatives("luminance", 1, 1.0) ** 2, axis=0)))


def derivatives(plane: str, order: int, sigma: float) -> np.ndarray:
    """Differentiate a smoothed plane of the photograph: stack ∂x, ∂y, or ∂xx, ∂xy, ∂yy, times σ to the order."""
    values = photograph() / 255.0 @ PLANES[plane]
    axes = [(order - j, j) for j in range(order, -1, -1)]  # times along y, along x
    return np.stack(
        [sigma**order * scipy.ndimage.gaussian_filter(values, sigma, order=axis, mode="nearest") for axis in axes]
    )
