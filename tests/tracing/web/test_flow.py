"""What flows into which line: the wires of circuits."""

import re

import numpy as np

import npattn
from npattn.cli.photo import photo_values
from npattn.tracing import trace
from npattn.tracing.source import Text
from npattn.tracing.web.circuit import circuits_of
from npattn.tracing.web.flow import flow_of
from npattn.tracing.web.pairs import pairs_of
from npattn.tracing.web.wiring import draw_circuit
from tests.naming import for_each
from tests.strategies import SYSTEMS


def traced(module):
    params, inputs = photo_values(module, (4, 6), seed=0)
    steps = trace(module, params, *inputs.values())
    dy = steps.run.output
    steps.backward(dy)
    return steps


def circuits(module):
    steps = traced(module)
    return {circuit.parts: circuit for circuit in circuits_of(steps, pairs_of(steps))}


def wires(circuit):
    """What each node reads, and what comes back: (n): name from (m), gradient."""
    tags = {None: "", -1: "parameter", **{i: f"({node.pair.number})" for i, node in enumerate(circuit.nodes)}}
    return {
        f"({node.pair.number})": [
            f"{port.name} {tags[port.source]} {port.gradient_name}".strip() for port in node.ports
        ]
        for node in circuit.nodes
    }


def test_a_gate_reads_the_map_and_its_weights():
    [circuit] = circuits(npattn.EfficientChannelAttention.example()).values()
    assert wires(circuit) == {
        "(1)": ["x  dx"],
        "(2)": ["p (1) dp", "conv.weight parameter conv.weight.grad"],
        "(3)": ["z (2) dz"],
        "(4)": ["x  dx", "a (3) da"],
    }
    assert [(port.name, port.source, port.gradient_name) for port in circuit.outputs] == [("y", 3, "dy")]


def test_sizes_are_no_wires_and_lines_without_a_tag_hand_on_what_they_read():
    circuit = circuits(npattn.CBAM.example())["ChannelGate",]
    found = wires(circuit)
    assert found["(2)"][0].startswith("pooled (1)")  # through np.concatenate
    assert found["(5)"] == ["u (4) du"]  # which reads batch and channels of x too
    attention = circuits(npattn.ScaledDotProductAttention.example())[()]
    assert wires(attention)["(3)"] == ["query  dq", "k (1) dk", "v (2) dv"]  # of key it reads the length


def test_arguments_are_taken_apart():
    circuit = circuits(npattn.Residual.example())[()]
    assert wires(circuit) == {"(1)": ["x  gradients"], "(2)": ["x  dx_skip", "run (1) df"]}
    assert "x" in circuit.inputs


def test_a_value_without_a_gradient_takes_no_other_ones():
    circuit = circuits(npattn.HardAttention.example())[()]
    assert wires(circuit)["(3)"] == ["s (1)", "noise"]  # (3') is the gradient of a, not of these


@for_each("system", SYSTEMS)
def test_every_circuit_is_read_from_the_text_and_every_node_is_fed(system):
    steps = traced(system.example())
    for circuit in circuits_of(steps, pairs_of(steps)):
        assert not circuit.chained, circuit.parts
        assert all(node.ports for node in circuit.nodes), circuit.parts
        assert circuit.outputs, circuit.parts
        read = {port.source for node in circuit.nodes for port in node.ports} | {p.source for p in circuit.outputs}
        unread = [node.pair.number for i, node in enumerate(circuit.nodes) if i not in read]
        assert unread == (["2"] if system.key == "hard" else []), circuit.parts  # whose softmax serves the way back
        for node in circuit.nodes:
            for port in node.ports:
                if port.gradient is not None and port.value is not None:
                    assert port.gradient.size == port.value.size, (circuit.parts, node.pair.number, port.name)


def test_of_what_is_read_for_its_size_alone_nothing_flows():
    text = Text("def f(x, m):\n    n = m.shape[0] + len(m)\n    y = x * n  # (1)\n    return y\n")
    x = np.ones(2)
    flow = flow_of(text, text.tree.body[0], {("(1)", "y = x * n")}, {"x": x, "m": x})
    assert [[wire.name for wire in wires] for wires in flow.wires] == [["x"]]
    assert [[wire.name for wire in wires] for wires in flow.results] == [["y"]]


def test_a_node_is_named_by_what_its_line_calls_out_of_a_table_too():
    [circuit] = circuits(npattn.SqueezeExcitation.example()).values()
    labels = [node.label for node in circuit.nodes]
    assert labels == ["global_average_pool", "linear", "relu", "linear", "sigmoid", "gate"]


@for_each("key", npattn.CATALOGUE)
def test_every_node_has_room_for_its_name(key):
    for circuit in circuits(npattn.CATALOGUE[key].example()).values():
        drawn = draw_circuit(circuit, lambda node: "", ("", ""))
        assert "…" not in re.sub('<text class="(?:value|gradient)".*?</text>', "", drawn)
