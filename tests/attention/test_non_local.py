import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import NonLocal, PositionAttention
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in, assert_rearranged_alike, assert_state_dict_loads
from tests.attention.witnesses import draw
from tests.memory import peak_memory
from tests.strategies import cases, non_local_modules, seeds

any_modules = non_local_modules() | non_local_modules(training=True)


def published(module):
    """The block in PyTorch as the paper has it, with timm's names."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("t", "p", "g"):
                setattr(self, name, torch.nn.Conv2d(module.channels, module.hidden_channels, 1))
            self.z = torch.nn.Conv2d(module.hidden_channels, module.channels, 1)
            self.norm = torch.nn.BatchNorm2d(module.channels) if module.batch_norm else torch.nn.Identity()
            self.train(module.training)

        def pooled(self, x):
            return torch.nn.functional.max_pool2d(x, 2) if module.subsample else x

        def forward(self, x):
            q, k, v = self.t(x).flatten(2), self.pooled(self.p(x)).flatten(2), self.pooled(self.g(x)).flatten(2)
            products = q.transpose(1, 2) @ k
            if module.variant == "dot_product":
                weights = products * (1 if module.scale is None else module.scale) / k.shape[2]
            else:
                scale = module.channels**-0.5 if module.scale is None else module.scale
                weights = torch.softmax(products * scale, dim=2)
            gathered = (v @ weights.transpose(1, 2)).reshape(len(x), -1, *x.shape[2:])
            return x + self.norm(self.z(gathered))

    return Reference()


@given(cases(any_modules), seeds)
@settings(max_examples=50)
def test_output_gradients_and_statistics_agree_with_pytorch(case, seed):
    # The keys' bias has gradient 0 beside a softmax, that of the last layer beside statistics of the batch.
    assert_parity_in(case, published, seed, floor=0.1)


@given(cases(any_modules), st.booleans())
@settings(max_examples=20)
def test_the_names_of_other_pytorch_code_are_read(case, mmcv):
    module, params, _ = case
    names = {"t": "theta", "p": "phi", "g": "g", "z": "W", "norm": "W.1"}
    if module.subsample:
        names |= {"p": "phi.0", "g": "g.0"}
    if module.batch_norm:
        names["z"] = "W.0"
    if mmcv:
        names = {layer: f"{names[layer]}.conv" for layer in "tpg"} | {"z": "conv_out.conv", "norm": "conv_out.bn"}
    theirs = {}
    for name, value in params.items():
        layer, _, word = name.rpartition(".")
        theirs[f"{names[layer]}.{word}"] = value
    found = module.from_state_dict({f"block.{name}": value for name, value in theirs.items()}, "block.")
    assert list(found) == list(params)
    for name, value in params.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_a_published_state_dict_loads_unchanged():
    module = NonLocal(channels=24)
    assert_state_dict_loads(module, draw(published(module)).float(), atol=1e-5)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_block_starts_as_the_identity_and_its_last_layer_learns_first(batch_norm):
    module = NonLocal(channels=16, batch_norm=batch_norm)
    params, x = module.init(seed=1), generic_values(module)[1]["x"]
    run = module(params, x)
    np.testing.assert_array_equal(run.output, x)
    _, grads = run.backward(x)
    last = "norm" if batch_norm else "z"
    assert [name for name, grad in grads.items() if grad.any()] == [f"{last}.weight", f"{last}.bias"]


def test_kernels_start_by_their_fan_out():
    params = NonLocal(channels=512, hidden=64).init(seed=3)
    for name, fan_out in (("t", 64), ("p", 64), ("g", 64), ("z", 512)):
        assert np.std(params[f"{name}.weight"]) == pytest.approx(np.sqrt(2 / fan_out), rel=0.02)
        assert not params[f"{name}.bias"].any()


@given(cases(non_local_modules().filter(lambda module: not module.subsample)), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_positions_in_another_order_give_outputs_in_that_order(case, random):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], random)


@given(cases(any_modules), st.data())
@settings(max_examples=25)
def test_attention_map_is_what_the_output_is_made_of(case, data):
    module, params, inputs = case
    x = inputs["x"]
    plain = NonLocal(**{**vars(module), "batch_norm": False, "training": False})
    params = {name: value for name, value in params.items() if not name.startswith("norm")}
    s = plain.attention_map(params, x)
    positions = x.shape[2] * x.shape[3]
    keys = (x.shape[2] // 2) * (x.shape[3] // 2) if module.subsample else positions
    assert s.shape == (len(x), positions, keys)
    if module.variant == "embedded_gaussian":
        np.testing.assert_allclose(s.sum(axis=2), 1, rtol=1e-12)
    v = np.einsum("oc,bchw->bohw", params["g.weight"][:, :, 0, 0], x) + params["g.bias"][:, None, None]
    if module.subsample:
        height, width = x.shape[2] // 2, x.shape[3] // 2
        corners = [v[:, :, i : 2 * height : 2, j : 2 * width : 2] for i in (0, 1) for j in (0, 1)]
        v = np.maximum.reduce(corners)
    o = np.einsum("bji,bdi->bdj", s, v.reshape(*v.shape[:2], -1))
    z = np.einsum("cd,bdj->bcj", params["z.weight"][:, :, 0, 0], o) + params["z.bias"][:, None]
    np.testing.assert_allclose(plain(params, x).output, x + z.reshape(x.shape), rtol=1e-10, atol=1e-10)
    rows = data.draw(st.lists(st.integers(0, positions - 1), max_size=4))
    np.testing.assert_allclose(plain.attention_map(params, x, rows), s[:, rows], rtol=1e-12)


def test_position_attention_is_a_block_whose_way_back_is_one_number():
    position = PositionAttention(channels=6, reduction=1)
    params, inputs = generic_values(position)
    names = {"query_conv": "t", "key_conv": "p", "value_conv": "g"}
    block = {name.replace(old, new): params[name] for old, new in names.items() for name in params if old in name}
    block |= {"z.weight": params["gamma"] * np.eye(6)[:, :, None, None], "z.bias": np.zeros(6)}
    module = NonLocal(channels=6, hidden=6, scale=1.0, batch_norm=False)
    expected = position(params, inputs["x"]).output
    np.testing.assert_allclose(module(block, inputs["x"]).output, expected, rtol=1e-12, atol=1e-13)


def test_pooled_keys_are_the_maxima_of_blocks_and_a_last_row_alone_is_none():
    module = NonLocal(channels=1, hidden=1, variant="dot_product", subsample=True, batch_norm=False)
    one = {"weight": np.ones((1, 1, 1, 1)), "bias": np.zeros(1)}
    params = {f"{layer}.{word}": value for layer in "tpgz" for word, value in one.items()}
    x = np.reshape([[1.0, 2, 0, 9], [3, 0, 5, 4], [100, 100, 100, 100]], (1, 1, 3, 4))
    np.testing.assert_array_equal(module.attention_map(params, x, rows=[1])[0, 0], [2 * 3 / 2, 2 * 9 / 2])


def test_without_a_softmax_no_map_is_made():
    module = NonLocal(channels=8, variant="dot_product")
    params, inputs = generic_values(module, batch=1, height=64, width=64)

    def both():
        run = module.forward(params, inputs["x"])
        run.backward(inputs["x"])

    assert peak_memory(both) < 4096**2 * 8 / 20


@pytest.mark.parametrize("shape", [(1, 5), (4, 1)])
def test_a_map_too_small_for_the_pool_is_refused(shape):
    module = NonLocal(channels=4, subsample=True)
    x = np.ones((2, 4, *shape))
    with pytest.raises(ValueError, match="expected at least 2 × 2 positions") as caught:
        module(module.init(), x)
    assert f"{x.shape}" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variant": "gaussian"}, ValueError, "NonLocal: variant='gaussian'"),
        ({"subsample": 1}, TypeError, "NonLocal: subsample=1 is an int; expected True or False"),
        ({"scale": "1"}, TypeError, "NonLocal: scale='1'"),
        ({"hidden": 0}, ValueError, "NonLocal: hidden=0; expected an integer of at least 1"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        NonLocal(8, **options)
    assert str(caught.value).startswith(message)
