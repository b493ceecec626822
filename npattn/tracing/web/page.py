"""A pass as a web page to step through: one file, which needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib import resources
from itertools import groupby, takewhile
from string import Template
from typing import Any

from npattn.module import as_tuple
from npattn.tracing.steps import Step
from npattn.tracing.traces import Trace
from npattn.tracing.web.arrays import figure
from npattn.tracing.web.circuit import Circuit, Node, circuits_of
from npattn.tracing.web.mathml import to_mathml
from npattn.tracing.web.pairs import Pair, pairs_of, walk
from npattn.tracing.web.wiring import draw_circuit

__all__ = ["web_page"]

NamedValues = Iterable[tuple[str, Any]]


def web_page(examples: Mapping[str, Trace]) -> str:
    """Make the page of a system: its circuit, and every step beside its mirror image.

    Parameters
    ----------
    examples : mapping of str to Trace
        Traces of the same system on whatever is to be seen, each by its heading. Of the backward passes the last
        is shown.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    ValueError
        If there is no example.

    Examples
    --------
    >>> import numpy as np
    >>> from npattn import EfficientChannelAttention
    >>> from npattn.tracing import trace
    >>> module = EfficientChannelAttention(channels=2, kernel_size=3)
    >>> steps = trace(module, {"conv.weight": np.array([[[1.0, 0.0, 2.0]]])}, np.ones((1, 2, 2, 2)))
    >>> dx, grads = steps.backward(np.ones((1, 2, 2, 2)))
    >>> page = web_page({"On paper": steps})
    >>> page.startswith("<!DOCTYPE html>"), "ops.sigmoid(z)" in page
    (True, True)
    """
    if not examples:
        raise ValueError("web_page: examples is empty; expected at least one trace, by its heading")
    web = resources.files("npattn.tracing.web")
    style, script, template = (web.joinpath(name).read_text("utf-8") for name in ("style.css", "steps.js", "page.html"))
    first = next(iter(examples.values()))
    sections = (Example(i, heading, trace).html() for i, (heading, trace) in enumerate(examples.items()))
    return Template(template).substitute(
        title=escape(type(first.module).__name__),
        about=about(first),
        choices="".join(example_button(i, heading) for i, heading in enumerate(examples)),
        examples="".join(sections),
        style=style,
        script=script,
    )


def about(trace: Trace) -> str:
    """Say in a sentence what the system does, and whose it is."""
    summary = (type(trace.module).__doc__ or "").strip().partition("\n")[0]
    paper = getattr(trace.module, "paper", None)
    source = f" <cite>{escape(f'{paper.authors}: {paper.title}, {paper.venue} {paper.year}')}</cite>" if paper else ""
    return f"{escape(summary)}{source}"


def example_button(index: int, heading: str) -> str:
    """Make the button of an example."""
    checked = " checked" if not index else ""
    return f'<label><input type="radio" name="example" value="{index}"{checked}> {escape(heading)}</label>'


class Example:
    """A trace as a section of the page. What is computed at its n-th position has the id ``eK-n``."""

    def __init__(self, index: int, heading: str, trace: Trace) -> None:
        self.index, self.heading, self.trace = index, heading, trace
        self.pairs = pairs_of(trace)
        order = walk(trace, self.pairs)
        forward = [pair for pair, returning in order if not returning]
        backward = [pair for pair, returning in order if returning]
        self.forward = {id(pair): i for i, pair in enumerate(forward, 1)}
        self.end = len(forward) + 1
        self.backward = {id(pair): i for i, pair in enumerate(backward, self.end + 2)}
        self.last = self.end + 2 + len(backward)
        shapes = [x.shape for x in trace.inputs.values() if getattr(x, "ndim", 0) == 4]
        self.positions = shapes[0][2:] if shapes else (0, 0)

    def html(self) -> str:
        """Write the section."""
        circuits = "".join(self.circuit(circuit) for circuit in circuits_of(self.trace, self.pairs))
        pairs = "".join(map(self.pair, self.pairs))
        return (
            f'<section class="example" data-example="{self.index}" aria-label="{escape(self.heading)}">'
            f'<h2>{escape(self.heading)}</h2><p class="module"><code>{escape(str(self.trace.module))}</code></p>'
            f'<div class="columns"><div class="circuits">{circuits}</div>'
            f'<div class="steps">{self.given()}{pairs}{self.result()}</div></div></section>'
        )

    def circuit(self, circuit: Circuit) -> str:
        """Draw a circuit, its boxes as links to their steps."""
        name = " / ".join(circuit.parts)
        caption = f"In {escape(name)}" if name else "The circuit"
        chained = ", in the order of the calls" if circuit.chained else ""
        ends = self.link(0, self.last), self.link(self.end, self.end + 1)
        return (
            f'<figure class="circuit" data-parts="{escape(name)}"><figcaption>{caption}{chained}: '
            '<span class="value">values</span> above the arrows, <span class="gradient">gradients</span> below'
            f'</figcaption><div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
            f"{draw_circuit(circuit, self.link_of, ends)}</div></figure>"
        )

    def link_of(self, node: Node) -> str:
        """Write a node's link to its step, and which parts it runs."""
        pair = node.pair
        parts = f' data-runs="{escape("|".join(self.run_by(pair)))}"'
        return self.link(self.forward[id(pair)], self.backward.get(id(pair))) + parts

    def link(self, forward: int, backward: int | None) -> str:
        """Write a link to a position, and the position of its mirror image."""
        return f'href="#e{self.index}-{forward}" data-forward="{forward}" data-backward="{backward or ""}"'

    def run_by(self, pair: Pair) -> list[str]:
        """List the parts whose steps come right before a step: what its line runs."""
        depth = len(pair.parts)
        before = reversed(self.pairs[: self.pairs.index(pair)])
        inner = takewhile(lambda one: len(one.parts) > depth and one.parts[:depth] == pair.parts, before)
        return list(dict.fromkeys(" / ".join(one.parts[: depth + 1]) for one in inner))

    def given(self) -> str:
        """Show what the pass was given, beside what comes back for it."""
        values = [*self.trace.inputs.items(), *self.trace.params.items()]
        back = (
            self.half(self.last, "gradients", "", self.figures(self.gradients())) if self.trace.backward_passes else ""
        )
        forward = self.half(0, "given", "", self.figures(values))
        return article("Inputs and parameters", "", forward + back)

    def gradients(self) -> Iterator[tuple[str, Any]]:
        """Go through the gradients of inputs and parameters."""
        back = self.trace.backward_passes[-1]
        for name, dx in zip(self.trace.inputs, as_tuple(back.dx), strict=True):
            if dx is not None:
                yield f"{name}.grad", dx
        for name in self.trace.params:
            found = [step for step in back.steps if names_gradient(step, name)]
            if found:
                yield f"{name}.grad", found[-1].value

    def result(self) -> str:
        """Show the output, beside the gradient that the way back begins with."""
        run = self.trace.run
        outputs = as_tuple(run.output)
        names = ["output"] if len(outputs) == 1 else [f"output[{i}]" for i in range(len(outputs))]
        values = [*zip(names, outputs, strict=True), *((f"attention {name}", a) for name, a in run.attention.items())]
        halves = self.half(self.end, "output", "", self.figures(values))
        if self.trace.backward_passes:
            given = as_tuple(self.trace.backward_passes[-1].dy)
            names = ["dy"] if len(given) == 1 else [f"dy[{i}]" for i in range(len(given))]
            halves += self.half(self.end + 1, "upstream", "", self.figures(zip(names, given, strict=True)), back=True)
        return article("Output", "", halves)

    def pair(self, pair: Pair) -> str:
        """Show a step beside its mirror image."""
        names = f"({pair.number})" if pair.forward else f"({pair.number}')"
        forward, backward = self.forward.get(id(pair)), self.backward.get(id(pair))
        halves = self.steps(pair.forward, forward, back=False) + self.steps(pair.backward, backward, back=True)
        title = " / ".join([*pair.parts, names])
        return article(title, " / ".join(pair.parts), halves)

    def steps(self, steps: list[Step], at: int | None, *, back: bool) -> str:
        """Show what a line computes, or say that there is none."""
        if at is None:
            missing = "No line of its own on the way back." if back else "A line of the way back alone."
            return f'<section class="half none"><p>{missing}</p></section>'
        tag = steps[0].tag
        equation = steps[0].equation
        body = "" if equation is None else f'<div class="equation scroll" tabindex="0">{to_mathml(equation)}</div>'
        for line, same in groupby(steps, lambda step: step.line):
            body += f'<pre class="code"><code>{escape(line)}</code></pre>'
            body += self.figures((step.name, step.value) for step in same)
        names = ", ".join(dict.fromkeys(step.name for step in steps))
        return self.half(at, tag, " / ".join(steps[0].parts), body, names, back=back)

    def half(self, at: int, title: str, parts: str, body: str, names: str = "", *, back: bool | None = None) -> str:
        """Write one side of a step."""
        back = at > self.end if back is None else back
        way = "backward" if back else "forward"
        return (
            f'<section class="half {way}" id="e{self.index}-{at}" data-at="{at}" data-parts="{escape(parts)}" '
            f'data-title="{escape(title)}" data-names="{escape(names)}">'
            f"<h4><span>{way}</span> {escape(f'{title} {without_parameters(names)}')}</h4>{body}</section>"
        )

    def figures(self, named: NamedValues) -> str:
        """Draw arrays."""
        return "".join(figure(name, value, self.positions) for name, value in named)


def without_parameters(names: str) -> str:
    """Leave out the gradients of parameters, which have long names."""
    return ", ".join(name for name in names.split(", ") if not name.endswith(".grad"))


def names_gradient(step: Step, name: str) -> bool:
    """Whether a step is the gradient of a parameter, by its name in the whole or in the part."""
    if not step.name.endswith(".grad"):
        return False
    short = step.name.removesuffix(".grad")
    return short == name or (bool(step.parts) and name in (f"{'.'.join(step.parts[i:])}.{short}" for i in (0, -1)))


def article(title: str, parts: str, halves: str) -> str:
    """Put the two sides of a step together."""
    return (
        f'<article class="pair" data-parts="{escape(parts)}"><h3>{escape(title)}</h3>'
        f'<div class="halves">{halves}</div></article>'
    )
