"""What the systems are shown: feature maps of the photograph, and coarse class maps of it."""

from __future__ import annotations

import numpy as np
import scipy

from npattn.data import photo_features, photograph
from npattn.module import Module
from npattn.ops import resize_bilinear
from npattn.typing import Array

__all__ = ["COARSE_PLACES", "EYE", "OTHER_PIXELS", "photo_inputs", "smooth", "standardise"]

EYE, OTHER_PIXELS = (75, 115), ((78, 213), (152, 170), (130, 60), (25, 250))
"""Pixels of the photograph from which attention is drawn: the cat's eye; its other eye, nose, cheek and ear."""
COARSE_PLACES = {"one eye": EYE, "stripes": (20, 145), "background": (25, 285)}
"""What a coarse class map is of, and the pixel of the photograph round which it is."""


def photo_inputs(module: Module, size: tuple[int, int], seed: int) -> dict[str, Array]:
    """Make the inputs: the photograph's features where a map is wanted, else what the system draws."""
    random = np.random.RandomState([seed, 1])  # another stream than that of the parameters
    inputs = {
        name: photo_features(shape[1], *size) if shape[2:] == size else module.draw_input(name, shape, random)
        for name, shape in module.input_shapes(1, *size).items()
    }
    if "maps" in inputs:  # to be refined by features that may point any way
        inputs = {"maps": coarse_maps(size, random), "features": standardise(smooth(inputs["features"], 1))}
    if "g" in inputs:  # from the level below: coarse
        coarse = smooth(photo_features(inputs["g"].shape[1], *size), 3)
        inputs["g"] = resize_bilinear(coarse, inputs["g"].shape[2:])[0]
    return inputs


def coarse_maps(size: tuple[int, int], random: np.random.RandomState) -> Array:
    """Make class maps as a network's last layers give them: coarse, noisy, and high round one place only."""
    photo = np.array(photograph().shape[:2])
    grid = np.moveaxis(np.indices((12, 18)), 0, -1) * photo / (12, 18) + photo / (24, 36)
    blobs = [np.exp(-((grid - place) ** 2).sum(axis=-1) / (2 * 16**2)) for place in COARSE_PLACES.values()]
    return resize_bilinear(np.array([blobs]) + 0.3 * random.uniform(size=(1, len(blobs), 12, 18)), size)[0]


def smooth(x: Array, sigma: float) -> Array:
    """Smooth a map over its positions."""
    return scipy.ndimage.gaussian_filter(x, (0, 0, sigma, sigma))


def standardise(x: Array) -> Array:
    """Give every channel mean 0 and variance 1."""
    return (x - x.mean(axis=(2, 3), keepdims=True)) / x.std(axis=(2, 3), keepdims=True)
