"""Systems' pictures, each drawn once for all tests."""

import functools
from pathlib import Path

import numpy as np
import pytest

from npattn import CATALOGUE

pictures = pytest.importorskip("npattn.pictures")
features = pytest.importorskip("npattn.pictures.features")
scene = pytest.importorskip("npattn.pictures.scene")
catalogue = pytest.importorskip("npattn.pictures.pages.catalogue")
panels = pytest.importorskip("npattn.pictures.pages.panels")
Figure = pytest.importorskip("matplotlib.figure").Figure
agg = pytest.importorskip("matplotlib.backends.backend_agg")

SEED = 0
COARSER = 50, 75
"""Positions of the map that is drawn of systems that pair positions, whose work is a sixteenth of the full map's."""


def size_of(key):
    """Positions of the map that a system's picture is drawn from."""
    example = CATALOGUE[key].example()
    if example.for_size(*COARSER) != example:
        return scene.COARSE_SIZE
    return COARSER if example.pairs_positions else scene.DRAWN_SIZE


@functools.cache
def set_scene(module, seed, at, size):
    """Set a system to work, once for all pictures that show it."""
    return scene.make_scene(module, seed, at, size)


def shared_scene(module, seed, at=None, size=None):
    """Take the place of `make_scene`, on maps as coarse as `size_of` says."""
    return set_scene(module, seed, at, size or size_of(module.key))


def scene_of(key):
    """What a system's picture shows."""
    return shared_scene(CATALOGUE[key].example(), SEED)


def results(key):
    """The features that a system's picture shows, and the pass."""
    return scene_of(key).x, scene_of(key).run


def drawn_alone(panel, key):
    """Make one panel of a system's picture, not yet laid out."""
    figure = Figure()
    panel(figure, scene_of(key))
    return figure


@functools.cache
def page_of(name):
    """Make a page's picture, not yet laid out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panels, "make_scene", shared_scene)
        return catalogue.PICTURES[name]()


def panels_of(key):
    """Make the panels that show a system on its page, not yet laid out."""
    return page_of(Path(CATALOGUE[key].derivation).stem)


@functools.cache
def figure_of(key, seed=SEED):
    """Make the figure that show draws, not yet laid out: half of the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures.figure, "make_scene", shared_scene)
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


def assert_well_laid_out(figure, pixels, contrast=0.03):
    """Assert that no panel is blank, none hides another, all lie within the picture and no text is cut off."""
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= pixels.shape[1]
        assert 0 <= box.y0 < box.y1 <= pixels.shape[0]
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        left, bottom, right, top = np.rint(box.extents).astype(int)
        panel = pixels[len(pixels) - top : len(pixels) - bottom, left:right, :3]
        assert panel[..., 0].size > 200
        colours = np.rint(255 * panel[::3, ::3]) @ [1 << 16, 1 << 8, 1]
        assert len(np.unique(colours)) > 2
        assert panel.std(axis=(0, 1)).max() > contrast
    for border in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (border == 1).all()  # what is cut off reaches it
