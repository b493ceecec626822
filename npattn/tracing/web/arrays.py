"""Arrays as pictures: tables of a few numbers, bars of a vector, maps, and a histogram of what is too large."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from npattn.tracing.text import to_numbers
from npattn.tracing.web.numbers import minus, short, statistics, write_shape

__all__ = ["figure"]

MAX_WRITTEN, MAX_COLUMNS = 64, 8
"""Numbers, and columns, of an array that is written out."""
MAX_SIDE, MAX_BARS, TILES, BINS = 64, 512, 3, 24
"""Rows or columns of a picture, bars of a vector, pictures of one array, bars of a histogram."""


def figure(name: str, value: Any, positions: tuple[int, int]) -> str:
    """Draw an array, with its name and statistics.

    Parameters
    ----------
    name : str
    value : array or number
    positions : tuple of int
        Rows and columns of the map that the pass is about; a last axis that lists positions is laid out as one.
    """
    numbers = np.real(to_numbers(value))
    numbers = numbers.astype(np.promote_types(numbers.dtype, np.float64))
    if numbers.ndim == 0:
        caption, drawn = "", f'<p class="scalar">{minus(f"{numbers[()]:.4g}")}</p>'
    else:
        caption = write_shape(numbers) if is_written(numbers) else statistics(numbers)
        drawn = "".join(draw_array(name, numbers, positions))
    return (
        f'<figure class="array" data-name="{escape(name)}"><figcaption><b>{escape(name)}</b> '
        f'<span>{caption}</span></figcaption><div class="pictures">{drawn}</div></figure>'
    )


def is_written(numbers: np.ndarray) -> bool:
    """Whether an array is so small that every number is written."""
    return 0 < numbers.size <= MAX_WRITTEN and np.atleast_1d(numbers.squeeze()).shape[-1] <= MAX_COLUMNS


def draw_array(name: str, numbers: np.ndarray, positions: tuple[int, int]) -> Iterator[str]:
    """Draw an array in the way that suits its size."""
    lead = np.atleast_1d(numbers.squeeze())
    if not numbers.size:
        return
    if is_written(numbers):
        yield from tables(name, lead)
        return
    *first, last = lead.shape
    if numbers.ndim > 1 and last == positions[0] * positions[1] and min(positions) > 1:
        lead = lead.reshape(*first, *positions)
    if lead.size == max(lead.shape) and lead.size <= MAX_BARS:
        yield canvas("bars", name, lead.reshape(1, -1))
        return
    shown = 0
    if max(lead.shape[-2:]) <= MAX_SIDE:
        stack = lead.reshape(-1, *lead.shape[-2:])
        for i, index in zip(range(min(len(stack), TILES)), np.ndindex(lead.shape[:-2]), strict=False):
            shown += stack[i].size
            yield canvas("map", name + (f"[{', '.join(map(str, index))}]" if index else ""), stack[i])
    if shown < numbers.size:
        yield histogram(name, numbers)


def tables(name: str, numbers: np.ndarray) -> Iterator[str]:
    """Write every number, a table for each matrix, on a ground of its sign and size."""
    largest = scale_of(numbers)
    matrices = numbers.reshape(-1, *numbers.shape[-2:]) if numbers.ndim > 1 else numbers[None, None]
    indices = np.ndindex(numbers.shape[:-2])
    for matrix, index in zip(matrices, indices, strict=False):
        rows = "".join(f"<tr>{''.join(cell(number, largest) for number in row)}</tr>" for row in matrix)
        label = f"[{', '.join(map(str, index))}]" if index else ""
        caption = f"<caption>{label}</caption>" if label else ""
        yield f'<table class="numbers" aria-label="{escape(name + label)}">{caption}{rows}</table>'


def cell(number: float, largest: float) -> str:
    """Write one number."""
    written = short(number)
    share = round(100 * min(1, abs(number) / largest)) if np.isfinite(number) and written != "0" else 0
    return f'<td class="{"minus" if number < 0 else "plus"}" style="--share:{share}%">{written}</td>'


def canvas(kind: str, label: str, matrix: np.ndarray, edges: tuple[float, float] | None = None) -> str:
    """Hand numbers to the script, which draws them and tells each."""
    data = base64.b64encode(matrix.astype("<f4").tobytes()).decode()
    rows, columns = matrix.shape
    span = "" if edges is None else f' data-from="{edges[0]:.6g}" data-to="{edges[1]:.6g}"'
    what = {
        "bars": f"{columns} numbers as bars",
        "map": f"map of {rows} by {columns} numbers",
        "histogram": "histogram",
    }
    return (
        f'<div class="{kind}" style="--columns:{columns}">'
        f'<canvas tabindex="0" role="img" width="{columns}" height="{rows}" data-kind="{kind}" '
        f'data-label="{escape(label)}"{span} data-largest="{scale_of(matrix):.6g}" data-numbers="{data}" '
        f'aria-label="{escape(label)}: {what[kind]}; arrow keys read them one by one"></canvas>'
        f'<output aria-live="polite">{breakable(label)}{" (histogram)" if kind == "histogram" else ""}</output></div>'
    )


def breakable(name: str) -> str:
    """Let a name that is too long for its line go on after a dot, and not within a word."""
    return escape(name).replace(".", ".<wbr>")


def histogram(name: str, numbers: np.ndarray) -> str:
    """Draw how often which numbers occur."""
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return f"<p>{escape(write_shape(numbers))}: no number is finite</p>"
    counts, edges = np.histogram(finite, BINS)
    return canvas("histogram", name, counts[None].astype(float), (edges[0], edges[-1]))


def scale_of(numbers: np.ndarray) -> float:
    """Return the largest magnitude, which has the full colour; 1 where all is 0."""
    finite = np.abs(numbers[np.isfinite(numbers)])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0
