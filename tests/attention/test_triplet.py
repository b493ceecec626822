import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import CBAMSpatialGate, TripletAttention
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in, assert_starts_as, assert_state_dict_loads
from tests.attention.witnesses import draw
from tests.strategies import cases, seeds, triplet_modules

any_modules = triplet_modules() | triplet_modules(training=True)
several = st.integers(3, 5)  # images, so that batch norm has a variance to speak of


def published(module):
    """The authors' module in PyTorch, which turns the map, with their names."""
    torch = pytest.importorskip("torch")
    size = module.kernel_size

    class Convolution(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 1, size, padding=size // 2, bias=False)
            self.bn = torch.nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)

    class Gate(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = Convolution()

        def forward(self, x):
            pooled = torch.stack([x.max(dim=1)[0], x.mean(dim=1)], dim=1)
            return x * torch.sigmoid(self.conv.bn(self.conv.conv(pooled)))

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in module.gates:
                setattr(self, name, Gate())
            self.train(module.training)

        def forward(self, x):
            turns = {"cw": (0, 2, 1, 3), "hc": (0, 3, 2, 1), "hw": (0, 1, 2, 3)}  # each its own inverse
            gated = [getattr(self, name)(x.permute(turns[name])).permute(turns[name]) for name in module.gates]
            return sum(gated) / len(gated)

    return Reference()


@given(cases(any_modules, batch=several), seeds)
@settings(max_examples=50)
def test_output_gradients_and_statistics_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed, floor=0.01)


def test_a_published_state_dict_loads_unchanged():
    module = TripletAttention(channels=24)
    assert_state_dict_loads(module, draw(published(module)).float())


@pytest.mark.parametrize("spatial", [True, False])
def test_the_gates_names_in_the_networks_that_the_authors_trained_are_read(spatial):
    module = TripletAttention(channels=4, spatial=spatial)
    params, _ = generic_values(module, seed=0)
    older = {"cw": "ChannelGateH.spatial", "hc": "ChannelGateW.spatial", "hw": "SpatialGate.spatial"}
    given = {f"layer1.0.{older[name[:2]]}{name[len('cw.conv') :]}": value for name, value in params.items()}
    np.testing.assert_equal(module.from_state_dict(given, "layer1.0."), params)


def test_training_starts_where_pytorch_starts():
    assert_starts_as(TripletAttention(channels=8), published)


@given(cases(triplet_modules()))
def test_the_output_is_the_map_times_the_mean_of_its_gates(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    gates = sum(run.attention.values()) / len(run.attention)
    np.testing.assert_allclose(run.output, inputs["x"] * gates, rtol=1e-12)


@given(cases(any_modules, batch=several))
@settings(max_examples=25)
def test_exchanging_height_and_channels_exchanges_two_gates_and_turns_the_third(case):
    """The gate that keeps height and channels pools over columns: turned, it is one of the other map."""
    module, params, inputs = case
    x = inputs["x"]
    turned = TripletAttention(x.shape[2], True, module.kernel_size, module.training)
    if not module.spatial:
        return
    others = {name: params[name.replace("cw", "hw") if "cw" in name else name.replace("hw", "cw")] for name in params}
    flipped = {name: value.swapaxes(2, 3) if name == "hc.conv.conv.weight" else value for name, value in others.items()}
    expected = module(params, x).output.swapaxes(1, 2)
    np.testing.assert_allclose(turned(flipped, x.swapaxes(1, 2)).output, expected, rtol=1e-10, atol=1e-12)


@given(cases(triplet_modules().filter(lambda module: module.spatial)))
def test_the_third_gate_is_cbams_of_the_positions(case):
    module, params, inputs = case
    cbam = CBAMSpatialGate(module.channels, kernel_size=module.kernel_size)
    theirs = {name.replace("hw.conv.", "spatial."): value for name, value in params.items() if name.startswith("hw.")}
    gate = cbam(theirs, inputs["x"]).attention["spatial"]
    np.testing.assert_allclose(module(params, inputs["x"]).attention["hw"], gate, rtol=1e-13)


def test_the_number_of_parameters_does_not_depend_on_the_channels():
    sizes = [sum(map(np.size, TripletAttention(channels).init().values())) for channels in (1, 64, 2048)]
    assert len(set(sizes)) == 1


def test_in_training_a_batch_with_a_plane_of_one_number_is_refused():
    module = TripletAttention(channels=1, training=True)
    for shape in [(1, 1, 1, 5), (1, 1, 5, 1)]:
        with pytest.raises(ValueError, match="expected at least two values"):
            module(module.init(), np.ones(shape))
    module(module.init(), np.ones((1, 1, 2, 2)))


@pytest.mark.parametrize(("kernel_size", "message"), [(4, "expected an odd number"), (0, "at least 1")])
def test_even_kernels_are_refused(kernel_size, message):
    with pytest.raises(ValueError, match=f"TripletAttention: kernel_size={kernel_size}; .*{message}"):
        TripletAttention(8, kernel_size=kernel_size)


def test_every_gates_statistics_are_its_planes():
    module = TripletAttention(channels=3, kernel_size=1, training=True)
    params, inputs = generic_values(module, batch=2, height=4, width=5)
    run = module(params, inputs["x"])
    for name, axis in (("cw", 2), ("hc", 3), ("hw", 1)):
        weight = params[f"{name}.conv.conv.weight"].ravel()
        z = weight[0] * inputs["x"].max(axis=axis) + weight[1] * inputs["x"].mean(axis=axis)
        old, new = (values[f"{name}.conv.bn.running_mean"] for values in (params, run.buffers))
        np.testing.assert_allclose(new, 0.99 * old + 0.01 * z.mean(), rtol=1e-12)
