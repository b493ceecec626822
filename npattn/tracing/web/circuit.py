"""The circuit of a system, or of a part of it: its lines as nodes, and on every wire the value and its gradient."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from npattn.module import as_tuple
from npattn.tracing.source import text_of
from npattn.tracing.steps import is_array
from npattn.tracing.traces import Trace
from npattn.tracing.web.flow import Flow, Wire, flow_of, holds_array
from npattn.tracing.web.pairs import Pair
from npattn.tracing.web.ports import Port, with_gradients

__all__ = ["Circuit", "Node", "circuits_of"]

MAX_PARAMETERS = 3
"""Of a part that has more the circuit shows none: its own does."""


@dataclass(eq=False)
class Node:
    """A step, or several of one line.

    Attributes
    ----------
    pair : Pair
    label : str
        The primitive, layer or system at work.
    ports : list of Port
        What it reads.
    """

    pair: Pair
    label: str
    ports: list[Port] = field(default_factory=list)


@dataclass(eq=False)
class Circuit:
    """The circuit of one function.

    Attributes
    ----------
    parts : tuple of str
    inputs : dict
        Arguments that hold arrays, by name.
    nodes : list of Node
    outputs : list of Port
    chained : bool
        Whether nothing is known but the order of the steps.
    """

    parts: tuple[str, ...]
    inputs: dict[str, Any]
    nodes: list[Node]
    outputs: list[Port]
    chained: bool = False


def circuits_of(trace: Trace, pairs: list[Pair]) -> list[Circuit]:
    """Draw up the circuit of the whole, then that of each part."""
    scopes: dict[tuple[str, ...], list[Pair]] = {}
    for pair in pairs:
        if pair.forward:
            scopes.setdefault(pair.parts, []).append(pair)
    return [circuit_of(trace, scopes[parts]) for parts in sorted(scopes, key=len)]


def circuit_of(trace: Trace, pairs: list[Pair]) -> Circuit:
    """Draw up one circuit."""
    parts = pairs[0].parts
    flow = find_flow(trace, pairs)
    if flow is None:
        return chain(trace, parts, pairs)
    places = {(step.tag, step.line): i for i, pair in enumerate(pairs) for step in pair.forward}
    order = [places[node.tag, node.line] for node in flow.nodes]  # nodes of the flow to pairs
    nodes = [Node(pair, label_of(trace, pair)) for pair in pairs]
    for i, wires in zip(order, flow.wires, strict=True):
        nodes[i].ports = [port_of(wire, order, pairs, flow.arguments) for wire in wires]
    known = {*flow.arguments, *(step.name for pair in pairs for step in pair.forward)}
    for node in nodes:
        node.ports = with_gradients(node.ports, node.pair.backward, known)
        node.ports += parameters_of(trace, node.pair)
    drop_detours(nodes)
    count = len(as_tuple(trace.run.output)) if not parts else 1
    result = next((wires for wires in flow.results if len(wires) == count), (*flow.results, ())[0])
    ports = [port_of(wire, order, pairs, flow.arguments) for wire in result]
    outputs = [port for port in ports if port.value is not None] or ports  # running statistics may be none
    inputs = {name: only(value) for name, value in flow.arguments.items()}
    return Circuit(parts, inputs, nodes, with_upstream(trace, parts, outputs))


def find_flow(trace: Trace, pairs: list[Pair]) -> Flow | None:
    """Follow values through the function that the steps are lines of; None where some are not, or ran repeatedly."""
    function, arguments = trace.scopes.get(pairs[0].parts, (None, {}))
    text = None if function is None else text_of(function)
    found = None if text is None or function is None else text.find(function)
    if text is None or found is None:
        return None
    lines = [(step.tag, step.line) for pair in pairs for step in pair.forward]
    flow = flow_of(text, found[0], {*lines}, arguments)
    known = [(node.tag, node.line) for node in flow.nodes]
    once = len({*lines}) == len(known) == len(pairs)
    return flow if once and {*known} == {*lines} else None


def only(value: Any) -> Any:
    """Return the array of a sequence of one; of several None, since no one value is theirs."""
    if is_array(value):
        return value
    return value[0] if len(value) == 1 else None


def chain(trace: Trace, parts: tuple[str, ...], pairs: list[Pair]) -> Circuit:
    """Put the steps one below the other, each fed by the one before."""
    _, arguments = trace.scopes.get(parts, (None, {}))
    given = arguments.items() if parts else trace.inputs.items()
    inputs = {name: only(value) for name, value in given if holds_array(value)}
    nodes: list[Node] = []
    for pair in pairs:
        node = Node(pair, label_of(trace, pair))
        if nodes:
            before = nodes[-1].pair.forward[-1]
            node.ports = [Port(before.name, before.value, source=len(nodes) - 1)]
        else:
            node.ports = [Port(name, value) for name, value in inputs.items()]
        node.ports = with_gradients(node.ports, pair.backward, set())
        node.ports += parameters_of(trace, pair)
        nodes.append(node)
    last = nodes[-1].pair.forward[-1]
    outputs = [Port(last.name, last.value, source=len(nodes) - 1)]
    return Circuit(parts, inputs, nodes, with_upstream(trace, parts, outputs), chained=True)


def label_of(trace: Trace, pair: Pair) -> str:
    """Name what a line calls, or the part of the system that it runs; where it calls nothing, say what it computes."""
    line = pair.forward[0].line
    named = re.search(r'\bname="([^"]+)"|\bsubmodule\(.*?"([^"]+)"', line)
    if named:
        return named[1] or named[2]
    try:
        statement: Any = ast.parse(line).body[0]
    except SyntaxError:  # the head of a block
        return line
    value = getattr(statement, "value", None)
    if isinstance(value, (ast.ListComp, ast.GeneratorExp)):
        value = value.elt
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Subscript):
        return chosen(trace, pair, value.func.slice)
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2]
    return line if value is None else ast.unparse(value)


def chosen(trace: Trace, pair: Pair, key: ast.expr) -> str:
    """Name what a line takes from a table by a hyperparameter, ``ACTIVATIONS[self.activation]``: its value."""
    _, arguments = trace.scopes.get(pair.parts, (None, {}))
    if isinstance(key, ast.Attribute) and isinstance(key.value, ast.Name):
        return str(getattr(arguments.get(key.value.id), key.attr, key.attr))
    return ast.unparse(key)


def port_of(wire: Wire, order: list[int], pairs: list[Pair], arguments: Mapping[str, Any]) -> Port:
    """Find the value of a wire."""
    if wire.source is None:
        return Port(wire.name, only(arguments[wire.name]))
    node = order[wire.source]
    steps = pairs[node].forward
    exact = [step for step in steps if step.name == wire.name]
    entries = [step for step in steps if step.name.startswith(f"{wire.name}[")]
    one = exact[-1] if exact else entries[0] if len(entries) == 1 else None
    return Port(wire.name, None if one is None else one.value, source=node)


def parameters_of(trace: Trace, pair: Pair) -> list[Port]:
    """Find the parameters whose gradients a step computes."""
    grads = [step for step in pair.backward if step.name.endswith(".grad")]
    ports = []
    for step in grads:
        name = step.name.removesuffix(".grad")
        whole = parameter_named(trace, pair.parts, name)
        if whole is not None and trace.params[whole].shape == getattr(step.value, "shape", None):
            ports.append(Port(name, trace.params[whole], step.name, step.value, -1))
    return ports if len(ports) <= MAX_PARAMETERS and not any(holds_part(trace, pair)) else []


def holds_part(trace: Trace, pair: Pair) -> Iterator[bool]:
    """Say True for every part whose name begins that of a parameter of the step."""
    for parts in trace.scopes:
        if len(parts) > len(pair.parts) and parts[: len(pair.parts)] == pair.parts:
            prefix = f"{parts[len(pair.parts)]}."
            yield from (True for step in pair.backward if step.name.startswith(prefix))


def parameter_named(trace: Trace, parts: tuple[str, ...], name: str) -> str | None:
    """Find the parameter of the whole that has a name in a part."""
    ends = [f"{'.'.join(parts[i:])}.{name}" if parts[i:] else name for i in range(len(parts) + 1)]
    for end in ends:
        if end in trace.params:
            return end
    found = [whole for whole in trace.params if whole.endswith(f".{name}")]
    return found[0] if len(found) == 1 else None


def drop_detours(nodes: list[Node]) -> None:
    """Drop wires through which nothing comes back, where the same value arrives through another wire as well.

    What a line reads of a value may be its size alone, as a mask is made for so many keys.
    """
    for node in nodes:
        behind = {key for port in node.ports for key in upstream_of(port, nodes)}
        node.ports = [
            port for port in node.ports if port.gradient is not None or (port.source, port.name) not in behind
        ]


def upstream_of(port: Port, nodes: list[Node]) -> Iterator[tuple[int | None, str]]:
    """Go through all that a wire's value was made of."""
    if port.source is not None and port.source >= 0:
        for inner in nodes[port.source].ports:
            yield inner.source, inner.name
            yield from upstream_of(inner, nodes)


def with_upstream(trace: Trace, parts: tuple[str, ...], outputs: list[Port]) -> list[Port]:
    """Give the outputs of the whole the gradients that the way back begins with."""
    if parts or not trace.backward_passes:
        return outputs
    given = as_tuple(trace.backward_passes[-1].dy)
    names = ["dy"] if len(given) == 1 else [f"dy[{i}]" for i in range(len(given))]
    if len(given) != len(outputs):
        return outputs
    return [
        Port(port.name, port.value, name, dy, port.source) for port, name, dy in zip(outputs, names, given, strict=True)
    ]
