"""The benchmark's pictures. They need matplotlib: the extra plot."""

import os

import numpy as np
from matplotlib.figure import Figure

__all__ = ["draw_scaling", "draw_table"]

COLOURS = {"pytorch": "#c8553d", "compiled": "#e9a23b", "fused": "#6d597a"}
"""One for each form of PyTorch."""


def draw_table(rows, machine, path):
    """Draw the ratios as bars, and beside them each system under the machine's roof.

    Parameters
    ----------
    rows : list of compare.Row
    machine : tuple of float
        Flops and bytes a second.
    path : str
    """
    rows = [row for row in rows if row.way == "both"]
    names = [name for name in COLOURS if any(name in row.ratios for row in rows)]
    figure = Figure(figsize=(13, 1.6 + 0.42 * max(len(rows), 8)), dpi=110, layout="constrained")
    figure.suptitle(f"forward and backward, {rows[0].dtype}, {os.cpu_count()} cores")
    bars, roof = figure.subplots(1, 2, width_ratios=(1, 1.15))
    draw_ratios(bars, rows, names)
    draw_roof(roof, rows, *machine)
    figure.savefig(path)


def draw_ratios(axes, rows, names):
    """Draw one bar for every system and form of PyTorch; the shorter, the quicker npattn is."""
    axes.set_title("npattn's time over PyTorch's", fontsize=10)
    thick = 0.8 / max(len(names), 1)
    for i, name in enumerate(names):
        having = [(n, row.ratios[name]) for n, row in enumerate(rows) if name in row.ratios]
        places = [n + thick * (i - (len(names) - 1) / 2) for n, _ in having]
        label = "eager" if name == "pytorch" else name
        axes.barh(places, [ratio for _, ratio in having], height=0.92 * thick, color=COLOURS[name], label=label)
    axes.axvline(1, color="0.2", linewidth=1)
    axes.set_yticks(range(len(rows)), [row.key for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("ratio of median times; left of the line npattn is ahead")
    axes.grid(axis="x", alpha=0.3)
    if names:
        axes.legend(fontsize=8)


def draw_roof(axes, rows, flop_rate, byte_rate):
    """Draw how much each system computes a second, over how much it computes for a byte; the roof is what could be."""
    axes.set_title("arithmetic a second, under what memory and matrix products allow", fontsize=10)
    intensities = np.array([row.flops / row.bytes for row in rows])
    rates = np.array([row.flops / row.seconds for row in rows])
    ends = np.array([min(intensities.min() / 2, 0.1), max(2 * intensities.max(), 4 * flop_rate / byte_rate)])
    line = np.geomspace(*ends, 200)
    axes.loglog(line, np.minimum(byte_rate * line, flop_rate) / 1e9, color="0.2", label="the machine")
    axes.loglog(line, 0.7 * np.minimum(byte_rate * line, flop_rate) / 1e9, "--", color="0.6", label="70 % of it")
    axes.loglog(intensities, rates / 1e9, "o", color="#1f6f8b")
    # Systems alike in what they need lie close together, so names stand in a column, in the points' order.
    ridge = flop_rate / byte_rate
    for some, beside, ha in ((intensities < ridge, 6 * ridge**0.1, "left"), (intensities >= ridge, 8 * ridge, "right")):
        heights = spread(np.log10(rates[some] / 1e9), 0.045)
        for n, height in zip(np.flatnonzero(some), heights, strict=True):
            line = {"arrowstyle": "-", "color": "0.75", "linewidth": 0.6, "shrinkB": 3}
            at, to = (intensities[n], rates[n] / 1e9), (beside, 10**height)
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            axes.annotate(rows[n].key, at, to, ha=ha, va="center", fontsize=8, arrowprops=line, bbox=ground)
    axes.set_xlabel("flops for each byte that has to move")
    axes.set_ylabel("Gflop a second")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")


def spread(heights, gap):
    """Move numbers apart until none is closer to another than the gap, in their order and about where they are."""
    order = np.argsort(heights, kind="stable")
    moved = heights[order] - gap * np.arange(len(heights))
    for _ in moved:  # pools of numbers that would overlap share their middle
        for n in np.flatnonzero(np.diff(moved) < 0):
            lower, upper = moved == moved[n], moved == moved[n + 1]
            moved[lower | upper] = moved[lower | upper].mean()
    places = np.empty(len(heights))
    places[order] = moved + gap * np.arange(len(heights))
    return places


def draw_scaling(rows, channels, path):
    """Draw how time and memory grow, both axes logarithmic, beside lines that grow as N and as N².

    Parameters
    ----------
    rows : list of tuple
        Positions, seconds of forward, backward and both, and megabytes at the peak.
    channels : int
    path : str
    """
    positions, forward, backward, _, peak = np.array(rows).T
    figure = Figure(figsize=(10, 4.6), dpi=110, layout="constrained")
    figure.suptitle(f"position attention, {channels} channels, float32, {os.cpu_count()} cores")
    time_axes, memory_axes = figure.subplots(1, 2)
    time_axes.loglog(positions, backward, "o-", color="#c8553d", label="backward")
    time_axes.loglog(positions, forward, "o-", color="#1f6f8b", label="forward")
    time_axes.set_ylabel("seconds")
    memory_axes.loglog(positions, 4 * positions**2 / 2**20, ":", color="0.4", label="the N × N map alone")
    memory_axes.loglog(positions, peak, "o-", color="#2a9d8f", label="forward and backward, peak")
    memory_axes.set_ylabel("megabytes")
    for axes, end in ((time_axes, forward[-1]), (memory_axes, peak[-1])):
        for power, style, name in ((2, "--", "as N²"), (1, "-.", "as N")):
            line = end * (positions / positions[-1]) ** power
            axes.loglog(positions, line, style, color="0.6", linewidth=1, label=name)
        axes.set_xlabel("positions N")
        axes.set_xticks(positions, [f"{side}²" for side in np.sqrt(positions).astype(int)])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path)
