"""A trace as text: a table, and every number written out."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.foreign_arrays import to_host
from npattn.module import as_tuple
from npattn.ops.context import apart
from npattn.tracing.plain import to_plain
from npattn.tracing.steps import Step
from npattn.typing import Array

if TYPE_CHECKING:
    from npattn.tracing.traces import Trace

__all__ = ["table", "written_out"]

WIDTH = 80
"""Columns of a terminal."""
NUMBER_WIDTH = 11
"""Columns of a number in the table."""
RESIDUE = 1e-14
"""What is smaller is written as 0 where all numbers are written."""
NamedValue = tuple[str, Any]


@apart  # from what an interrupt leaves of NumPy's handling of errors
def table(trace: Trace, select: Callable[[Array], Array] = lambda value: value) -> str:
    """Summarise every step: name, shape, mean, root mean square, least and largest, below its tag and line of code.

    Parameters
    ----------
    trace : Trace
    select : callable, optional
        Takes from each value the part that is summarised.

    Returns
    -------
    str
        Of complex numbers the real parts are summarised.
    """
    names = "".join(f"{word:>{NUMBER_WIDTH}}" for word in ("mean", "rms", "least", "largest"))
    lines = [*title(trace), f"{'given':<{WIDTH - len(names) - 5}}shape{names}"]

    def add(named: Iterable[NamedValue]) -> None:
        lines.extend(row(name, select(value) if hasattr(value, "shape") else value) for name, value in named)

    add(given(trace))
    for heading, upstream, steps, found in passes(trace):
        lines += ["", heading]
        add(upstream)
        for (parts, tag, line), same in groupby(steps, lambda step: (step.parts, step.tag, step.line)):
            lines.append(shorten(f"{' / '.join([*parts, tag])} {line}".rstrip()))
            add((step.name, step.value) for step in same)
        add(found)
    return "\n".join(lines)


def written_out(trace: Trace) -> str:
    """Write every number of every step, below the equation and the line of code: for maps of a few positions.

    Parameters
    ----------
    trace : Trace

    Returns
    -------
    str
        Axes of one image are left out; matrices stand side by side.
    """
    lines = [*title(trace), ""]
    for name, value in given(trace):
        lines += equation_of_numbers(name, value)
    for heading, upstream, steps, found in passes(trace):
        lines += ["", heading]
        for name, value in upstream:
            lines += equation_of_numbers(name, value)
        for (parts, tag, line), same in groupby(steps, lambda step: (step.parts, step.tag, step.line)):
            block = list(same)
            lines += ["", *step_head(" / ".join([*parts, tag]), block[0].equation, line)]
            for step in block:
                lines += equation_of_numbers(step.name, step.value)
        for name, value in found:
            lines += ["", *equation_of_numbers(name, value)]
    return "\n".join(lines)


def step_head(head: str, latex: str | None, line: str) -> list[str]:
    """Write a step's tag, its equation, if there is one, and its line of code below that."""
    if latex is None:
        return textwrap.wrap(f"{head}  {line}", WIDTH, subsequent_indent="     ")
    equation = textwrap.wrap(f"{head}  {to_plain(latex)}", WIDTH, subsequent_indent="     ")
    return equation + textwrap.wrap(line, WIDTH, initial_indent="     ", subsequent_indent="       ")


def title(trace: Trace) -> list[str]:
    """Name the system."""
    return textwrap.wrap(str(trace.module), WIDTH, subsequent_indent="  ")


def given(trace: Trace) -> list[NamedValue]:
    """List what the pass was given."""
    return [*trace.inputs.items(), *trace.params.items()]


def passes(trace: Trace) -> Iterator[tuple[str, list[NamedValue], Sequence[Step], list[NamedValue]]]:
    """Go through the passes: what each is called, what it was given, its steps, and what no step of it shows."""
    yield "forward", [], trace.forward_steps, []
    for back in trace.backward_passes:
        given = [(f"dy[{i}]", dy) for i, dy in enumerate(back.dy)] if isinstance(back.dy, tuple) else [("dy", back.dy)]
        gradients = zip(trace.inputs, as_tuple(back.dx), strict=True)
        found = [(f"{name}.grad", dx) for name, dx in gradients if dx is not None and not ends_in(back.steps, dx)]
        yield "backward", given, back.steps, found


def ends_in(steps: Sequence[Step], dx: Any) -> bool:
    """Whether the last line is the one that computes `dx`."""
    last = [step.value for step in steps if (step.parts, step.tag) == (steps[-1].parts, steps[-1].tag)]
    return any(np.array_equal(to_numbers(value), to_numbers(dx), equal_nan=True) for value in last)


def row(name: str, value: Any) -> str:
    """Summarise a value in a row of the table."""
    numbers = np.real(to_numbers(value))
    shape = "x".join(map(str, np.shape(numbers)))
    room = WIDTH - 4 * NUMBER_WIDTH - 2
    name = shorten(name, room - len(shape) - 1, keep_end=True)
    start = f"  {name}{shape:>{room - len(name)}}"
    if not numbers.size:
        return start
    with np.errstate(all="ignore"):
        numbers64 = numbers.astype(np.promote_types(numbers.dtype, np.float64))
        summary = numbers64.mean(), np.sqrt(np.square(numbers64).mean()), numbers64.min(), numbers64.max()
    return start + "".join(f"{number:>{NUMBER_WIDTH}.4g}" for number in summary)


def to_numbers(value: Any) -> np.ndarray:
    """Bring a value to the host as plain numbers: to print them must not compute in their kind."""
    return np.asarray(to_host(value) if hasattr(value, "shape") else value)


def shorten(text: str, width: int = WIDTH, *, keep_end: bool = False) -> str:
    """Shorten a text that is too long."""
    if len(text) <= width:
        return text
    return f"…{text[len(text) - width + 1 :]}" if keep_end else f"{text[: width - 1]}…"


def equation_of_numbers(name: str, value: Any) -> list[str]:
    """Write ``name =`` and all numbers: rows of a matrix below each other, matrices side by side as they fit."""
    numbers = to_numbers(value)
    while numbers.ndim > 1 and numbers.shape[0] == 1:
        numbers = numbers[0]
    label = f"     {name} = "
    if numbers.ndim == 0:
        return [label + write_number(numbers[()])]
    if not numbers.size:
        return [f"{label}[] of shape {'x'.join(map(str, numbers.shape))}"]
    words = np.array([write_number(number) for number in numbers.ravel()], dtype=object).reshape(numbers.shape)
    matrices = words.reshape(-1, *words.shape[-2:]) if words.ndim > 1 else words[None, None]
    blocks = [write_matrix(matrix) for matrix in matrices]
    per_line = max(1, (WIDTH - len(label) + 3) // (max(len(block[0]) for block in blocks) + 3))
    lines: list[str] = []
    for i in range(0, len(blocks), per_line):
        for rows in zip(*blocks[i : i + per_line], strict=True):
            start = label if not lines else " " * len(label)
            lines += textwrap.wrap("   ".join(rows), WIDTH, initial_indent=start, subsequent_indent=" " * len(label))
    return lines


def write_matrix(words: np.ndarray) -> list[str]:
    """Write the rows of a matrix, its columns aligned."""
    widths = [max(map(len, column)) for column in words.T]
    return [f"[{'  '.join(f'{word:>{width}}' for word, width in zip(row, widths, strict=True))}]" for row in words]


def write_number(number: Any) -> str:
    """Write a number as short as four digits allow; what rounding leaves of 0, among numbers about 1, is 0."""
    return "0" if abs(number) < RESIDUE else f"{number:.4g}"
