import numpy as np
import pytest
from hypothesis import given, settings

from npattn import AttentionGate
from npattn.oracle import generic_values
from tests.attention.parity import assert_starts_as, assert_state_dict_loads
from tests.strategies import attention_gate_modules, cases, seeds


def published(module):
    """The gate in PyTorch, with the names that most code has, on its inputs in the order that stands here."""
    torch = pytest.importorskip("torch")

    def projection(outputs, inputs, size=1, *, bias=True):
        conv = torch.nn.Conv2d(inputs, outputs, size, stride=size, bias=bias)
        return torch.nn.Sequential(conv, *([torch.nn.BatchNorm2d(outputs)] if module.batch_norm else []))

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            (hidden, gating, _), (_, channels, size), _ = module.projections.values()
            self.W_g = projection(hidden, gating)
            self.W_x = projection(hidden, channels, size, bias=module.batch_norm)
            self.psi = projection(1, hidden)

        def forward(self, x, g):
            gates = torch.sigmoid(self.psi(torch.relu(self.W_g(g) + self.W_x(x))))
            if module.stride > 1:
                gates = torch.nn.functional.interpolate(gates, x.shape[2:], mode="bilinear", align_corners=False)
            return x * gates

    return Reference().train(module.training)


@given(cases(attention_gate_modules() | attention_gate_modules(training=True)), seeds)
@settings(max_examples=20)
def test_output_gradients_and_running_statistics_agree_with_pytorch(case, seed):
    torch = pytest.importorskip("torch")
    module, params, inputs = case
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape)
    reference = published(module).double()
    initial = reference.state_dict()
    reference.load_state_dict({name: torch.as_tensor(params.get(name, initial[name])) for name in initial})
    leaves = [torch.tensor(map, requires_grad=True) for map in inputs.values()]
    expected = reference(*leaves)
    expected.backward(torch.tensor(dy))
    run = module(params, *inputs.values())
    (dx, dg), grads = run.backward(dy)
    assert list(grads) == [name for name, _ in reference.named_parameters()]
    pairs = {"output": (run.output, expected), "x": (dx, leaves[0].grad), "g": (dg, leaves[1].grad)}
    pairs |= {name: (grads[name], parameter.grad) for name, parameter in reference.named_parameters()}
    pairs |= {name: (run.buffers[name], buffer) for name, buffer in reference.named_buffers() if name in run.buffers}
    assert len(run.buffers) == (6 if module.training else 0)
    smallest = max(np.abs(gradient).max() for gradient in (dx, dg, *grads.values()))  # biases before a norm have none
    for name, (ours, tensor) in pairs.items():
        theirs = tensor.detach().numpy()
        atol = 1e-11 * max(np.abs(theirs).max(), smallest)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "batch_norm": False}, {"gating_channels": 5, "hidden": 3, "stride": 3}]
)
def test_a_published_state_dict_loads_unchanged(options):
    module = AttentionGate(channels=12, **options)
    inputs = generic_values(module, height=6, width=6, dtype="float32")[1]
    assert_state_dict_loads(module, published(module).eval(), list(inputs.values()))


def test_names_of_monai_and_of_the_authors_are_read():
    module = AttentionGate(channels=6, gating_channels=4)
    params = module.init(seed=1)
    monai = {name.replace(".0.", ".0.conv."): value for name, value in params.items()}
    plain = AttentionGate(channels=6, gating_channels=4, stride=2, batch_norm=False)
    own = plain.init(seed=1)
    authors = {
        "theta.weight": own["W_x.0.weight"],
        "phi.weight": own["W_g.0.weight"],
        "phi.bias": own["W_g.0.bias"],
        "psi.weight": own["psi.0.weight"],
        "psi.bias": own["psi.0.bias"],
    }
    for one, names, expected in ((module, monai, params), (plain, authors, own)):
        loaded = one.from_state_dict({f"block.{name}": value for name, value in names.items()}, prefix="block.")
        assert list(loaded) == list(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(loaded[name], value)


def test_training_starts_from_the_values_that_pytorch_draws():
    assert_starts_as(AttentionGate(channels=96, gating_channels=80), published)
    assert_starts_as(AttentionGate(channels=96, stride=2, batch_norm=False), published)


@given(cases(attention_gate_modules()))
@settings(max_examples=20)
def test_one_gate_serves_all_channels_of_a_position(case):
    module, params, inputs = case
    run = module(params, *inputs.values())
    gates = run.attention["additive"]
    assert gates.shape == (len(inputs["x"]), 1, *inputs["x"].shape[2:])
    assert ((gates >= 0) & (gates <= 1)).all()
    np.testing.assert_allclose(run.output, gates * inputs["x"], rtol=1e-13)


@given(cases(attention_gate_modules()), seeds)
@settings(max_examples=20)
def test_the_gating_map_acts_through_the_gates_alone_and_on_its_own_square(case, seed):
    module, params, inputs = case
    x, g = inputs.values()
    random = np.random.RandomState(seed)
    row, column = (random.randint(size) for size in g.shape[2:])
    moved = g.copy()
    moved[:, :, row, column] += 5
    before, after = (module(params, x, each).attention["additive"] for each in (g, moved))
    changed = np.nonzero((before != after).any(axis=(0, 1)))
    for places, at, fine, coarse in zip(changed, (row, column), x.shape[2:], g.shape[2:], strict=True):
        read = np.clip((places + 0.5) * coarse / fine - 0.5, 0, coarse - 1)
        assert (np.abs(read - at) < (0.5 if module.stride == 1 else 1)).all()


def test_rows_and_columns_that_no_kernel_reads_have_the_gates_gradient_alone():
    module = AttentionGate(channels=3, hidden=4, stride=3)
    params, inputs = generic_values(module, batch=2, height=8, width=7)
    run = module(params, *inputs.values())
    dy = np.random.RandomState(0).standard_normal(run.output.shape)
    (dx, _), _ = run.backward(dy)
    through_gate = dx == dy * run.attention["additive"]
    assert through_gate[:, :, 6:].all()
    assert through_gate[:, :, :, 6:].all()
    assert not through_gate[:, :, :6, :6].all(axis=(0, 1)).any()


def test_a_map_whose_projection_adds_nothing_is_gated_by_the_other_alone():
    module = AttentionGate(channels=4, gating_channels=6)
    params, inputs = generic_values(module)
    blind = params | {name: np.zeros_like(params[name]) for name in ("W_x.0.weight", "W_x.1.weight")}
    first, second = (module(blind, x, inputs["g"]) for x in (inputs["x"], -3 * inputs["x"]))
    np.testing.assert_array_equal(first.attention["additive"], second.attention["additive"])
    (dx, _), grads = first.backward(np.ones_like(first.output))
    np.testing.assert_array_equal(dx, np.broadcast_to(first.attention["additive"], dx.shape))
    assert not grads["W_x.0.weight"].any()


def test_half_of_the_maps_channels_are_inside_and_at_least_one():
    for channels, hidden in ((12, 6), (5, 2), (1, 1)):
        assert AttentionGate(channels, 7).parameter_shapes()["W_g.0.weight"] == (hidden, 7, 1, 1)


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ({}, [(2, 4, 6, 5), (2, 3, 6, 5)], "g has shape (2, 3, 6, 5); expected (2, 4, 6, 5)"),
        ({"stride": 2}, [(2, 4, 6, 5), (2, 4, 6, 5)], "g has shape (2, 4, 6, 5); expected (2, 4, 3, 2)"),
        ({"stride": 3}, [(2, 4, 2, 5), (2, 4, 1, 1)], "x has shape (2, 4, 2, 5); expected at least 3 × 3 positions"),
        (
            {"stride": 2, "training": True},
            [(1, 4, 3, 3), (1, 4, 1, 1)],
            "g has shape (1, 4, 1, 1); expected at least two values in each channel",
        ),
    ],
)
def test_maps_that_do_not_go_together_are_refused(options, shapes, message):
    module = AttentionGate(channels=4, **options)
    with pytest.raises(ValueError, match="expected") as caught:
        module(module.init(), *map(np.ones, shapes))
    assert str(caught.value).startswith(f"{module}: {message}")


def test_without_norms_a_single_position_is_trained_on():
    module = AttentionGate(channels=4, batch_norm=False, training=True)
    run = module(module.init(), np.ones((1, 4, 1, 1)), np.ones((1, 4, 1, 1)))
    assert run.buffers == {}
