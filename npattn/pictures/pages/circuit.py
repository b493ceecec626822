"""Circuits: every number of a small pass on its wire, values in green, gradients in red."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from npattn.attention import SqueezeExcitation
from npattn.tracing import trace

__all__ = ["GRADIENT", "VALUE", "Wire", "draw_circuit", "draw_first_gradient", "draw_squeeze_excitation"]

VALUE, GRADIENT = "#1a7f37", "#c1121f"
"""Colours of values and gradients."""


class Wire(NamedTuple):
    """What runs from one box to another.

    Attributes
    ----------
    start, end : str
        Names of boxes.
    value, gradient : numbers
    name : str, default ""
    bend : float, default 0
        How far the wire bends to the side, as a share of its length.
    at : float, default 0.5
        Where on the wire its numbers stand, from 0 at its start to 1 at its end.
    """

    start: str
    end: str
    value: Any
    gradient: Any
    name: str = ""
    bend: float = 0.0
    at: float = 0.5


def draw_circuit(
    axis: Axes, places: Mapping[str, tuple[float, float]], labels: Mapping[str, str], wires: Sequence[Wire]
) -> None:
    """Draw boxes and wires.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    places : mapping of str to tuple of float
        Where each box stands.
    labels : mapping of str to str
        What stands in a box; by default its name.
    wires : sequence of Wire
    """
    for wire in wires:
        start, end = np.array(places[wire.start]), np.array(places[wire.end])
        style = f"arc3,rad={wire.bend}"
        shape: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 11, "shrinkA": 17, "shrinkB": 17}
        axis.add_patch(FancyArrowPatch(tuple(start), tuple(end), connectionstyle=style, color="0.55", **shape))
        along = end - start
        bulge = 2 * wire.at * (1 - wire.at) * wire.bend  # of a quadratic curve whose control point lies `bend` aside
        x, y = start + wire.at * along + bulge * np.array([along[1], -along[0]])
        name = f"{wire.name} = " if wire.name else ""
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
        text: dict[str, Any] = {"ha": "center", "fontsize": 10, "bbox": ground}
        axis.text(x, y + 0.07, name + written(wire.value), va="bottom", color=VALUE, **text)
        axis.text(x, y - 0.07, written(wire.gradient), va="top", color=GRADIENT, **text)
    for name, (x, y) in places.items():
        ground = {"boxstyle": "circle,pad=0.35", "facecolor": "#f3f0e8", "edgecolor": "0.35"}
        axis.text(x, y, labels.get(name, name), ha="center", va="center", fontsize=11, bbox=ground, zorder=3)
    axis.set_aspect("equal")  # so that numbers stand on the bends
    axis.set_axis_off()


def written(numbers: Any) -> str:
    """Write numbers with three digits."""
    return ", ".join(f"{number + 0.0:.3g}".replace("-", "−") for number in np.ravel(numbers))  # + 0: no −0


def draw_first_gradient() -> Figure:
    """Draw a b + max(b, c), forward and backward."""
    a, b, c = 2.0, 3.0, 1.0
    product, larger = a * b, max(b, c)
    places = {
        "a": (0.0, 2.0),
        "b": (0.0, 1.0),
        "c": (0.0, 0.0),
        "×": (2.0, 1.7),
        "max": (2.0, 0.3),
        "+": (4.0, 1.0),
        "L": (6.0, 1.0),
    }
    wires = [
        Wire("a", "×", a, b),
        Wire("b", "×", b, a),
        Wire("b", "max", b, 1.0),
        Wire("c", "max", c, 0.0),
        Wire("×", "+", product, 1.0, "m"),
        Wire("max", "+", larger, 1.0, "q"),
        Wire("+", "L", product + larger, 1.0),
    ]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.add_subplot()
    draw_circuit(axis, places, {}, wires)
    axis.text(0, 0.62, f"b: 2 + 1 = {a + 1:.0f}", color=GRADIENT, ha="center", fontsize=10)
    axis.set(xlim=(-0.7, 6.5), ylim=(-0.4, 2.5))
    return figure


def draw_squeeze_excitation() -> Figure:
    """Draw squeeze-and-excitation's case by hand, each number as the code makes it."""
    module = SqueezeExcitation(channels=2, reduction=2, bias=False)
    params = {
        "fc1.weight": np.reshape([1.0, 1.0], (1, 2, 1, 1)),
        "fc2.weight": np.reshape([0.5, -0.5], (2, 1, 1, 1)),
    }
    x = np.reshape([[1.0, 3.0], [2.0, -2.0]], (1, 2, 1, 2))
    steps = trace(module, params, x)
    dx, _ = steps.backward(np.ones_like(x))
    v = {step.path: np.asarray(step.value) for step in steps.steps}
    places = {"h": (4.0, 1.0), "r": (5.5, 1.0)}
    labels = {"h": "$W_1$", "r": "relu"}
    wires = [Wire("h", "r", v["(2) h"], v["(3') dh"], "h")]
    for c, (row, side) in enumerate(((2.0, 1), (0.0, -1))):
        here = {"x": 0.0, "p": 2.2, "z": 7.0, "a": 8.6, "y": 10.2, "L": 12.2}
        places |= {f"{name}{c}": (column, row) for name, column in here.items()}
        names = {"x": f"$x_{c + 1}$", "p": "mean", "z": "$W_2$", "a": "σ", "y": "×", "L": f"$y_{c + 1}$"}
        labels |= {f"{name}{c}": label for name, label in names.items()}
        wires += [
            Wire(f"x{c}", f"p{c}", x[0, c], v["(1') dx"][0, c] - v["(6') dx"][0, c], at=0.5),
            Wire(f"p{c}", "h", v["(1) p"][0, c], v["(2') dp"][0, c], "p"),
            Wire("r", f"z{c}", v["(3) r"], v["(5') dz"][0, c] * params["fc2.weight"][c], "r"),
            Wire(f"z{c}", f"a{c}", v["(4) z"][0, c], v["(5') dz"][0, c], "z"),
            Wire(f"a{c}", f"y{c}", v["(5) a"][0, c], v["(6') da"][0, c], "a"),
            Wire(f"x{c}", f"y{c}", x[0, c], v["(6') dx"][0, c], bend=-0.17 * side),
            Wire(f"y{c}", f"L{c}", v["(6) y"][0, c], np.ones(2)),
        ]
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    axis = figure.add_subplot()
    draw_circuit(axis, places, labels, wires)
    for c, row in enumerate((1.55, -0.45)):
        axis.text(0, row, f"both ways: {written(dx[0, c])}", color=GRADIENT, ha="center", va="top", fontsize=10)
    axis.set(xlim=(-1.0, 12.8), ylim=(-1.6, 3.6))
    return figure
