"""Pictures of training. They need matplotlib: the extra plot."""

import dataclasses

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from npattn.data import digit_maps
from npattn.parameters import strip_prefix
from npattn.training import ESTIMATORS, make_system, train
from npattn.training.steps import BATCH_SIZE, NUM_EPOCHS, NUM_MAPS

__all__ = ["draw_attention", "draw_runs", "save"]

COLOURS = ["0.35", "#c8553d", "#e9a23b", "#3d7a5a", "#4a6fa5", "#6d597a"]
STEPS = NUM_EPOCHS * (NUM_MAPS["train"] // BATCH_SIZE)


def draw_runs(found):
    """Draw mean IoU of every run, the losses by system, DANet's scales, and the losses by estimator."""
    systems = list(dict.fromkeys(run["case"] for run in found if "mean_iou" in run))
    figure = Figure(figsize=(8, 6.4), dpi=100, layout="constrained")
    (iou, losses), (scales, glimpses) = figure.subplots(2, 2)
    for row, name in enumerate(systems):
        values = [100 * run["mean_iou"] for run in found if run["case"] == name]
        iou.plot(values, [row] * len(values), "o", color="#4a6fa5", alpha=0.5, markersize=4)
        iou.plot([np.mean(values)], [row], "|", color="black", markersize=14)
    iou.set_yticks(range(len(systems)), systems, fontsize=7)
    iou.invert_yaxis()
    iou.set_title("mean IoU in percent, one dot a seed", fontsize=9)
    iou.grid(axis="x", alpha=0.3)
    draw_losses(losses, found, [name for name in systems if "," not in name], "loss, mean of all seeds")
    draw_losses(glimpses, found, ESTIMATORS, "loss of the network that looks once")
    for run in found:
        if run["case"] == "pam+cam":
            for colour, (name, values) in zip(COLOURS[1::3], sorted(run["scalars"].items()), strict=True):
                label = {"sa.gamma": "γ of positions", "sc.gamma": "γ of channels"}[name]
                steps = np.linspace(0, STEPS, len(values) + 1)
                scales.plot(steps, [0, *values], color=colour, linewidth=1, label=None if run["seed"] else label)
    scales.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    scales.set_title("pam+cam: the scales leave 0", fontsize=9)
    scales.legend(fontsize=7)
    for axes in (losses, scales, glimpses):
        axes.set_xlabel("step", fontsize=8)
    for axes in figure.axes:
        axes.tick_params(which="both", labelsize=7)
    return figure


def save(figure, path):
    """Write a picture with a palette, in less than half of the bytes that full colours take."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(128, Image.Quantize.MAXCOVERAGE).save(path, format="PNG", optimize=True)


def draw_losses(axes, found, names, title):
    """Draw the mean curve of each case."""
    for name, colour in zip(names, COLOURS, strict=False):
        curves = [run["losses"] for run in found if run["case"] == name]
        if curves:
            steps = (np.arange(len(curves[0])) + 0.5) * STEPS / len(curves[0])
            axes.semilogy(steps, np.mean(curves, axis=0), color=colour, linewidth=1.2, label=name)
    axes.yaxis.set_major_formatter("{x:.1f}")
    axes.yaxis.set_minor_formatter("{x:.1f}")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)


def draw_attention(epochs=NUM_EPOCHS):
    """Draw a test map, and where one of its pixels looks and which positions are let through, before and after."""
    maps = digit_maps(8, split="test")
    which, row, column = query(maps.labels)
    figure = Figure(figsize=(8, 4.4), dpi=100, layout="constrained")
    axes = figure.subplots(2, 4)
    for line, key in enumerate(("pam+cam", "cbam")):
        *_, run = train(key, epochs)
        show(axes[line, 0], maps.x[which, 0], "a test map" if line == 0 else "the same", "gray_r")
        position = (row // 2) * (maps.x.shape[3] // 2) + column // 2
        for place, (name, params) in enumerate((("before", run.initial), ("after", run.params)), 1):
            a = look(key, run.network, params, maps.x[which : which + 1], position)
            what = "where × looks" if key == "pam+cam" else "spatial gate"
            image = show(axes[line, place], a, f"{key}, {what},\n{name} training", "viridis", maps.x.shape[2:])
            figure.colorbar(image, ax=axes[line, place], shrink=0.7).ax.tick_params(labelsize=6)
        if key == "pam+cam":
            for axis in axes[0, :3]:
                axis.plot([column], [row], "x", color="#c8553d")
        said = (
            dataclasses.replace(run.network, training=False)(run.params, maps.x[which : which + 1].astype(np.float32))
            .output[0]
            .argmax(axis=0)
        )
        show(axes[line, 3], said, "classes named after training", "tab10")
    return figure


def query(labels):
    """Choose a map with several digits, and a pixel in the middle of the first."""
    which = int(np.argmax([len(np.unique(label)) for label in labels]))
    rows, columns = np.nonzero(labels[which] == labels[which].min())
    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return which, int(rows[middle]), int(columns[middle])


def look(key, network, params, x, position):
    """Make the attention map of one image."""
    run = dataclasses.replace(network, training=False)(params, x.astype(np.float32))
    f, size = run.attention["features"], run.attention["features"].shape[2:]
    if key == "cbam":
        return run.attention["spatial"][0, 0]
    return (
        make_system("pam").attention_map(strip_prefix("attention.sa.", params), f, rows=[position])[0, 0].reshape(size)
    )


def show(axes, image, title, colours, size=None):
    """Show an array on the pixels of the map."""
    height, width = size or image.shape
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axes.imshow(image, cmap=colours, extent=extent, interpolation="nearest")
