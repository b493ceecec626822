import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import CBAM, CBAMChannelGate, CBAMSpatialGate, ops
from npattn.oracle import generic_values, gradcheck
from npattn.parameters import add_prefix, strip_prefix
from tests.attention.parity import assert_parity, in_pytorch
from tests.naming import for_each
from tests.strategies import cases, cbam_channel_modules, cbam_modules, cbam_spatial_modules, seeds

ALL_POOLS = ("avg", "max", "lp", "lse")
SUBSETS = [pools for k in range(1, 5) for pools in itertools.combinations(ALL_POOLS, k)]
several = st.integers(3, 5)  # images, so that batch norm has a variance to speak of
modules = cbam_modules() | cbam_channel_modules() | cbam_spatial_modules()
modules_in_training = cbam_modules(training=True) | cbam_spatial_modules(training=True)


def published(module):
    """The authors' module in PyTorch, or one of its gates."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    pools = {
        "avg": lambda x: x.mean(dim=(2, 3)),
        "max": lambda x: x.flatten(2).max(dim=2)[0],
        "lp": lambda x: nn.functional.lp_pool2d(x, 2, x.shape[2:]).flatten(1),
        "lse": lambda x: torch.logsumexp(x, dim=(2, 3)),
    }

    class ChannelGate(nn.Module):
        def __init__(self):
            super().__init__()
            channels, hidden = module.channels, module.hidden or max(1, module.channels // module.reduction)
            layers = (nn.Linear(*sizes, bias=module.bias) for sizes in ((channels, hidden), (hidden, channels)))
            self.mlp = nn.ModuleDict(zip(("1", "3"), layers, strict=True))

        def forward(self, x):
            hidden = (in_pytorch(module.activation)(self.mlp["1"](pools[pool](x))) for pool in module.pools)
            return x * in_pytorch(module.gate)(sum(map(self.mlp["3"], hidden)))[:, :, None, None]

    class SpatialGate(nn.Module):
        def __init__(self):
            super().__init__()
            self.spatial = nn.Sequential()
            self.spatial.add_module(
                "conv", nn.Conv2d(2, 1, module.kernel_size, padding=module.kernel_size // 2, bias=False)
            )
            if module.batch_norm:
                self.spatial.add_module("bn", nn.BatchNorm2d(1, eps=1e-5, momentum=0.01))

        def forward(self, x):
            pooled = torch.stack([x.max(dim=1)[0], x.mean(dim=1)], dim=1)
            return x * in_pytorch(module.gate)(self.spatial(pooled))

    if isinstance(module, CBAMChannelGate):
        reference = ChannelGate()
    elif isinstance(module, CBAMSpatialGate):
        reference = SpatialGate()
    else:
        reference = nn.Sequential()
        reference.add_module("ChannelGate", ChannelGate())
        if module.spatial:
            reference.add_module("SpatialGate", SpatialGate())
    return reference.train(getattr(module, "training", False))


def upstream(x, seed=0):
    return np.random.RandomState(seed).standard_normal(x.shape).astype(x.dtype)


def with_sigmoid(modules):
    """Modules whose gates tell their logits."""
    return modules.map(lambda module: replace(module, gate="sigmoid"))


def logits(a):
    return np.log(a / (1 - a))


@given(cases(modules), seeds)
@settings(max_examples=25)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    module, params, inputs = case
    assert_parity(module, published(module), params, inputs["x"], upstream(inputs["x"], seed), floor=1e-3)


@given(cases(modules_in_training, batch=several), seeds)
@settings(max_examples=20)
def test_output_gradients_and_running_statistics_agree_with_pytorch_in_training(case, seed):
    module, params, inputs = case
    assert module(params, inputs["x"]).buffers.keys() == module.buffer_shapes().keys()
    assert_parity(module, published(module), params, inputs["x"], upstream(inputs["x"], seed), floor=0.1)


@given(cases(modules), seeds)
@settings(max_examples=20)
def test_ties_and_zeros_take_the_side_that_pytorch_takes(case, seed):
    module, params, inputs = case
    x = np.random.RandomState(seed).randint(-1, 2, inputs["x"].shape).astype(float)
    x[:, 0] = 0  # where a norm has no derivative
    assert_parity(module, published(module), params, x, upstream(x, seed))


@given(cases(modules_in_training, batch=several, height=several, width=several))
@settings(max_examples=20)
def test_gradients_agree_with_the_complex_step_in_training(case):
    report = gradcheck(*case, method="adjoint", allow_zero=True)  # all units may be off
    assert report.passed, report


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("module", [CBAM(4, 2, ALL_POOLS, training=True), CBAMSpatialGate(3, training=True)])
def test_every_entry_of_the_jacobian_agrees_with_the_complex_step_in_training(module, seed):
    report = gradcheck(module, *generic_values(module, batch=3, height=2, width=3, seed=seed), method="jacobian")
    assert report.passed, report


@for_each("pools", SUBSETS)
def test_gradients_of_every_choice_of_pools_agree_with_the_complex_step(pools):
    module = CBAMChannelGate(channels=5, reduction=2, pools=pools)
    report = gradcheck(module, *generic_values(module, batch=2, height=2, width=3), method="jacobian")
    assert report.passed, report


@pytest.mark.parametrize("prefix", ["", "layer1.0.cbam."])
@pytest.mark.parametrize(
    "module",
    [
        CBAM(32, 8, ALL_POOLS),
        CBAM(32, spatial=False),
        CBAM(32, batch_norm=False),
        CBAMChannelGate(32),
        CBAMSpatialGate(32),
    ],
    ids=["whole", "no spatial", "no norm", "channel", "spatial"],
)
def test_a_published_state_dict_loads_unchanged(module, prefix):
    torch = pytest.importorskip("torch")
    reference = published(module)
    state = reference.state_dict()
    params = module.from_state_dict({prefix + name: tensor for name, tensor in state.items()}, prefix)
    assert sorted(params) == sorted(name for name in state if not name.endswith("num_batches_tracked"))
    assert list(module.parameter_shapes()) == [name for name, _ in reference.named_parameters()]
    assert all(value.dtype == np.float32 for value in params.values())
    x = np.random.RandomState(0).standard_normal((2, 32, 6, 5)).astype(np.float32)
    expected = reference(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(module(params, x).output, expected, rtol=1e-5, atol=1e-6)


def test_parameters_and_running_statistics_have_the_published_names_and_shapes():
    module = CBAM(channels=64)
    assert module.parameter_shapes() == {
        "ChannelGate.mlp.1.weight": (4, 64),
        "ChannelGate.mlp.1.bias": (4,),
        "ChannelGate.mlp.3.weight": (64, 4),
        "ChannelGate.mlp.3.bias": (64,),
        "SpatialGate.spatial.conv.weight": (1, 2, 7, 7),
        "SpatialGate.spatial.bn.weight": (1,),
        "SpatialGate.spatial.bn.bias": (1,),
    }
    assert module.buffer_shapes() == {
        "SpatialGate.spatial.bn.running_mean": (1,),
        "SpatialGate.spatial.bn.running_var": (1,),
    }
    assert (
        add_prefix("ChannelGate.", CBAMChannelGate(64).parameter_shapes()).items() <= module.parameter_shapes().items()
    )
    assert add_prefix("SpatialGate.", CBAMSpatialGate(64).buffer_shapes()) == module.buffer_shapes()
    assert list(replace(module, batch_norm=False).parameter_shapes()) == list(module.parameter_shapes())[:5]
    assert replace(module, batch_norm=False).buffer_shapes() == {}
    assert list(replace(module, spatial=False).parameter_shapes()) == list(module.parameter_shapes())[:4]
    assert replace(module, spatial=False).buffer_shapes() == {}


@given(st.integers(1, 300), st.integers(1, 40))
def test_the_middle_is_a_fraction_of_the_channels_and_never_empty(channels, reduction):
    hidden = max(1, channels // reduction)
    shapes = CBAMChannelGate(channels, reduction).parameter_shapes()
    assert shapes["mlp.1.weight"] == (hidden, channels)
    assert shapes["mlp.3.weight"] == (channels, hidden)


def test_training_starts_from_uniform_layers_and_a_norm_that_changes_nothing():
    module = CBAM(channels=400, reduction=4)
    params = module.init(seed=1)
    bounds = {"ChannelGate.mlp.1": 400**-0.5, "ChannelGate.mlp.3": 100**-0.5, "SpatialGate.spatial.conv": 98**-0.5}
    for name, value in params.items():
        if ".bn." not in name:
            bound = bounds[name.rpartition(".")[0]]
            assert np.abs(value).max() <= bound
            assert np.abs(value).max() > 0.9 * bound
            assert np.std(value) == pytest.approx(bound / math.sqrt(3), rel=0.15)
    norm = {name.rpartition(".")[2]: value.item() for name, value in params.items() if ".bn." in name}
    assert norm == {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}


# The channel gate


@given(cases(with_sigmoid(cbam_channel_modules())))
@settings(max_examples=30)
def test_logits_of_several_pools_are_the_sum_of_those_of_each(case):
    module, params, inputs = case
    together = logits(module(params, inputs["x"]).attention["channel"])
    alone = [logits(replace(module, pools=(pool,))(params, inputs["x"]).attention["channel"]) for pool in module.pools]
    np.testing.assert_allclose(together, np.sum(alone, axis=0), rtol=1e-8, atol=1e-8)


def test_the_order_of_the_pools_does_not_matter():
    module = CBAMChannelGate(8, 2, ALL_POOLS)
    params, inputs = generic_values(module)
    expected = module(params, inputs["x"])
    for pools in itertools.permutations(ALL_POOLS):
        run = replace(module, pools=pools)(params, inputs["x"])
        np.testing.assert_allclose(run.output, expected.output, rtol=1e-13)
        np.testing.assert_allclose(run.backward(inputs["x"])[0], expected.backward(inputs["x"])[0], rtol=1e-10)


def test_means_and_maxima_do_not_grow_with_the_map_and_sums_do():
    """A map laid beside itself: logits of avg and max stay, those of lp and lse move as p √2 and p + log 2 do."""
    x = np.random.RandomState(0).standard_normal((2, 6, 3, 4))
    wide = np.concatenate([x, x], axis=3)
    for pool, grown in {
        "avg": lambda p: p,
        "max": lambda p: p,
        "lp": lambda p: p * math.sqrt(2),
        "lse": lambda p: p + math.log(2),
    }.items():
        module = CBAMChannelGate(6, 2, (pool,))
        params = module.init()
        p = {"avg": x.mean((2, 3)), "max": x.max((2, 3)), "lp": np.sqrt((x**2).sum((2, 3)))}
        p["lse"] = np.log(np.exp(x).sum((2, 3)))
        h = np.maximum(grown(p[pool]) @ params["mlp.1.weight"].T + params["mlp.1.bias"], 0)
        expected = h @ params["mlp.3.weight"].T + params["mlp.3.bias"]
        np.testing.assert_allclose(logits(module(params, wide).attention["channel"]), expected, rtol=1e-10, atol=1e-12)


def test_a_maximum_sends_its_gradient_to_the_first_position_alone():
    module = CBAMChannelGate(channels=2, reduction=1, pools=("max",))
    params, _ = generic_values(module)
    x = np.full((1, 2, 3, 3), -1.0)
    x[0, 0, 1, 1] = x[0, 0, 2, 0] = x[0, 1, 0, 2] = 5.0
    run = module(params, x)
    dy = upstream(x)
    through_the_pool = run.backward(dy)[0] - run.attention["channel"][:, :, None, None] * dy
    np.testing.assert_array_equal(np.argwhere(through_the_pool), [[0, 0, 1, 1], [0, 1, 0, 2]])


def test_a_channel_of_zeros_has_a_norm_without_slope():
    module = CBAMChannelGate(channels=3, reduction=1, pools=("lp",))
    params, inputs = generic_values(module)
    x = inputs["x"]
    x[:, 1] = 0
    run = module(params, x)
    dx, _ = run.backward(upstream(x))
    np.testing.assert_array_equal(dx[:, 1], (run.attention["channel"][:, :, None, None] * upstream(x))[:, 1])
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", [-1e4, 1e4])
def test_log_sum_exp_neither_overflows_nor_vanishes(dtype, level):
    module = CBAMChannelGate(channels=4, reduction=1, pools=("lse",))
    params, inputs = generic_values(module, dtype=dtype)
    x = inputs["x"] + dtype(level)
    p, _ = ops.global_lse_pool(x)
    assert np.all(np.abs(p - level) < 10)
    run = module(params, x)
    dx, grads = run.backward(x)
    assert np.isfinite(run.output).all()
    assert all(np.isfinite(gradient).all() for gradient in (dx, *grads.values()))


@given(cases(modules), st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_renaming_channels_renames_the_output(case, random):
    module, params, inputs = case
    order = list(range(module.channels))
    random.shuffle(order)
    renamed = dict(params)
    for name, value in params.items():
        if name.endswith("mlp.1.weight"):
            renamed[name] = value[:, order]
        if "mlp.3." in name:
            renamed[name] = value[order]
    output = module(params, inputs["x"]).output
    np.testing.assert_allclose(module(renamed, inputs["x"][:, order]).output, output[:, order], rtol=1e-9, atol=1e-12)


# The spatial gate


def test_the_maximum_comes_first_and_the_mean_second():
    module = CBAMSpatialGate(channels=5, batch_norm=False)
    x = np.random.RandomState(0).standard_normal((2, 5, 4, 6))
    for plane, pooled in enumerate((x.max(axis=1), x.mean(axis=1))):
        weight = np.zeros((1, 2, 7, 7))
        weight[0, plane, 3, 3] = 1
        a = module({"spatial.conv.weight": weight}, x).attention["spatial"]
        np.testing.assert_allclose(logits(a)[:, 0], pooled, rtol=1e-12, atol=1e-13)


def test_a_maximum_over_channels_sends_its_gradient_to_the_first_channel_alone():
    module = CBAMSpatialGate(channels=4, batch_norm=False)
    weight = np.zeros((1, 2, 7, 7))
    weight[0, 0, 3, 3] = 1
    x = np.array([1.0, 5.0, 5.0, 2.0]).reshape(1, 4, 1, 1)
    run = module({"spatial.conv.weight": weight}, x)
    through_the_pool = run.backward(np.ones_like(x))[0] - run.attention["spatial"]
    np.testing.assert_array_equal(np.flatnonzero(through_the_pool), [1])


@given(cases(with_sigmoid(cbam_spatial_modules())))
@settings(max_examples=20)
def test_a_gate_sees_half_a_kernel_to_each_side(case):
    module, params, _ = case
    x = np.zeros((1, module.channels, 11, 12))
    before = module(params, x).attention["spatial"]
    x[0, :, 5, 6] = 10
    changed = module(params, x).attention["spatial"] != before
    expected = np.zeros_like(changed)
    reach = module.kernel_size // 2
    expected[0, 0, 5 - reach : 6 + reach, 6 - reach : 7 + reach] = True
    np.testing.assert_array_equal(changed, expected)


@given(cases(modules))
@settings(max_examples=40)
def test_a_mirrored_map_and_kernel_give_the_mirrored_output(case):
    module, params, inputs = case
    mirrored = {name: value[..., ::-1] if "conv" in name else value for name, value in params.items()}
    output = module(params, inputs["x"]).output
    np.testing.assert_allclose(
        module(mirrored, inputs["x"][..., ::-1]).output, output[..., ::-1], rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("system", [CBAM, CBAMSpatialGate])
def test_where_the_norm_starts_at_zero_gates_are_one_half_and_the_kernel_gets_no_gradient(system):
    """The spatial gates of the authors' ResNet start so."""
    module = system.example()
    params, inputs = generic_values(module)
    start = {name: value * 0 if name.endswith(("bn.weight", "bn.bias")) else value for name, value in params.items()}
    run = module(start, inputs["x"])
    np.testing.assert_array_equal(run.attention["spatial"], 0.5)
    _, grads = run.backward(upstream(inputs["x"]))
    for name, gradient in grads.items():
        assert gradient.any() == (not name.endswith("conv.weight")), name


# One after the other


@given(cases(cbam_modules()))
@settings(max_examples=30)
def test_the_whole_is_the_spatial_gate_of_what_the_channel_gate_lets_through(case):
    module, params, inputs = case
    first = module.channel_gate(strip_prefix("ChannelGate.", params), inputs["x"])
    run = module(params, inputs["x"])
    expected = {"channel": first.attention["channel"]}
    output = first.output
    if module.spatial:
        second = module.spatial_gate(strip_prefix("SpatialGate.", params), first.output)
        expected["spatial"], output = second.attention["spatial"], second.output
    np.testing.assert_array_equal(run.output, output)
    np.testing.assert_equal(run.attention, expected)


def test_the_attention_maps_are_one_number_a_channel_and_one_a_position():
    module = CBAM.example()
    params, inputs = generic_values(module, batch=3, height=4, width=5)
    run = module(params, inputs["x"])
    assert {name: a.shape for name, a in run.attention.items()} == {"channel": (3, 32), "spatial": (3, 1, 4, 5)}
    gated = inputs["x"] * run.attention["channel"][:, :, None, None] * run.attention["spatial"]
    np.testing.assert_allclose(run.output, gated, rtol=1e-14)


# Training


@pytest.mark.parametrize("module", [CBAM(8, 2, training=True), CBAMSpatialGate(8, training=True)])
def test_running_statistics_move_by_one_hundredth_towards_the_batch(module):
    params, inputs = generic_values(module, batch=3)
    before = {name: value.copy() for name, value in params.items()}
    run = module(params, inputs["x"])
    f = inputs["x"] * run.attention["channel"][:, :, None, None] if "channel" in run.attention else inputs["x"]
    (weight,) = (value for name, value in params.items() if "conv" in name)
    pooled = np.stack([f.max(axis=1), f.mean(axis=1)], axis=1)
    v, _ = ops.conv2d(pooled, weight, padding=3)
    (mean, mean_name), (variance, variance_name) = zip((v.mean(), v.var(ddof=1)), run.buffers, strict=True)
    np.testing.assert_allclose(run.buffers[mean_name], 0.99 * before[mean_name] + 0.01 * mean, rtol=1e-12)
    np.testing.assert_allclose(run.buffers[variance_name], 0.99 * before[variance_name] + 0.01 * variance, rtol=1e-12)
    np.testing.assert_equal(params, before)
    assert replace(module, training=False)(params, inputs["x"]).buffers == {}


def test_after_many_batches_inference_does_what_training_did():
    module = CBAMSpatialGate(6, training=True)
    params, inputs = generic_values(module, batch=4, height=6, width=6)
    for _ in range(1000):
        params |= module(params, inputs["x"]).buffers
    trained = module(params, inputs["x"]).attention["spatial"]
    settled = replace(module, training=False)(params, inputs["x"]).attention["spatial"]
    np.testing.assert_allclose(logits(settled), logits(trained), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("module", [CBAM(4, training=True), CBAMSpatialGate(4, training=True)])
@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (0, 4, 3, 3)])
def test_training_on_a_single_value_is_refused_with_a_way_out(module, shape):
    params = module.init()
    with pytest.raises(ValueError, match="in training: give more images or positions, or set training=False") as caught:
        module(params, np.ones(shape))
    assert str(caught.value).startswith(f"{module}: x has shape {shape}; expected at least two values in each channel")
    replace(module, training=False)(params, np.ones(shape))
    module(params, np.ones((1, 4, 1, 2)))
    module(params, np.ones((2, 4, 1, 1)))


@pytest.mark.parametrize(
    "module",
    [
        CBAM(4, spatial=False, training=True),
        CBAM(4, batch_norm=False, training=True),
        CBAMSpatialGate(4, batch_norm=False, training=True),
    ],
)
def test_without_a_norm_training_takes_any_batch(module):
    run = module(module.init(), np.ones((1, 4, 1, 1)))
    assert run.buffers == {}
    assert np.isfinite(run.output).all()


# Hyperparameters

takes_pools = pytest.mark.parametrize("system", [CBAM, CBAMChannelGate])


@takes_pools
def test_a_list_of_pools_is_the_tuple_of_them(system):
    module = system(8, pools=["lse", np.str_("avg")])
    assert module == system(8, pools=("lse", "avg"))
    assert hash(module) == hash(system(8, pools=("lse", "avg")))
    assert "pools=('lse', 'avg')" in repr(module)


@takes_pools
@pytest.mark.parametrize(
    ("unknown", "near"), [("avgs", "avg"), ("mean_max", "max"), ("MAX", "max"), ("l2", "lp"), ("logsumexp", "lse")]
)
def test_an_unknown_pool_is_told_the_nearest_one(system, unknown, near):
    with pytest.raises(ValueError, match="unknown") as caught:
        system(8, pools=("avg", unknown))
    assert str(caught.value) == (
        f"{system.__name__}: pools holds an unknown {unknown!r}; did you mean {near!r}? "
        "(expected some of avg, max, lp, lse)"
    )


@takes_pools
@pytest.mark.parametrize(
    ("pools", "error", "message"),
    [
        ((), ValueError, r"pools=\(\); expected at least one of avg, max, lp, lse"),
        ([], ValueError, r"pools=\[\]; expected at least one"),
        ("avg", TypeError, "pools='avg' is a str; expected a tuple of some of avg, max, lp, lse"),
        (None, TypeError, "pools=None is a NoneType; expected a tuple"),
        ({"avg"}, TypeError, "pools={'avg'} is a set; expected a tuple"),
        (("avg", "max", "avg"), ValueError, r"pools=\('avg', 'max', 'avg'\) holds 'avg' twice; expected each at most"),
        (("avg", None), ValueError, "pools holds an unknown None"),
        ((["avg"],), ValueError, r"pools holds an unknown \['avg'\]"),
        (("?",), ValueError, r"pools holds an unknown '\?' \(expected some of avg, max, lp, lse\)"),
        ((2,), ValueError, r"pools holds an unknown 2 \(expected some of avg, max, lp, lse\)"),
    ],
)
def test_what_is_no_choice_of_pools_is_refused(system, pools, error, message):
    with pytest.raises(error, match=f"^{system.__name__}: {message}"):
        system(8, pools=pools)


@pytest.mark.parametrize("system", [CBAM, CBAMChannelGate])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_an_impossible_reduction_is_refused_by_name(system, value, error):
    with pytest.raises(error, match=f"^{system.__name__}: reduction={value!r}"):
        system(8, reduction=value)


@pytest.mark.parametrize(
    ("system", "name"),
    [
        (CBAM, "spatial"),
        (CBAM, "batch_norm"),
        (CBAM, "training"),
        (CBAMSpatialGate, "batch_norm"),
        (CBAMSpatialGate, "training"),
    ],
)
@pytest.mark.parametrize("value", [0, None, "yes"])
def test_what_is_neither_true_nor_false_is_refused_by_name(system, name, value):
    with pytest.raises(TypeError, match=f"^{system.__name__}: {name}={value!r} is an? .*; expected True or False"):
        system(8, **{name: value})
