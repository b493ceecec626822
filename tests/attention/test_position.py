import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import PositionAttention
from npattn.oracle import generic_values, gradcheck
from tests.attention.parity import (
    assert_parity,
    assert_rearranged_alike,
    assert_runs,
    assert_starts_as,
    assert_starts_as_identity,
    assert_state_dict_loads,
)
from tests.memory import peak_memory, peak_of_pass
from tests.naming import for_each
from tests.strategies import cases, pam_modules, seeds


def published(module):
    """The PyTorch form, with the names of the authors' code."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            key_channels = max(1, module.channels // module.reduction)
            self.query_conv = torch.nn.Conv2d(module.channels, key_channels, 1)
            self.key_conv = torch.nn.Conv2d(module.channels, key_channels, 1)
            self.value_conv = torch.nn.Conv2d(module.channels, module.channels, 1)
            self.gamma = torch.nn.Parameter(torch.zeros(1))

        def attend(self, q, k, v):
            weights = torch.softmax(torch.bmm(q.transpose(1, 2), k), dim=-1)
            return torch.bmm(v, weights.transpose(1, 2))

        def forward(self, x):
            qkv = (conv(x).flatten(2) for conv in (self.query_conv, self.key_conv, self.value_conv))
            return self.gamma * self.attend(*qkv).reshape(x.shape) + x

    return Reference()


def fused(module):
    """The same with PyTorch's own attention in tiles."""
    torch = pytest.importorskip("torch")
    reference = published(module)

    def attend(q, k, v):
        rows = (a.transpose(1, 2)[:, None] for a in (q, k, v))  # of one head: without it no kernel is a fused one
        return torch.nn.functional.scaled_dot_product_attention(*rows, scale=1.0)[:, 0].transpose(1, 2)

    reference.attend = attend
    return reference


@pytest.mark.parametrize("form", [published, fused])
@given(case=cases(pam_modules()), seed=seeds)
@settings(max_examples=25)
def test_output_and_gradients_agree_with_pytorch(form, case, seed):
    module, params, inputs = case
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape)
    # The key's bias has gradient 0; with a single position so have queries and keys altogether.
    assert_parity(module, form(module), params, inputs["x"], dy, floor=0.1)


def test_a_published_state_dict_loads_unchanged():
    module = PositionAttention(channels=24)
    reference = published(module)
    reference.gamma.data.fill_(0.7)
    assert_state_dict_loads(module, reference, atol=1e-5)


@given(st.integers(1, 300), st.integers(1, 40))
def test_queries_and_keys_have_a_fraction_of_the_channels_and_at_least_one(channels, reduction):
    module = PositionAttention(channels, reduction)
    shapes = module.parameter_shapes()
    key_channels = shapes["key_conv.bias"][0]
    assert key_channels == max(1, channels // reduction) == module.key_channels
    assert shapes["query_conv.weight"] == shapes["key_conv.weight"] == (key_channels, channels, 1, 1)
    assert shapes["value_conv.weight"] == (channels, channels, 1, 1)


def test_training_starts_where_pytorch_starts():
    assert_starts_as(PositionAttention(channels=512, reduction=4), published)


def test_at_the_start_the_map_passes_as_it_is_and_only_the_scale_learns():
    assert_starts_as_identity(PositionAttention.example())


@given(cases(pam_modules()), st.randoms(use_true_random=False))
def test_positions_may_be_rearranged_and_the_output_is_rearranged_alike(case, random):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], random)


@given(cases(pam_modules()), st.floats(-100, 100))
def test_the_keys_bias_has_no_effect_and_no_gradient(case, shift):
    module, params, inputs = case
    run = module(params, inputs["x"])
    moved = params | {"key_conv.bias": params["key_conv.bias"] + shift}
    np.testing.assert_allclose(module(moved, inputs["x"]).output, run.output, rtol=1e-9, atol=1e-10)
    _, grads = run.backward(run.output)
    scale = max(np.abs(grad).max() for grad in grads.values())
    np.testing.assert_allclose(grads["key_conv.bias"], 0, atol=1e-12 * scale)


@given(cases(pam_modules()), st.data())
@settings(max_examples=25)
def test_attention_map_is_what_the_output_is_made_of(case, data):
    module, params, inputs = case
    x = inputs["x"]
    s = module.attention_map(params, x)
    positions = x.shape[2] * x.shape[3]
    assert s.shape == (len(x), positions, positions)
    np.testing.assert_allclose(s.sum(axis=2), 1, rtol=1e-12)
    values = np.einsum("oc,bcn->bon", params["value_conv.weight"][:, :, 0, 0], x.reshape(*x.shape[:2], -1))
    values += params["value_conv.bias"][:, None]
    expected = x + params["gamma"] * np.einsum("bji,bci->bcj", s, values).reshape(x.shape)
    np.testing.assert_allclose(module(params, x).output, expected, rtol=1e-10, atol=1e-11)
    rows = data.draw(st.lists(st.integers(0, positions - 1), max_size=4))
    for chosen in (rows, tuple(rows), np.array(rows, int)):
        np.testing.assert_allclose(module.attention_map(params, x, chosen), s[:, rows], rtol=1e-12)


def test_a_row_belongs_to_the_query_and_not_to_the_key():
    """The second position's query points along the third's key, which itself has no query."""
    module = PositionAttention(channels=2, reduction=1)
    zero = {name: np.zeros(shape) for name, shape in module.parameter_shapes().items()}
    pick = [[[[1.0]], [[0.0]]], [[[0.0]], [[0.0]]]], [[[[0.0]], [[1.0]]], [[[0.0]], [[0.0]]]]
    params = zero | {"query_conv.weight": np.array(pick[0]), "key_conv.weight": np.array(pick[1])}
    x = np.array([[[[0.0, 9.0, 0.0]], [[0.0, 0.0, 9.0]]]])
    s = module.attention_map(params, x)[0]
    np.testing.assert_allclose(s[1], [0, 0, 1], atol=1e-30)
    np.testing.assert_allclose(s[[0, 2]], 1 / 3)


def test_attention_map_of_a_few_rows_never_makes_the_rest():
    module = PositionAttention(channels=8)
    params, inputs = generic_values(module, batch=1, height=64, width=64)
    peak = peak_memory(lambda: module.attention_map(params, inputs["x"], rows=[7, 4000]))
    assert peak < 4096**2 * 8 / 100


@for_each(
    ("rows", "error", "message"),
    [
        (
            [35],
            ValueError,
            "rows holds 35; expected positions from 0 to 34: row r and column c of the map of 7 × 5 are ",
        ),
        ([3, -1], ValueError, "rows holds -1; expected positions from 0 to 34"),
        ([1.0], TypeError, "rows holds 1.0, a float; expected ints"),
        ([True], TypeError, "rows holds True, a bool; expected ints"),
        (["1"], TypeError, "rows holds '1', a str; expected ints"),
        ([[1, 2]], TypeError, "rows holds [1, 2], a list; expected ints"),
        (3, TypeError, "rows=3 is an int; expected a sequence of positions: [3]"),
        (np.array(3), TypeError, "rows=array(3) is a numpy.ndarray; expected a sequence of positions"),
    ],
)
def test_bad_rows_are_refused_with_a_reason(rows, error, message):
    module = PositionAttention.example()
    params, inputs = generic_values(module, height=7, width=5)
    with pytest.raises(error) as caught:
        module.attention_map(params, inputs["x"], rows)
    assert str(caught.value).startswith(f"{module}.attention_map: {message}")
    assert "\n" not in str(caught.value)


def test_attention_map_refuses_what_a_call_refuses():
    module = PositionAttention.example()
    params, inputs = generic_values(module)
    with pytest.raises(ValueError, match="the map has 15 channels, the module 16"):
        module.attention_map(params, inputs["x"][:, :15])
    with pytest.raises(ValueError, match="missing parameter 'gamma'"):
        module.attention_map({name: params[name] for name in params if name != "gamma"}, inputs["x"])


@pytest.mark.parametrize("shape", [(1, 1, 1), (0, 3, 2), (1, 1, 40)])
def test_a_single_position_an_empty_batch_and_a_single_row_run(shape):
    batch, height, width = shape
    module = PositionAttention(channels=1)
    params, x = assert_runs(module, batch, height, width)
    assert module.attention_map(params, x).shape == (batch, height * width, height * width)


def test_huge_logits_pick_the_value_of_the_best_match():
    module = PositionAttention.example()
    params, inputs = generic_values(module)
    x = 1e4 * inputs["x"]
    s = module.attention_map(params, x)
    np.testing.assert_allclose(s.max(axis=2), 1, rtol=1e-12)
    values = x.reshape(*x.shape[:2], -1).swapaxes(1, 2) @ params["value_conv.weight"][:, :, 0, 0].T
    best = np.take_along_axis(values + params["value_conv.bias"], s.argmax(axis=2)[..., None], axis=1)
    run = module(params, x)
    expected = x + params["gamma"] * best.swapaxes(1, 2).reshape(x.shape)
    np.testing.assert_allclose(run.output, expected, rtol=1e-9, atol=1e-6)
    dx, grads = run.backward(np.ones_like(x))
    assert all(np.isfinite(grad).all() for grad in (dx, *grads.values()))


def test_gradients_hold_across_many_blocks(monkeypatch):
    from npattn.ops import attention

    monkeypatch.setattr(attention, "BLOCK_QUERIES", 2)
    module = PositionAttention(channels=4, reduction=2)
    for method in ("jacobian", "adjoint"):
        report = gradcheck(module, *generic_values(module, height=3, width=3), method=method)
        assert report.passed, report


def test_memory_grows_as_the_positions_and_not_as_their_square():
    small, large = (peak_of_pass(PositionAttention(channels=16), side) for side in (32, 64))
    assert large < 4.5 * small  # 16 times, if the weights were held
    assert large < 4096**2 * 4 / 8
