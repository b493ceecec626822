import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import GatherExcite, SqueezeExcitation
from npattn.ops.elementwise import ACTIVATIONS
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in, assert_starts_as, assert_state_dict_loads, in_pytorch
from tests.attention.witnesses import assert_witnessed, draw, installed
from tests.strategies import cases, ge_modules, seeds


def published(module):
    """The module in PyTorch, with timm's names."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Conv2d(module.channels, module.hidden_channels, 1)
            self.fc2 = nn.Conv2d(module.hidden_channels, module.channels, 1)

        def forward(self, p):
            return self.fc2(in_pytorch(module.activation)(self.fc1(p)))

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            if module.extra_params:
                self.gather = nn.Sequential()
                side = 3 if module.extent else module.feat_size
                for i in range(1, module.num_kernels + 1):
                    padding = [(n - 1) // 2 for n in np.broadcast_to(side, 2)]
                    options = {"stride": 2 if module.extent else 1, "padding": padding}
                    kernel = nn.Conv2d(
                        module.channels, module.channels, side, groups=module.channels, bias=False, **options
                    )
                    self.gather.add_module(f"conv{i}", kernel)
                    if module.batch_norm:
                        self.gather.add_module(f"norm{i}", nn.BatchNorm2d(module.channels))
                    if i < module.num_kernels:
                        self.gather.add_module(f"act{i}", Activation())
            if module.mlp:
                self.mlp = Layers()

        def forward(self, x):
            extent = module.extent
            if module.extra_params:
                p = self.gather(x)
            elif extent:
                p = nn.functional.avg_pool2d(x, 2 * extent - 1, extent, extent - 1, count_include_pad=False)
            else:
                p = x.mean((2, 3), keepdim=True)
            z = self.mlp(p) if module.mlp else p
            return x * in_pytorch(module.gate)(nn.functional.interpolate(z, x.shape[2:]))

    class Activation(nn.Module):
        def forward(self, x):
            return in_pytorch(module.activation)(x)

    return Reference().train(module.training)


@given(cases(ge_modules() | ge_modules(training=True)), seeds)
@settings(max_examples=40)
def test_output_gradients_and_running_statistics_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed, floor=1e-2)


OPTIONS = {
    "extent": st.sampled_from([0, 2, 4, 6]),
    "extra_params": st.booleans(),
    "feat_size": st.integers(1, 5) | st.tuples(st.integers(1, 5), st.integers(1, 5)),
    "mlp": st.booleans(),
    "batch_norm": st.booleans(),
    "activation": st.sampled_from(list(ACTIVATIONS)),
    "gate": st.sampled_from(["sigmoid", "hard_sigmoid"]),
    "training": st.booleans(),
}


@given(st.fixed_dictionaries(OPTIONS), seeds)
@settings(max_examples=20)
def test_gather_excite_is_timms(options, seed):
    """Layers are put in place by hand where the installed timm's own constructor can't (1.0.31 stops at them)."""
    installed("timm")
    layers, torch = importlib.import_module("timm.layers"), importlib.import_module("torch")
    extent, act = options["extent"], layers.get_act_layer(options["activation"])
    module = GatherExcite(6, hidden=4, **options)
    block = layers.GatherExcite(6, extent=extent, use_mlp=False, act_layer=act, gate_layer=options["gate"])
    if options["extra_params"]:
        block.gather = torch.nn.Sequential()
        for i in range(1, (int(math.log2(extent)) if extent else 1) + 1):
            size = {"kernel_size": 3, "stride": 2} if extent else {"kernel_size": options["feat_size"]}
            kernel = layers.create_conv2d(6, 6, depthwise=True, **size)
            block.gather.add_module(f"conv{i}", kernel)
            if options["batch_norm"]:
                block.gather.add_module(f"norm{i}", torch.nn.BatchNorm2d(6))
            if i < module.num_kernels:
                block.gather.add_module(f"act{i}", act(inplace=True))
    if options["mlp"]:
        block.mlp = layers.ConvMlp(6, 4, act_layer=act)
    assert_witnessed(module, draw(block, seed), block.state_dict(), seed=seed)


def test_the_hidden_layer_has_as_many_channels_as_timms():
    installed("timm")
    helpers = importlib.import_module("timm.layers.helpers")
    for channels in range(1, 100):
        hidden = helpers.make_divisible(channels / 16, 1, round_limit=0.0)  # as its constructor does
        assert GatherExcite(channels).hidden_channels == hidden


def test_a_published_state_dict_loads_unchanged():
    for options in ({"extent": 2}, {"extent": 4, "extra_params": True}, {"feat_size": 5, "extra_params": True}):
        module = GatherExcite(channels=12, reduction=4, **options)
        assert_state_dict_loads(module, published(module).eval())


def test_training_starts_from_the_values_that_pytorch_draws():
    assert_starts_as(GatherExcite(channels=96, reduction=4, extent=4, extra_params=True), published)


@given(st.integers(1, 9), st.integers(1, 5), seeds)
@settings(max_examples=20)
def test_with_the_whole_map_averaged_it_is_squeeze_and_excitation(channels, hidden, seed):
    ours, se = GatherExcite(channels, hidden=hidden), SqueezeExcitation(channels, hidden=hidden)
    params, inputs = generic_values(ours, seed=seed)
    theirs = {name.removeprefix("mlp."): value for name, value in params.items()}
    np.testing.assert_allclose(ours(params, inputs["x"]).output, se(theirs, inputs["x"]).output, rtol=1e-12)


def test_an_extent_beyond_the_map_gathers_all_of_it_from_the_first_position():
    wide, whole = GatherExcite(5, extent=20, hidden=3), GatherExcite(5, hidden=3)
    params, inputs = generic_values(wide, height=4, width=6)
    np.testing.assert_allclose(wide(params, inputs["x"]).output, whole(params, inputs["x"]).output, rtol=1e-13)


def test_positions_of_a_block_share_their_gate():
    module = GatherExcite(4, extent=2, hidden=3)
    params, inputs = generic_values(module, height=6, width=8)
    run = module(params, inputs["x"])
    gates = run.output / inputs["x"]
    np.testing.assert_allclose(gates, np.kron(run.attention["blocks"], np.ones((1, 1, 2, 2))), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extent": 3}, "GatherExcite: extent=3; expected an even number: 2 or 4"),
        ({"extra_params": True}, "GatherExcite: feat_size=None; expected the side of the kernel"),
        ({"extra_params": True, "feat_size": (4, 0)}, "GatherExcite: feat_size[1]=0; expected an integer of at least"),
    ],
)
def test_extents_that_can_not_be_gathered_are_refused(options, message):
    with pytest.raises(ValueError) as caught:
        GatherExcite(8, **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("size", "options"), [((3, 4), {"extent": 4}), ((4, 3), {"extent": 6}), ((2, 1), {"feat_size": (2, 3)})]
)
def test_in_training_what_is_gathered_needs_a_variance(size, options):
    module = GatherExcite(4, **options, extra_params=True, training=True)
    with pytest.raises(ValueError, match="expected at least two values in each channel"):
        module(module.init(), np.ones((1, 4, *size)))
    module(module.init(), np.ones((2, 4, *size)))


def test_an_even_kernel_needs_two_rows():
    module = GatherExcite(4, feat_size=(4, 3), extra_params=True)
    assert module(module.init(), np.ones((1, 4, 2, 1))).attention["blocks"].shape == (1, 4, 1, 1)
    with pytest.raises(ValueError, match="expected at least 2 × 1 positions, as a kernel with an even side"):
        module(module.init(), np.ones((1, 4, 1, 3)))
