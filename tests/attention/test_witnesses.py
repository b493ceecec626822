"""Systems beside timm's and torchvision's: state dicts as they are, values, gradients."""

import contextlib
import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import (
    CBAM,
    BottleneckAttention,
    CoordinateAttention,
    EfficientChannelAttention,
    GlobalContext,
    HaloAttention,
    NonLocal,
    SelectiveKernel,
    SplitAttention,
    SqueezeExcitation,
)
from npattn.ops.elementwise import ACTIVATIONS
from tests.attention.witnesses import assert_witnessed, counterpart, draw, installed, is_attention
from tests.strategies import seeds

TIMM = {
    "legacy_seresnet18": ({}, 8),
    "seresnet50": ({}, 16),
    "efficientnet_b0": ({}, 16),
    "mobilenetv3_large_100": ({}, 8),
    "ghostnet_100": ({}, 7),
    "regnety_002": ({}, 13),
    "rexnet_100": ({}, 13),
    "eca_resnet33ts": ({}, 10),
    "ecaresnet50t": ({}, 16),
    "gcresnet33ts": ({}, 10),
    "gc_efficientnetv2_rw_t": ({}, 29),
    "resnet34": ({"block_args": {"attn_layer": "nl"}}, 16),
    "gcvit_xxtiny": ({}, 11),
    "sedarknet21": ({}, 7),
    "skresnet18": ({}, 8),
    "skresnet50": ({"output_stride": 8}, 16),
    "skresnext50_32x4d": ({}, 16),
    "botnet26t_256": ({}, 3),
    "halonet26t": ({}, 3),
    "resnest14d": ({}, 4),
    "resnest50d_4s2x40d": ({}, 16),
    "resnet18": ({"block_args": {"attn_layer": "cbam"}}, 8),
    "resnet26": ({"block_args": {"attn_layer": "coord"}}, 8),
}
"""Models by name, how they are made, and how many attention modules they have."""
TORCHVISION = {"mobilenet_v3_large": 8, "efficientnet_b0": 16, "regnet_y_400mf": 16}
OPTIONS = {
    "channels": st.sampled_from([1, 3, 8, 20]),
    "hidden": st.integers(1, 5),
    "bias": st.booleans(),
    "activation": st.sampled_from(list(ACTIVATIONS)),
    "gate": st.sampled_from(["sigmoid", "hard_sigmoid"]),
}
excitations = st.fixed_dictionaries(
    OPTIONS | {name: st.booleans() for name in ("batch_norm", "add_maxpool", "training")}
)
contexts = st.fixed_dictionaries(
    {name: OPTIONS[name] for name in ("channels", "activation", "gate")}
    | {
        "hidden": st.integers(3, 6),  # of one or two numbers layer norm leaves nothing to differentiate
        "fuse": st.sampled_from([("scale",), ("add",), ("scale", "add")]),
        "attention": st.booleans(),
    }
)
cbams = st.fixed_dictionaries(OPTIONS | {"kernel_size": st.sampled_from([1, 3, 7]), "training": st.booleans()})


def timm_layers():
    installed("timm")
    return importlib.import_module("timm.layers")


def timm_block(file, name):
    """A block that timm's layers have, but do not export."""
    timm_layers()
    return getattr(importlib.import_module(f"timm.layers.{file}"), name)


def attentions(model):
    """The attention modules of a model, by where they stand."""
    return {name: block for name, block in model.named_modules() if is_attention(block)}


def assert_all_witnessed(model, count):
    found = attentions(model)
    assert len(found) == count
    distinct = {}
    for name, block in found.items():  # those that differ in nothing but their numbers stand for one another
        width = eca_channels(block)
        distinct.setdefault(str(counterpart(block, width)), (name, block, width))
    for name, block, width in distinct.values():
        draw(block)
        assert_witnessed(counterpart(block, width), block, model.state_dict(), f"{name}.")


def eca_channels(block):
    """A number of channels for what is made for any."""
    return 12 if type(block).__name__ == "EcaModule" else None


@pytest.mark.parametrize("name", TIMM)
def test_every_attention_of_timms_models_loads_and_gives_its_values_and_gradients(name):
    timm, torch = installed("timm"), importlib.import_module("torch")
    options, count = TIMM[name]
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    assert_all_witnessed(model, count)


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_attention_of_torchvisions_models_loads_and_gives_its_values_and_gradients(name):
    models, torch = installed("torchvision").models, importlib.import_module("torch")
    with contextlib.nullcontext() if name.startswith("regnet") else torch.device("meta"):
        model = getattr(models, name)(num_classes=2)
    assert_all_witnessed(model, TORCHVISION[name])


@given(excitations, seeds)
@settings(max_examples=20)
def test_squeeze_and_excitation_is_timms(options, seed):
    block = timm_layers().SEModule(
        options["channels"],
        rd_channels=options["hidden"],
        bias=options["bias"],
        act_layer=options["activation"],
        gate_layer=options["gate"],
        norm_layer=importlib.import_module("torch").nn.BatchNorm2d if options["batch_norm"] else None,
        add_maxpool=options["add_maxpool"],
    )
    assert_witnessed(SqueezeExcitation(**options), draw(block, seed), block.state_dict(), seed=seed)


@pytest.mark.parametrize(("channels", "ratio", "reduction"), [(64, 1 / 16, 16), (48, 1 / 4, 4), (20, 1, 1)])
def test_timms_ratio_is_one_over_the_reduction_where_nothing_is_rounded(channels, ratio, reduction):
    block = timm_layers().SEModule(channels, ratio, rd_divisor=1)
    assert_witnessed(SqueezeExcitation(channels, reduction), draw(block), block.state_dict())


@given(st.sampled_from([1, 2, 8, 64, 300]), st.none() | st.sampled_from([3, 5, 9]), seeds)
@settings(max_examples=15)
def test_efficient_channel_attention_is_timms_with_three_taps_at_least(channels, kernel_size, seed):
    block = timm_layers().EcaModule(channels if kernel_size is None else None, kernel_size or 3)
    module = EfficientChannelAttention(channels, kernel_size or max(3, EfficientChannelAttention(channels).num_taps))
    assert_witnessed(module, draw(block, seed), block.state_dict(), seed=seed)


@given(cbams, seeds)
@settings(max_examples=20)
def test_cbam_and_each_of_its_gates_is_timms(options, seed):
    layers = timm_layers()
    block = importlib.import_module("timm.layers.cbam").CbamModule(
        options["channels"],
        rd_channels=options["hidden"],
        spatial_kernel_size=options["kernel_size"],
        act_layer=layers.get_act_layer(options["activation"]),
        gate_layer=options["gate"],
        mlp_bias=options["bias"],
    )
    module, state = CBAM(**options), draw(block, seed).state_dict()
    assert_witnessed(module, block, state, seed=seed)
    for part, gate in (("channel", module.channel_gate), ("spatial", module.spatial_gate)):
        block.zero_grad()
        assert_witnessed(gate, getattr(block, part), block.state_dict(), f"{part}.", seed=seed)


@given(st.sampled_from([1, 16, 288]), st.none() | st.integers(8, 12), st.booleans(), st.booleans(), seeds)
@settings(max_examples=10)
def test_coordinate_attention_is_timms(channels, hidden, bias, training, seed):
    module = CoordinateAttention(channels, training=training, hidden=hidden, bias=bias)
    block = timm_block("coord_attn", "CoordAttn")(channels, rd_channels=module.hidden_channels, bias=bias)
    assert_witnessed(module, draw(block, seed), block.state_dict(), seed=seed)


@pytest.mark.parametrize("channels", [1, 64, 287])
def test_timms_coordinate_attention_is_ours_by_default_without_biases(channels):
    block = timm_block("coord_attn", "CoordAttn")(channels)
    assert_witnessed(CoordinateAttention(channels, bias=False), draw(block), block.state_dict())


@given(contexts, seeds)
@settings(max_examples=20)
def test_global_context_is_timms(options, seed):
    layers = timm_layers()
    block = layers.GlobalContext(
        options["channels"],
        use_attn=options["attention"],
        fuse_add="add" in options["fuse"],
        fuse_scale="scale" in options["fuse"],
        rd_channels=options["hidden"],
        act_layer=layers.get_act_layer(options["activation"]),
        gate_layer=options["gate"],
    )
    module, state = GlobalContext(**options), draw(block, seed).state_dict()
    assert list(module.parameter_shapes()) == list(state)
    assert_witnessed(module, block, state, seed=seed)


@pytest.mark.parametrize("channels", [1, 20, 27, 64])
def test_timms_global_context_is_ours_by_default(channels):
    block = timm_layers().GlobalContext(channels)
    assert_witnessed(GlobalContext(channels), draw(block), block.state_dict())


@given(st.sampled_from([1, 3, 8, 20]), st.integers(1, 5), st.booleans(), st.booleans(), seeds)
@settings(max_examples=20)
def test_non_local_is_timms(channels, hidden, scaled, training, seed):
    timm_layers()
    block = importlib.import_module("timm.layers.non_local_attn").NonLocalAttn(channels, scaled, rd_channels=hidden)
    module = NonLocal(channels, hidden=hidden, scale=None if scaled else 1.0, training=training)
    state = draw(block, seed).state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    assert list(module.parameter_shapes() | module.buffer_shapes()) == names
    assert_witnessed(module, block, state, seed=seed)


@pytest.mark.parametrize("channels", [1, 32, 64, 100])
def test_timms_non_local_is_ours_by_default(channels):
    timm_layers()
    block = importlib.import_module("timm.layers.non_local_attn").NonLocalAttn(channels)
    assert_witnessed(NonLocal(channels), draw(block), block.state_dict())


selections = st.fixed_dictionaries(
    {
        "in_channels": st.sampled_from([12, 24]),
        "out_channels": st.sampled_from([6, 12]),
        "kernel_sizes": st.sampled_from([(3, 5), (3, 3), (3, 5, 7), (5, 3)]),
        "dilated": st.booleans(),
        "split_input": st.booleans(),
        "stride": st.sampled_from([1, 2]),
        "groups": st.sampled_from([1, 2]),
        "hidden": st.integers(1, 5),
        "activation": OPTIONS["activation"],
        "training": st.booleans(),
    }
)


@given(selections, seeds)
@settings(max_examples=20)
def test_selective_kernels_are_timms(options, seed):
    layers = timm_layers()
    block = layers.SelectiveKernel(
        options["in_channels"],
        options["out_channels"],
        list(options["kernel_sizes"]),
        stride=options["stride"],
        groups=options["groups"],
        rd_channels=options["hidden"],
        keep_3x3=options["dilated"],
        split_input=options["split_input"],
        act_layer=layers.get_act_layer(options["activation"]),
    )
    module, state = SelectiveKernel(**options), draw(block, seed).state_dict()
    assert_witnessed(module, block, state, seed=seed)


@pytest.mark.parametrize("channels", [8, 64, 24, 312])
def test_timms_selective_kernels_are_ours_by_default(channels):
    block = timm_layers().SelectiveKernel(channels)
    assert_witnessed(SelectiveKernel(channels), draw(block), block.state_dict())


mixtures = st.fixed_dictionaries(
    {
        "in_channels": st.sampled_from([12, 24]),
        "out_channels": st.sampled_from([6, 12]),
        "kernel_size": st.sampled_from([1, 3]),
        "stride": st.sampled_from([1, 2]),
        "groups": st.sampled_from([1, 2]),
        "radix": st.integers(1, 3),
        "hidden": st.sampled_from([2, 4]),
        "activation": OPTIONS["activation"],
        "batch_norm": st.booleans(),
        "bias": st.booleans(),
        "training": st.booleans(),
    }
)


@given(mixtures, seeds)
@settings(max_examples=20)
def test_split_attention_is_timms(options, seed):
    layers, torch = timm_layers(), importlib.import_module("torch")
    block = layers.SplitAttn(
        options["in_channels"],
        options["out_channels"],
        options["kernel_size"],
        stride=options["stride"],
        groups=options["groups"],
        bias=options["bias"],
        radix=options["radix"],
        rd_channels=options["hidden"],
        act_layer=layers.get_act_layer(options["activation"]),
        norm_layer=torch.nn.BatchNorm2d if options["batch_norm"] else None,
    )
    module, state = SplitAttention(**options), draw(block, seed).state_dict()
    assert_witnessed(module, block, state, seed=seed)


@pytest.mark.parametrize("channels", [8, 64, 24, 312])
def test_timms_split_attention_is_ours_by_default_but_for_the_norms(channels):
    block = timm_layers().SplitAttn(channels)
    assert_witnessed(SplitAttention(channels, batch_norm=False), draw(block), block.state_dict())


def shares_channels(options):
    """Whether the heads can share the channels of the output."""
    return (options["out_channels"] or options["channels"]) % options["heads"] == 0


looks = st.fixed_dictionaries(
    {
        "channels": st.sampled_from([3, 8, 20]),
        "feat_size": st.tuples(st.integers(2, 5), st.integers(2, 5)),
        "out_channels": st.sampled_from([None, 12]),
        "stride": st.sampled_from([1, 2]),
        "heads": st.sampled_from([1, 2, 4]),
        "head_dim": st.sampled_from([None, 3]),
        "qk_ratio": st.sampled_from([0.5, 1.0, 2.0]),
        "bias": st.booleans(),
        "scale_pos_embed": st.booleans(),
    }
)


@given(looks.filter(shares_channels), seeds)
@settings(max_examples=25)
def test_bottleneck_attention_is_timms(options, seed):
    given = {"dim": "channels", "dim_out": "out_channels", "num_heads": "heads", "dim_head": "head_dim"}
    given |= {"qkv_bias": "bias"} | {name: name for name in ("feat_size", "stride", "qk_ratio", "scale_pos_embed")}
    block = timm_block("bottleneck_attn", "BottleneckAttn")(**{theirs: options[ours] for theirs, ours in given.items()})
    module, state = BottleneckAttention(**options), draw(block, seed).state_dict()
    assert list(module.parameter_shapes()) == list(state)
    assert_witnessed(module, block, state, seed=seed)


@pytest.mark.parametrize("channels", [8, 64, 24, 312])
def test_timms_bottleneck_attention_is_ours_by_default(channels):
    block = timm_block("bottleneck_attn", "BottleneckAttn")(channels, feat_size=(4, 5))
    assert_witnessed(BottleneckAttention(channels, (4, 5)), draw(block), block.state_dict())


local_looks = st.fixed_dictionaries(
    {
        "channels": st.sampled_from([3, 8, 20]),
        "out_channels": st.sampled_from([None, 12]),
        "stride": st.sampled_from([1, 2]),
        "heads": st.sampled_from([1, 2, 4]),
        "head_dim": st.sampled_from([None, 3]),
        "block_size": st.integers(2, 4),
        "halo_size": st.integers(0, 3),
        "qk_ratio": st.sampled_from([0.5, 1.0, 2.0]),
        "bias": st.booleans(),
        "avg_down": st.booleans(),
        "scale_pos_embed": st.booleans(),
    }
)


@given(
    local_looks.filter(lambda options: (options["out_channels"] or options["channels"]) % options["heads"] == 0), seeds
)
@settings(max_examples=20)
def test_halo_attention_is_timms(options, seed):
    given = {"dim": "channels", "dim_out": "out_channels", "num_heads": "heads", "dim_head": "head_dim"}
    given |= {"qkv_bias": "bias"} | {
        name: name for name in ("stride", "block_size", "halo_size", "qk_ratio", "avg_down", "scale_pos_embed")
    }
    block = timm_block("halo_attn", "HaloAttn")(**{theirs: options[ours] for theirs, ours in given.items()})
    module, state = HaloAttention(**options), draw(block, seed).state_dict()
    assert list(module.parameter_shapes()) == list(state)
    assert_witnessed(module, block, state, seed=seed)


@pytest.mark.parametrize("channels", [8, 64, 24])
def test_timms_halo_attention_is_ours_by_default(channels):
    block = timm_block("halo_attn", "HaloAttn")(channels)
    assert_witnessed(HaloAttention(channels), draw(block), block.state_dict())
