"""The whole picture: which panels a system has, one below the other."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure, SubFigure

from npattn.attention import (
    BottleneckAttention,
    CrissCrossAttention,
    HaloAttention,
    NonLocal,
    PolarizedSelfAttention,
    WindowAttention,
)
from npattn.module import Module
from npattn.pictures.additive import draw_additive
from npattn.pictures.affinity import draw_affinity
from npattn.pictures.attention_maps import draw_attention_maps, draw_branch_attention, draw_forms, draw_recurrence
from npattn.pictures.blocks import draw_blocks
from npattn.pictures.branches import draw_branches
from npattn.pictures.change import draw_change
from npattn.pictures.channels import draw_channels
from npattn.pictures.context import draw_context
from npattn.pictures.crossing import draw_crossing
from npattn.pictures.directions import draw_directions
from npattn.pictures.elements import draw_elements
from npattn.pictures.gathering import draw_gathering
from npattn.pictures.groups import draw_groups
from npattn.pictures.joint import draw_joint
from npattn.pictures.lambdas import draw_lambdas
from npattn.pictures.memories import draw_memories
from npattn.pictures.offsets import draw_halos, draw_offsets
from npattn.pictures.partition import draw_partition
from npattn.pictures.planes import draw_planes
from npattn.pictures.positions import draw_positions
from npattn.pictures.refinement import draw_refinement
from npattn.pictures.sampling import draw_sampling
from npattn.pictures.scene import Scene, make_scene
from npattn.pictures.scores import draw_scores
from npattn.pictures.selection import draw_selection
from npattn.pictures.softmaxes import draw_softmaxes
from npattn.pictures.top_k import draw_top_k
from npattn.pictures.variants import NUM_VARIANTS, draw_variants
from npattn.pictures.windows import draw_windows

__all__ = ["SUFFIXES", "draw"]

SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg")
"""What the name of a picture's file may end in."""
PANELS: dict[str, tuple[Callable[[SubFigure, Scene], None], float]] = {
    "branch": (draw_scores, 3.0),
    "channel": (draw_channels, 4.2),
    "position": (draw_context, 3.0),
    "spatial": (draw_positions, 2.6),
    "additive": (draw_additive, 2.6),
    "cross": (draw_crossing, 2.6),
    "cw": (draw_planes, 2.8),
    "height": (draw_directions, 4.2),
    "gate": (draw_elements, 4.2),
    "gather": (draw_gathering, 4.6),
    "memory": (draw_memories, 2.8),
    "group": (draw_groups, 4.2),
    "keys": (draw_lambdas, 4.6),
    "gates": (draw_joint, 4.2),
    "blocks": (draw_blocks, 4.2),
    "affinity": (draw_affinity, 4.2),
    "windows": (draw_windows, 2.6),
    "branches": (draw_branches, 4.6),
    "branch_weights": (draw_selection, 4.2),
    "similarity": (draw_refinement, 4.4),
    "selected": (draw_sampling, 4.8),
}
"""How each attention map is drawn, and how many inches high."""


def draw(module: Module, seed: int = 0, at: tuple[int, int] | None = None) -> Figure:
    """Draw a system at work on the photograph's features: what it changes, and each of its attention maps.

    Parameters
    ----------
    module : Module
    seed : int, default 0
        Of the parameters, which are random: the picture shows how the system works, not what training makes of it. A
        classifier's bias is moved so that its classes balance, and running statistics are those of the photograph.
    at : tuple of int, optional
        Row and column of a pixel of the photograph: its attention is drawn first, if the system has an
        `attention_map`. By default the cat's eye.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        Whatever the module refuses.

    Examples
    --------
    >>> from npattn import SqueezeExcitation
    >>> figure = draw(SqueezeExcitation(channels=4, reduction=2))
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['photograph', 'features in: root mean square 0.68']
    >>> figure.savefig("se.png")  # doctest: +SKIP
    """
    scene = make_scene(module, seed, at)
    functions, heights = zip(*choose_panels(scene), strict=True)
    figure = Figure(figsize=(12, 0.6 + sum(heights)), dpi=110, layout="constrained")
    figure.suptitle(title_of(scene), fontsize=12)
    rows = figure.subfigures(len(functions), 1, squeeze=False, height_ratios=heights)
    for row, function in zip(rows.flat, functions, strict=True):
        function(row, scene)
    return figure


def title_of(scene: Scene) -> str:
    """Name the system, the seed and the paper."""
    name = type(scene.module).__name__
    if scene.inner is not scene.module:
        name += f" round {type(scene.inner).__name__}"
    source = f"{scene.module.paper.title} ({scene.module.paper.citation})"
    return f"{name}, random parameters of seed {scene.seed}\n{source}"


def choose_panels(scene: Scene) -> list[tuple[Callable[[SubFigure, Scene], None], float]]:
    """List the panels of a system from top to bottom: how each is drawn, and how many inches high."""
    module, inner, run = scene.module, scene.inner, scene.run
    panels: list[tuple[Callable[[SubFigure, Scene], None], float]] = []
    if "x" in module.input_shapes(1, 1, 1) and getattr(run.output, "shape", None) == scene.x.shape:
        panels.append((draw_change, 2.6))
    polarized = isinstance(inner, PolarizedSelfAttention)
    panels += [
        panel for name, panel in PANELS.items() if name in run.attention and not (polarized and name == "spatial")
    ]
    if polarized:
        panels.append((draw_softmaxes, 2.3))
    if hasattr(module, "branch_channels"):
        panels.append((draw_branch_attention, 2.6))
    if hasattr(inner, "key_heads"):  # what its inputs are of is another's affair: they are no maps
        panels.append((draw_variants, 0.5 + 2.1 * NUM_VARIANTS))
    elif isinstance(inner, NonLocal):
        panels.append((draw_forms, 4.6))
    elif isinstance(inner, WindowAttention):
        panels.append((draw_partition, 5.0))
    elif isinstance(inner, CrissCrossAttention):
        panels.append((draw_recurrence, 4.6))
    elif isinstance(inner, BottleneckAttention):
        panels.append((draw_offsets, 6.8))
    elif isinstance(inner, HaloAttention):
        panels.append((draw_halos, 6.2))
    elif hasattr(inner, "attention_map"):
        panels.append((draw_attention_maps, 0.5 + 2.1 * getattr(inner, "heads", 1)))
    if hasattr(module, "k"):
        panels.append((draw_top_k, 4.8))
    return panels
