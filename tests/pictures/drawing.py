"""Systems' pictures, each drawn once for all tests."""

import functools

import numpy as np
import pytest

from npattn import CATALOGUE

pictures = pytest.importorskip("npattn.pictures")
features = pytest.importorskip("npattn.pictures.features")
scene = pytest.importorskip("npattn.pictures.scene")
agg = pytest.importorskip("matplotlib.backends.backend_agg")

SEED = 3
COARSER = 50, 75
"""Positions of the map that is drawn of systems that pair positions, whose work is a sixteenth of the full map's."""


def size_of(key):
    """Positions of the map that a system's picture is drawn from."""
    example = CATALOGUE[key].example()
    if example.for_size(*COARSER) != example:
        return scene.COARSE_SIZE
    return COARSER if example.pairs_positions else scene.DRAWN_SIZE


@functools.cache
def results(key, height, width):
    """Run a system as the picture does: the features, and the pass."""
    module = CATALOGUE[key].example().for_size(height, width)
    inputs = features.photo_inputs(module, (height, width), SEED)
    x = next(iter(inputs.values()))
    params = scene.telling_parameters(module, module.init(SEED, generic=True), x)
    return x, module(params, *inputs.values())


@functools.cache
def figure_of(key, seed=SEED):
    """Make the figure that show draws, not yet laid out: half of the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "DRAWN_SIZE", size_of(key))
        return pictures.draw(CATALOGUE[key].example(), seed)


@functools.cache
def shown(key, seed=SEED):
    """Draw what show draws: the figure, and its pixels from 0 to 1."""
    figure = figure_of(key, seed)
    return figure, pixels_of(figure)


def pixels_of(figure):
    """Lay a figure out and draw it."""
    canvas = agg.FigureCanvasAgg(figure)
    canvas.draw()  # once, where a file is drawn twice: to lay it out, and then
    return np.asarray(canvas.buffer_rgba()) / np.float32(255)


def looks(figure):
    """The panels that show where a pixel looks, by the pixel that is marked in them."""
    drawn = [axes for axes in figure.axes if axes.get_title().startswith("from row")]
    marks = [tuple(float(end[0]) for end in axes.lines[0].get_data()) for axes in drawn]
    return {(row, column): axes for (column, row), axes in zip(marks, drawn, strict=True)}


def panels(figure, pixels):
    """Cut out what stands inside each pair of axes."""
    for axes in figure.axes:
        left, bottom, right, top = np.rint(axes.get_window_extent().extents).astype(int)
        yield pixels[len(pixels) - top : len(pixels) - bottom, left:right]
