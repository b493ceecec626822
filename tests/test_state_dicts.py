import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import (
    CBAM,
    CBAMChannelGate,
    CBAMSpatialGate,
    CoordinateAttention,
    EfficientChannelAttention,
    HaloAttention,
    HardAttention,
    MultiHeadSelfAttention,
    NonLocal,
    PixelCorrelation,
    PositionAttention,
    Residual,
    SlidingWindowSegmentation,
    SplitAttention,
    SqueezeExcitation,
)
from npattn.oracle import generic_values
from npattn.state_dict_hints import conversion
from npattn.variations import declared
from tests.misfits import MISFITS
from tests.naming import for_each
from tests.strategies import NAMESPACE, modules

SE = SqueezeExcitation(64)
OTHERS = ("se_reduce.weight", "se_reduce.bias", "se_expand.weight", "se_expand.bias")
"""What some code calls the parameters of squeeze-and-excitation; these names are not known."""


def under_names(module, names):
    """A module's initial parameters, under other names."""
    return dict(zip(names, module.init().values(), strict=True))


def complaint(module, mapping, prefix=""):
    """What `from_state_dict` says, in one line."""
    with pytest.raises(ValueError, match=r".") as caught:
        module.from_state_dict(mapping, prefix)
    message = str(caught.value)
    assert message.startswith(f"{module}.from_state_dict: ")
    assert "\n" not in message
    return message


def follow(message, mapping):
    """Do with a state dict what a message says: rename and lay out anew."""
    renamed = dict(mapping)
    for old, new, layout in re.findall(
        r"(?:rename |, |renaming: )(\S+) to (\S+?)(?: \(with (\.[^ ]*?(?:\(.*?\))?)\))?(?=,| \()", message
    ):
        value = renamed.pop(old)
        renamed[new] = eval(f"value{layout}", {"value": value})
    return renamed


# Names


@pytest.mark.parametrize("reduction", [16, 1])  # the second weight has another shape, or the same
def test_names_of_another_library_are_told_by_shape_and_order(reduction):
    module = SqueezeExcitation(64, reduction)
    mapping = under_names(module, OTHERS)
    message = complaint(module, mapping)
    assert "unknown parameter 'se_reduce.weight'; did you mean 'fc1.weight'? " in message
    assert (
        "rename se_reduce.weight to fc1.weight, se_reduce.bias to fc1.bias, se_expand.weight to fc2.weight, "
        "se_expand.bias to fc2.bias (expected fc1.weight, fc1.bias, fc2.weight, fc2.bias)" in message
    )
    np.testing.assert_equal(module.from_state_dict(follow(message, mapping)), module.init())


def test_a_call_is_told_the_names_as_loading_is():
    with pytest.raises(ValueError, match=r"unknown parameter 'se_reduce.weight'; did you mean 'fc1.weight'\? rename"):
        SE(under_names(SE, OTHERS), np.ones((1, 64, 2, 2)))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 0, 1), (3, 1, 2, 0)])
@pytest.mark.parametrize("shape", [(48, 16), (48, 16, 1, 1)])
def test_a_fused_projection_is_told_by_its_shape_in_whatever_order(order, shape):
    module = MultiHeadSelfAttention(16, 2)
    names = ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")
    mapping = list(under_names(module, names).items())
    mapping = {
        name: value.reshape(shape) if name == "qkv.weight" else value for name, value in (mapping[i] for i in order)
    }
    message = complaint(module, mapping)
    for old, new in zip(names, module.init(), strict=True):
        assert f"{old} to {new}" in message
    assert ("qkv.weight to in_proj_weight (with .reshape(48, 16))" in message) == (len(shape) == 4)
    np.testing.assert_equal(module.from_state_dict(follow(message, mapping)), module.init())


def test_spelling_decides_between_equal_shapes_before_order_does():
    module = PositionAttention(64)
    names = [name.replace("_conv", "").replace("query", "k").replace("key", "query") for name in module.init()]
    names = [name.replace("k.", "key.") for name in names]  # keys stand where queries are expected
    message = complaint(module, under_names(module, names))
    for layer in ("query", "key", "value"):
        assert f"{layer}.weight to {layer}_conv.weight, {layer}.bias to {layer}_conv.bias" in message


@given(modules(), st.data())
def test_a_renaming_that_is_followed_loads(module, data):
    initial = module.init(generic=True)
    endings = [re.split(r"[._]", name)[-1].replace("mean", "running_mean") for name in initial]
    names = [f"part{i:02}.{end}" for i, end in enumerate(endings)]
    chosen = data.draw(st.sets(st.sampled_from(range(len(names))), min_size=1)) if names else set()
    mapping = {names[i] if i in chosen else name: value for i, (name, value) in enumerate(initial.items())}
    if mapping.keys() == initial.keys():
        return
    message = complaint(module, mapping)
    if " rename " in message:
        taken = module.from_state_dict(follow(message, mapping))
        assert {name: value.shape for name, value in taken.items()} == declared(module)
        if chosen == set(range(len(names))):  # all in order
            np.testing.assert_equal(taken, initial)
    else:
        assert len(chosen) == 1
        prefix = names[0].removesuffix(endings[0])
        assert "; did you mean " in message or f"; prefix='{prefix}' would fit" in message  # of one parameter alone


def test_one_unknown_name_is_told_all_that_fit_where_neither_order_nor_spelling_decides():
    module = CBAMSpatialGate(16)
    mapping = module.init()
    mapping["shift"] = mapping.pop("spatial.bn.running_mean")
    mapping.pop("spatial.bn.bias")
    message = complaint(module, mapping)
    assert (
        "unknown parameter 'shift'; did you mean 'spatial.bn.bias' or 'spatial.bn.running_mean'? (expected" in message
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [("score.weigth", "score.weight"), ("Score.weight", "score.weight"), ("scores.weight", "score.weight")],
)
def test_a_name_that_fits_by_spelling_alone_is_told_with_the_shape_that_is_expected(name, meant):
    mapping = {name: np.ones((3, 5)), "score.bias": np.ones(1)}
    message = complaint(HardAttention(32), mapping)
    assert f"unknown parameter {name!r}; did you mean {meant!r} of shape (1, 32, 1, 1)? (expected" in message


@pytest.mark.parametrize("name", ["conv1.weight", "epoch", "x"])
def test_a_name_like_no_other_is_told_none(name):
    message = complaint(SqueezeExcitation(8), SqueezeExcitation(8).init() | {name: np.ones((3, 5, 7))})
    assert f"unknown parameter {name!r} (expected fc1.weight, fc1.bias, fc2.weight, fc2.bias)" in message


# Published names


PUBLISHED = [
    (SE, ("conv_reduce.weight", "conv_reduce.bias", "conv_expand.weight", "conv_expand.bias")),
    (SqueezeExcitation(64, bias=False), ("fc.0.weight", "fc.2.weight")),
    (
        SqueezeExcitation(64, bias=False, batch_norm=True),
        ("fc.0.weight", "fc.1.weight", "fc.1.bias", "fc.3.weight", "fc.1.running_mean", "fc.1.running_var"),
    ),
    (CBAMChannelGate(64, bias=False), ("fc1.weight", "fc2.weight")),
    (
        CoordinateAttention(16, bias=False),
        (
            "conv1.weight",
            "bn1.weight",
            "bn1.bias",
            "conv2.weight",
            "conv3.weight",
            "bn1.running_mean",
            "bn1.running_var",
        ),
    ),
    (CBAM(8, spatial=False), ("channel.fc1.weight", "channel.fc1.bias", "channel.fc2.weight", "channel.fc2.bias")),
]


@pytest.mark.parametrize("prefix", ["", "blocks.0.se."])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("module", "names"), PUBLISHED, ids=lambda value: type(value).__name__)
def test_published_names_are_read_in_whatever_layout_has_the_same_order(module, names, prefix, flat):
    expected = module.init(3)
    given = dict(zip((prefix + name for name in names), expected.values(), strict=True))
    unit_axes = () if flat else (1, 1)
    given = {n: v.reshape(*v.shape[:2], *unit_axes) if v.ndim > 1 else v for n, v in given.items()}
    others = {"conv_stem.weight": np.ones(3)} if prefix else {}
    np.testing.assert_equal(module.from_state_dict(given | others, prefix), expected)


@pytest.mark.parametrize("prefix", ["", "inner.", "layer1.0.se.", "layer1.0.inner."])
def test_a_residual_connection_reads_its_inner_systems_published_names(prefix):
    module = Residual(Residual(SE))
    given = under_names(module, [prefix + name for name in PUBLISHED[0][1]])
    np.testing.assert_equal(module.from_state_dict(given, prefix.removesuffix("inner.")), module.init())
    gate = Residual(CBAMSpatialGate(16))
    assert gate.init()["inner.spatial.conv.weight"][0, 0].any()
    given = {prefix + name: value for name, value in timms_gate(gate).items()}
    np.testing.assert_equal(gate.from_state_dict(given, prefix.removesuffix("inner.")), gate.init())


def timms_gate(module):
    """A spatial gate's parameters under timm's names, the mean's plane of the kernel first."""
    of_norm = ("weight", "bias", "running_mean", "running_var")
    names = ["conv.conv.weight", *(f"conv.bn.{name}" for name in of_norm)]
    state = under_names(module, names)
    return state | {names[0]: state[names[0]][:, ::-1], "conv.bn.num_batches_tracked": np.array(3)}


def test_a_kernel_whose_planes_stand_in_the_opposite_order_is_turned_round():
    module = CBAMSpatialGate(16)
    assert module.init()["spatial.conv.weight"][0, 0].any()
    np.testing.assert_equal(module.from_state_dict(timms_gate(module)), module.init())


def test_other_hyperparameters_are_told_under_published_names_by_these():
    other = under_names(SqueezeExcitation(64, hidden=24), PUBLISHED[0][1])
    mapping = {f"se.{name}": value for name, value in other.items()}
    assert complaint(SE, mapping, "se.").endswith(
        "parameter 'se.conv_reduce.weight' has shape (24, 64, 1, 1); expected (4, 64, 1, 1); "
        "hidden=24 would fit: SqueezeExcitation(channels=64, hidden=24)"
    )
    mapping = {name: value for name, value in mapping.items() if name.endswith("weight")}
    assert "missing parameter 'se.conv_reduce.bias' of shape (4,); " in complaint(SE, mapping, "se.")


TIMMS_NON_LOCAL = ["t.weight", "t.bias", "p.weight", "p.bias", "g.weight", "g.bias", "z.weight", "z.bias"]
OF_NORM = ["weight", "bias", "running_mean", "running_var"]
NORMED = [
    (NonLocal(16), NonLocal(16, batch_norm=False), list(NonLocal(16).init())),
    (
        NonLocal(16),
        NonLocal(16, batch_norm=False),
        [*TIMMS_NON_LOCAL[:6], "W.0.weight", "W.0.bias", *[f"W.1.{name}" for name in OF_NORM]],
    ),
    (
        CBAM(16, bias=False),
        CBAM(16, bias=False, batch_norm=False),
        [
            "channel.fc1.weight",
            "channel.fc2.weight",
            "spatial.conv.conv.weight",
            *[f"spatial.conv.bn.{name}" for name in OF_NORM],
        ],
    ),
    (CBAMSpatialGate(16), CBAMSpatialGate(16, batch_norm=False), list(CBAMSpatialGate(16).init())),
    (SplitAttention(8), SplitAttention(8, batch_norm=False), list(SplitAttention(8).init())),
]
"""Systems, themselves without the norms, and the names of their arrays in a checkpoint."""


@pytest.mark.parametrize("prefix", ["", "layer1.0."])
@pytest.mark.parametrize(("module", "without", "names"), NORMED)
def test_a_checkpoint_with_batch_norms_counters_is_told_the_norm_that_is_lacking(module, without, names, prefix):
    mapping = {f"{prefix}{name}": value for name, value in under_names(module, names).items()}
    counted = [name.removesuffix("running_mean") for name in mapping if name.endswith("running_mean")]
    mapping = {f"{name}num_batches_tracked": np.array(3) for name in counted} | mapping
    message = complaint(without, mapping, prefix)
    assert "; batch_norm=True would fit: " in message
    assert re.search("unknown parameter '(.*?)'", message)[1] in mapping
    assert not re.search("unknown parameter '.*num_batches_tracked'", message)


def test_a_call_with_batch_norms_counters_is_told_the_norm_that_is_lacking():
    mapping = {"norm.num_batches_tracked": np.array(3)} | NonLocal(16).init()
    with pytest.raises(ValueError, match=r"unknown parameter 'norm\.weight'; batch_norm=True would fit"):
        NonLocal(16, batch_norm=False)(mapping, np.ones((1, 16, 2, 2)))


@pytest.mark.parametrize("pooled", ["phi", "phi.0"])
def test_a_layer_of_several_published_names_is_told_by_the_one_that_is_given(pooled):
    names = ["theta.weight", "theta.bias", f"{pooled}.weight", f"{pooled}.bias", *TIMMS_NON_LOCAL[4:6]]
    module = NonLocal(16, batch_norm=False)
    mapping = under_names(module, [*names, "W.weight", "W.bias"])
    mapping[f"{pooled}.weight"] = np.ones((3, 5))
    assert f": parameter '{pooled}.weight' has shape (3, 5); " in complaint(module, mapping)
    mapping.pop(f"{pooled}.weight")
    assert f": missing parameter '{pooled}.weight' of shape " in complaint(module, mapping)


def test_a_whole_model_of_published_names_is_told_the_prefix():
    whole = {f"blocks.0.se.{name}": value for name, value in under_names(SE, PUBLISHED[0][1]).items()}
    assert "; prefix='blocks.0.se.' would fit (expected" in complaint(SE, whole | {"head.weight": np.ones(5)})


def test_names_of_two_sources_are_not_mixed():
    names = ("conv_reduce.weight", "conv_reduce.bias", "fc.2.weight", "fc.2.bias")
    assert "unknown parameter 'conv_reduce.weight'" in complaint(SE, under_names(SE, names))


def test_a_call_with_published_names_is_told_who_reads_them():
    with pytest.raises(ValueError, match=r"'conv\.conv\.weight'; these names are read by from_state_dict"):
        CBAMSpatialGate(16)(timms_gate(CBAMSpatialGate(16)), np.ones((1, 16, 2, 2)))


# Prefixes


def whole_model(parts, **others):
    """A model's state dict with squeeze-and-excitation in many places."""
    whole = {"conv1.weight": np.ones((64, 3, 7, 7)), "bn1.num_batches_tracked": np.array(3)} | others
    return whole | {f"layer1.{i}.se.{name}": value for i in range(parts) for name, value in SE.init(i).items()}


def prefixes(message):
    """The prefixes that a message names."""
    return re.findall(
        r"'([^']*)'", re.search(r"prefix=((?:'[^']*'(?:, | or )?)+)(?: or one of \d+ more)? would", message)[1]
    )


@for_each(
    ("parts", "words"),
    [
        (1, "; prefix='layer1.0.se.' would fit (expected"),
        (2, "; prefix='layer1.0.se.' or 'layer1.1.se.' would fit (expected"),
        (3, "; prefix='layer1.0.se.', 'layer1.1.se.' or 'layer1.2.se.' would fit (expected"),
        (4, "; prefix='layer1.0.se.', 'layer1.1.se.', 'layer1.2.se.' or one of 1 more would fit (expected"),
        (16, "; prefix='layer1.0.se.', 'layer1.1.se.', 'layer1.2.se.' or one of 13 more would fit (expected"),
    ],
)
def test_a_whole_models_state_dict_is_told_the_prefixes_that_fit(parts, words):
    whole = whole_model(parts)
    message = complaint(SE, whole)
    assert f"unknown parameter 'conv1.weight'{words}" in message
    for prefix in prefixes(message):
        SE.from_state_dict(whole, prefix)
    with pytest.raises(ValueError, match=re.escape("; from_state_dict with " + words[2:])):
        SE(whole, np.ones((1, 64, 2, 2)))


@pytest.mark.parametrize("prefix", ["layer1.2.", "layer1.2.se", "layer1.2.se.fc1."])
def test_a_prefix_that_is_almost_right_is_told_the_right_one_first(prefix):
    message = complaint(SE, whole_model(9), prefix)
    assert prefixes(message)[0] == "layer1.2.se."
    assert f" parameter '{prefix}" in message


def test_parallel_training_is_told_by_its_prefix():
    assert "; prefix='module.' would fit (expected" in complaint(
        SE, under_names(SE, ["module." + name for name in SE.init()])
    )
    parallel = {f"module.{name}": value for name, value in whole_model(5).items()}
    message = complaint(SE, parallel, "layer1.3.se.")
    assert ": nothing stands under prefix='layer1.3.se.'; prefix='module.layer1.3.se.', " in message


def test_counters_of_batches_are_no_part_of_a_prefix():
    module = CBAM(64)
    whole = {f"layer1.cbam.{name}": value for name, value in module.init().items()}
    whole |= {"layer1.cbam.SpatialGate.spatial.bn.num_batches_tracked": np.array(7), "conv1.weight": np.ones(3)}
    assert "; prefix='layer1.cbam.' would fit (expected" in complaint(module, whole)
    module.from_state_dict(whole, "layer1.cbam.")


def test_a_missing_entry_is_told_no_prefix_that_would_not_bring_it():
    part = {name: value for name, value in SE.init().items() if name != "fc2.bias"}
    names = "fc1.weight, fc1.bias, fc2.weight, fc2.bias"
    assert complaint(SE, part).endswith(f"missing parameter 'fc2.bias' of shape (64,) (expected {names})")
    part = {f"se.{name}": value for name, value in part.items()}
    assert "missing parameter 'se.fc2.bias' of shape (64,) (expected se.fc1.weight, " in complaint(SE, part, "se.")


def test_no_prefix_at_all_is_told_where_that_fits():
    assert ": nothing stands under prefix='se.'; prefix='' would fit" in complaint(SE, SE.init(), "se.")


def test_a_prefix_under_which_something_almost_fits_is_told_with_what_is_missing():
    flat = {name: value.squeeze() for name, value in whole_model(1).items()}
    assert "; prefix='layer1.0.se.' would fit, reshaped (expected" in complaint(SE, flat)
    assert "; prefix='layer1.0.se.' would bring these names, in other shapes" in complaint(
        SqueezeExcitation(64, 4), whole_model(1)
    )
    without = SqueezeExcitation(64, bias=False)
    assert "; prefix='layer1.0.se.' would bring these names and others (expected" in complaint(without, whole_model(1))
    some = {name: value for name, value in whole_model(1).items() if not name.endswith("bias")}
    assert "; prefix='layer1.0.se.' would bring some of these names (expected" in complaint(SE, some)
    others = {f"blocks.0.se.{name}": value for name, value in under_names(SE, OTHERS).items()} | {
        "head.weight": np.ones(5)
    }
    assert (
        "; prefix='blocks.0.se.' would fit, renamed: se_reduce.weight to fc1.weight, se_reduce.bias to fc1.bias, "
        "se_expand.weight to fc2.weight, se_expand.bias to fc2.bias (expected" in complaint(SE, others)
    )


def test_a_checkpoint_that_holds_a_state_dict_is_told_to_pass_it():
    message = complaint(SE, {"optimizer": {"lr": 1, "decay": 0, "momentum": 0, "step": 3}, "model": whole_model(2)})
    assert "; the entry 'model' is a mapping of names to arrays: pass that one (expected" in message
    message = complaint(SE, {"optimizer": {"lr": 1}, "fc1": {"kernel": np.ones((64, 4))}})
    assert "unknown parameter 'optimizer' (expected" in message


class Model:
    """What a library's model has in common with another's."""

    def state_dict(self):
        return SE.init()


def test_a_model_instead_of_its_state_dict_is_told_to_pass_that():
    with pytest.raises(TypeError, match=r"Model; expected a mapping of names to arrays: pass its state_dict\(\)$"):
        SE.from_state_dict(Model())
    with pytest.raises(TypeError, match=r"got a list; expected a mapping of names to arrays$"):
        SE.from_state_dict([])


@for_each("shape", [[4, 64], None, 5, "ab", (None, 64)])
def test_whatever_shape_an_unknown_entry_claims_it_is_refused_in_one_line(shape):
    class Odd:
        pass

    odd = Odd()
    odd.shape = shape
    others = {name: value for name, value in SE.init().items() if name != "fc1.weight"}
    assert "unknown parameter 'stray'" in complaint(SE, others | {"stray": odd})


# Layouts


@for_each(
    ("shape", "expected", "call"),
    [
        ((4, 64), (4, 64, 1, 1), ".reshape(4, 64, 1, 1)"),
        ((4, 64, 1, 1), (4, 64), ".reshape(4, 64)"),
        ((4, 64, 1), (4, 64), ".reshape(4, 64)"),
        ((5,), (1, 1, 5), ".reshape(1, 1, 5)"),
        ((1,), (), ".reshape(())"),
        ((64, 4), (4, 64), ".T"),
        ((64, 4), (4, 64, 1, 1), ".T.reshape(4, 64, 1, 1)"),
        ((7, 5, 2, 3), (3, 2, 7, 5), ".transpose(3, 2, 0, 1)"),
        ((7, 2, 3), (3, 2, 7), ".transpose(2, 1, 0)"),
        ((4, 63), (4, 64), ""),
        ((8, 32), (4, 64), ""),
        ((4, 64), (4, 64), ""),
    ],
)
def test_a_layout_is_told_as_the_call_that_makes_it(shape, expected, call):
    assert conversion(shape, expected) == call
    assert not call or eval(f"value{call}", {"value": np.empty(shape)}).shape == expected


def test_flat_weights_are_told_how_to_be_reshaped():
    flat = {name: value.squeeze() for name, value in SE.init().items()}
    message = complaint(SE, flat)
    assert "parameter 'fc1.weight' has shape (4, 64); expected (4, 64, 1, 1)" in message
    assert message.endswith("; fc1.weight.reshape(4, 64, 1, 1), fc2.weight.reshape(64, 4, 1, 1) make them fit")
    message = complaint(
        SE, {f"se.{name}": value for name, value in (SE.init() | {"fc2.weight": flat["fc2.weight"]}).items()}, "se."
    )
    assert message.endswith("; se.fc2.weight.reshape(64, 4, 1, 1) makes it fit")
    gate = CBAMChannelGate(64)
    deep = {name: value[:, :, None, None] if value.ndim == 2 else value for name, value in gate.init().items()}
    assert complaint(gate, deep).endswith("; mlp.1.weight.reshape(4, 64), mlp.3.weight.reshape(64, 4) make them fit")
    eca = EfficientChannelAttention(64)
    assert complaint(eca, {"conv.weight": np.ones(3)}).endswith("; conv.weight.reshape(1, 1, 3) makes it fit")


def test_transposed_weights_are_told_so():
    gate = CBAMChannelGate(64)
    message = complaint(gate, {name: value.T for name, value in gate.init().items()})
    assert message.endswith("; mlp.1.weight.T, mlp.3.weight.T make them fit")
    spatial = CBAMSpatialGate(16)
    last = spatial.init() | {"spatial.conv.weight": np.ones((7, 7, 2, 1))}
    assert complaint(spatial, last).endswith("; spatial.conv.weight.transpose(3, 2, 0, 1) makes it fit")


def test_a_call_is_told_the_layout_as_loading_is():
    params = SE.init() | {"fc1.weight": np.ones((4, 64))}
    with pytest.raises(ValueError, match=r"; fc1\.weight\.reshape\(4, 64, 1, 1\) makes it fit$"):
        SE(params, np.ones((1, 64, 2, 2)))


# Hyperparameters


def stand_ins(module):
    """Arrays of the declared shapes, all of one number in memory."""
    return {name: np.broadcast_to(1.0, shape) for name, shape in declared(module).items()}


@for_each(("module", "target", "expected"), MISFITS)
def test_shapes_of_other_hyperparameters_are_told_those_and_the_call_that_fits(module, target, expected):
    message = complaint(module, stand_ins(target))
    labels, call = re.search(r"; ([^;]*) would fit: (.*?)(?: \(expected .*)?$", message).groups()
    assert set(re.split(r", (?=[a-z._]+(?:=| of length ))", labels)) == expected
    assert declared(eval(call, NAMESPACE)) == declared(target)


@pytest.mark.parametrize(
    ("module", "target", "words"),
    [
        (SE, SqueezeExcitation(64, 8), "reduction=8 would fit: SqueezeExcitation(channels=64, reduction=8)"),
        (SqueezeExcitation(64, bias=False), SE, "bias=True would fit: SqueezeExcitation(channels=64)"),
        (
            Residual(SE),
            Residual(SqueezeExcitation(64, 8)),
            "inner.reduction=8 would fit: Residual(inner=SqueezeExcitation(channels=64, reduction=8))",
        ),
    ],
    ids=str,
)
def test_the_call_that_fits_leaves_defaults_out_and_a_call_is_told_it_as_loading_is(module, target, words):
    assert f"; {words}" in complaint(module, target.init())
    with pytest.raises(ValueError, match=re.escape(f"; {words}")):
        module(target.init(), *generic_values(module)[1].values())


@pytest.mark.parametrize("prefix", ["", "stages.2.attn."])
@pytest.mark.parametrize("wrap", [lambda module: module, Residual], ids=["bare", "within"])
def test_all_hyperparameters_are_told_of_which_each_alone_would_fit(wrap, prefix):
    module, target = wrap(HaloAttention(16, heads=4, halo_size=2)), wrap(HaloAttention(16, heads=4, halo_size=3))
    message = complaint(module, {f"{prefix}{name}": value for name, value in stand_ins(target).items()}, prefix)
    labels, calls = re.search(r"; ([^;]*) would fit: (.*)$", message).groups()
    path = "" if wrap(SE) is SE else "inner."
    assert labels.split(" or ") == [f"{path}block_size=10", f"{path}halo_size=3"]
    fitting = [eval(call, NAMESPACE) for call in calls.split(" or ")]
    assert fitting[1] == target
    assert fitting[0] != target
    assert all(declared(each) == declared(target) for each in fitting)


def test_a_hyperparameter_that_overrides_a_rule_is_not_told_beside_what_the_rule_goes_by():
    assert "; reduction=8 would fit: " in complaint(SE, SqueezeExcitation(64, hidden=8).init())


def test_other_names_and_other_hyperparameters_are_told_together():
    mapping = under_names(SqueezeExcitation(64, 8), OTHERS)
    message = complaint(SE, mapping)
    assert (
        "unknown parameter 'se_reduce.weight'; reduction=8 would fit: SqueezeExcitation(channels=64, reduction=8), "
        "with a renaming: se_reduce.weight to fc1.weight, " in message
    )
    SqueezeExcitation(64, 8).from_state_dict(follow(message, mapping))


def test_fewer_arrays_under_other_names_are_told_the_hyperparameter_before_the_names():
    message = complaint(SE, {"se.0.weight": np.ones((4, 64)), "se.2.weight": np.ones((64, 4))})
    assert (
        "; bias=False would fit: SqueezeExcitation(channels=64, bias=False), with a renaming: se.0.weight to fc1.weight"
        " (with .reshape(4, 64, 1, 1)), se.2.weight to fc2.weight (with .reshape(64, 4, 1, 1)) (expected" in message
    )


def test_a_layout_is_told_before_hyperparameters():
    windows = SlidingWindowSegmentation(32, 3, 3, 2)
    transposed = {"classifier.weight": np.ones((32, 3)), "classifier.bias": np.ones(3)}
    assert complaint(windows, transposed).endswith("; classifier.weight.T makes it fit")
    assert "; classes=32, channels=3 would fit" in complaint(windows, transposed | {"classifier.bias": np.ones(32)})
    similarity = PixelCorrelation(16, 8)
    assert complaint(similarity, {"f9.weight": np.ones((8, 16))}).endswith(
        "; f9.weight.reshape(8, 16, 1, 1) makes it fit"
    )
    assert complaint(similarity, {"f9.weight": np.ones((16, 8))}).endswith(
        "f9.weight.T.reshape(8, 16, 1, 1) makes it fit"
    )


def test_nothing_is_suggested_where_nothing_fits():
    message = complaint(EfficientChannelAttention(256), {"conv.weight": np.ones((1, 1, 4))})
    assert message.endswith("parameter 'conv.weight' has shape (1, 1, 4); expected (1, 1, 5)")
    message = complaint(SE, {f"features.{i}.weight": np.ones((32, 3)) for i in range(500)})
    assert message.endswith(
        "unknown parameter 'features.0.weight' (expected fc1.weight, fc1.bias, fc2.weight, fc2.bias)"
    )
