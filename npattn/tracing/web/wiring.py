"""A circuit as a picture: lines of code at the right, a wire for each value at the left."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import ceil
from typing import Any

import numpy as np

from npattn.tracing.text import shorten, to_numbers
from npattn.tracing.web.circuit import Circuit, Node
from npattn.tracing.web.numbers import short, write_shape
from npattn.tracing.web.ports import Port

__all__ = ["draw_circuit"]

LANE, PORT, OUTPUT, GAP = 13, 38, 9, 14
"""Pixels between wires, between arrows into a box, between wires out of one, and between boxes."""
ARROW, BOX, CHARACTER, MARGIN = 196, 142, 6.63, 8
"""Pixels of an arrow, of a box at least, of a character, and beside the text in a box."""
LONGEST, LONGEST_IN_BOX = 27, 24
"""Characters that fit above an arrow, and in the widest box."""
Key = tuple[int | None, str]
Attributes = Callable[[Node], str]


class Lanes:
    """Wires beside each other, of which each has its place from where its value is made to where it is last read."""

    def __init__(self) -> None:
        self.taken: list[Key | None] = []
        self.count = 0

    def take(self, key: Key) -> int:
        """Give a wire the first free place."""
        if key in self.taken:
            return self.taken.index(key)
        free = self.taken.index(None) if None in self.taken else len(self.taken)
        self.taken[free : free + 1] = [key]
        self.count = max(self.count, len(self.taken))
        return free

    def release(self, key: Key) -> None:
        """Set a place free."""
        if key in self.taken:
            self.taken[self.taken.index(key)] = None


class Drawing:
    """The picture as it grows, from the top."""

    def __init__(self, circuit: Circuit, attributes: Attributes, ends: tuple[str, str]) -> None:
        self.circuit, self.attributes, self.ends = circuit, attributes, ends
        self.lanes, self.top = Lanes(), 4.0
        self.shapes: list[str] = []
        self.begun: dict[Key, tuple[int, float]] = {}
        ports = [port for node in circuit.nodes for port in node.ports] + circuit.outputs
        self.uses: dict[Key, int] = {}
        for port in ports:
            self.uses[port.source, port.name] = self.uses.get((port.source, port.name), 0) + 1
        self.left = LANE * max(1, self.most()) + 6
        longest = max([0, *(len(node.label) for node in circuit.nodes)])
        self.box_width = max(BOX, ceil(CHARACTER * min(longest, LONGEST_IN_BOX)) + 2 * MARGIN)

    def most(self) -> int:
        """Count the wires that are beside each other at most."""
        lanes, uses = Lanes(), dict(self.uses)
        for made, read in self.rows():
            for key in made if read is None else ():
                lanes.take(key)
            for key in read or ():
                uses[key] -= 1
                if not uses[key]:
                    lanes.release(key)
            for key in made if read is not None else ():
                lanes.take(key)
        return lanes.count

    def rows(self) -> list[tuple[list[Key], list[Key] | None]]:
        """List what each row makes and reads."""
        rows: list[tuple[list[Key], list[Key] | None]] = []
        for name in self.circuit.inputs:
            rows.append((self.made(None, name), None))
        for i, node in enumerate(self.circuit.nodes):
            rows.append((self.made(i), [(port.source, port.name) for port in node.ports if port.source != -1]))
        return [*rows, ([], [(port.source, port.name) for port in self.circuit.outputs])]

    def made(self, source: int | None, name: str | None = None) -> list[Key]:
        """List the wires that begin at a node, or at an input."""
        return [key for key in self.uses if key[0] == source and name in (None, key[1])]

    def draw(self) -> str:
        """Draw all rows; return the picture."""
        first, last = self.ends
        for name, value in self.circuit.inputs.items():
            keys = self.made(None, name)
            if keys:
                self.box(f'class="end" {first}', name, write_shape(value), 0, keys)
        for i, node in enumerate(self.circuit.nodes):
            self.row(f'class="node" {self.attributes(node)}', node, self.made(i))
        for port in self.circuit.outputs:
            middle = self.top + PORT / 2
            self.arrow(port, middle)
            self.label(f'class="end" {last}', self.top + 4, PORT - 8, port.name, "output")
            self.top += PORT + GAP
        width = self.left + ARROW + self.box_width + 2
        name = " / ".join(self.circuit.parts) or "the whole"
        return (
            f'<svg viewBox="0 0 {width} {self.top:g}" width="{width}" role="group" '
            f'aria-label="Circuit of {escape(name)}">{"".join(self.shapes)}</svg>'
        )

    def row(self, attributes: str, node: Node, keys: list[Key]) -> None:
        """Draw a node with its arrows."""
        start = self.top
        for port in node.ports:
            self.arrow(port, self.top + PORT / 2)
            self.top += PORT
        self.top = start
        names = dict.fromkeys(step.name.partition("[")[0] for step in node.pair.forward)
        title = f"({node.pair.number}) {', '.join(names)}"
        self.box(attributes, title, node.label, len(node.ports) * PORT, keys)

    def box(self, attributes: str, title: str, label: str, ports: int, keys: list[Key]) -> None:
        """Draw a box as high as its arrows need, and the wires that begin at it."""
        height = max(34, ports + OUTPUT * len(keys) - (4 if ports else 0))
        self.label(attributes, self.top, height, title, label)
        below = self.top + height - 5
        for key in reversed(keys):
            x = self.x(self.lanes.take(key))
            self.begun[key] = self.lanes.take(key), below
            self.shapes.append(f'<path class="wire" d="M{self.left + ARROW} {below:g}H{x}"/>{dot(x, below)}')
            below -= OUTPUT
        self.top += height + GAP

    def label(self, attributes: str, top: float, height: float, title: str, label: str) -> None:
        """Write a box, which leads to its step."""
        x = self.left + ARROW
        room = int((self.box_width - 2 * MARGIN) / CHARACTER)
        self.shapes.append(
            f"<a {attributes}><title>{escape(f'{title}: {label}')}</title>"
            f'<rect x="{x}" y="{top:g}" width="{self.box_width}" height="{height:g}" rx="5"/>'
            f'<text x="{x + MARGIN}" y="{top + height / 2 - 3:g}" class="name">{escape(shorten(title, room))}</text>'
            f'<text x="{x + MARGIN}" y="{top + height / 2 + 11:g}">{escape(shorten(label, room))}</text></a>'
        )

    def arrow(self, port: Port, y: float) -> None:
        """Draw an arrow into a box, the value above it and the gradient below it."""
        x, end = self.left + 4, self.left + ARROW
        if port.source != -1:
            key = port.source, port.name
            lane, began = self.begun.get(key, (0, y))
            x = self.x(lane)
            self.shapes.append(f'<path class="wire" d="M{x} {began:g}V{y:g}"/>')
            self.uses[key] -= 1
            if not self.uses[key]:
                self.lanes.release(key)
        self.shapes.append(f'<path class="wire" d="M{x} {y:g}H{end - 5}"/>{dot(x, y)}')
        self.shapes.append(f'<path class="head" d="M{end - 7} {y - 4:g}L{end} {y:g}L{end - 7} {y + 4:g}Z"/>')
        text = self.left + 8
        self.shapes.append(
            f'<text class="value" x="{text}" y="{y - 4:g}">{escape(summary(port.name, port.value))}</text>'
        )
        if port.gradient is not None:
            name = "grad" if port.source == -1 else port.gradient_name  # a parameter's name stands above
            written = escape(summary(name, port.gradient))
            self.shapes.append(f'<text class="gradient" x="{text}" y="{y + 12:g}">{written}</text>')

    def x(self, lane: int) -> int:
        """Return where a wire runs."""
        return 6 + LANE * lane


def draw_circuit(circuit: Circuit, attributes: Attributes, ends: tuple[str, str]) -> str:
    """Draw a circuit as SVG.

    Parameters
    ----------
    circuit : Circuit
    attributes : callable
        Returns the attributes of a node's link.
    ends : tuple of str
        Those of the links of inputs and outputs.
    """
    return Drawing(circuit, attributes, ends).draw()


def dot(x: float, y: float) -> str:
    """Draw where wires meet."""
    return f'<circle cx="{x}" cy="{y:g}" r="2.5"/>'


def summary(name: str, value: Any) -> str:
    """Write a value above an arrow: up to three numbers, of more the root mean square."""
    if value is None:
        return shorten(name, LONGEST)
    numbers = to_numbers(value)
    written = f"{name} = {', '.join(short(number) for number in numbers.ravel()[:3])}"
    if numbers.size <= 3 and len(written) <= LONGEST:
        return written
    with np.errstate(all="ignore"):
        rms = f"rms {short(np.sqrt(np.square(np.abs(numbers.astype(float))).mean()))}"
    shape = write_shape(numbers)
    whole = f"{name} {shape} {rms}"
    return whole if len(whole) <= LONGEST else f"{shorten(name, LONGEST - len(rms) - 1)} {rms}"
