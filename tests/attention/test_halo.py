import numpy as np
import pytest
from hypothesis import given, settings

from npattn import BottleneckAttention, HaloAttention
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity, assert_state_dict_loads
from tests.memory import peak_of_pass
from tests.naming import for_each
from tests.strategies import cases, halo_modules, seeds


def published(module):
    """The block in PyTorch, window by window, with timm's names."""
    torch = pytest.importorskip("torch")
    nn, block, window, halo = torch.nn, module.query_block, module.win_size, module.halo_size

    class Offsets(nn.Module):
        def __init__(self):
            super().__init__()
            self.height_rel = nn.Parameter(torch.randn(2 * window - 1, module.head_channels))
            self.width_rel = nn.Parameter(torch.randn(2 * window - 1, module.head_channels))

        def forward(self, q):
            """Multiply queries (..., d, b, b) with the vectors of all rows, and of all columns."""
            offsets = torch.arange(window)[None] - torch.arange(block)[:, None] + window - 1
            down = torch.einsum("...cij,ikc->...ijk", q, self.height_rel[offsets])
            across = torch.einsum("...cij,jlc->...ijl", q, self.width_rel[offsets])
            return (down[..., None] + across[..., None, :]).flatten(-2).flatten(-3, -2)

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            queries, bias = module.heads * module.head_channels, module.bias
            self.q = nn.Conv2d(module.channels, queries, 1, stride=module.query_stride, bias=bias)
            self.kv = nn.Conv2d(module.channels, queries + module.output_channels, 1, bias=bias)
            self.pos_embed = Offsets()

        def heads(self, windows):
            """Lay windows (B, n c, R, S, h, w) out as (B, n, R, S, c, h, w)."""
            return windows.unflatten(1, (module.heads, -1)).permute(0, 1, 3, 4, 2, 5, 6)

        def forward(self, x):
            q, kv = self.q(x), nn.functional.pad(self.kv(x), [halo] * 4)
            size = q.shape[2:]
            q = self.heads(q.unfold(2, block, block).unfold(3, block, block))
            kv = self.heads(kv.unfold(2, window, module.block_size).unfold(3, window, module.block_size))
            relative = self.pos_embed(q) * (module.scale if module.scale_pos_embed else 1)
            q, k, v = q.flatten(-2), *kv.flatten(-2).split(module.sizes, 4)
            weights = (module.scale * (q.transpose(-1, -2) @ k) + relative).softmax(-1)
            o = (v @ weights.transpose(-1, -2)).unflatten(-1, (block, block))  # (B, n, R, S, e, b, b)
            y = o.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(x), module.output_channels, *size)
            return nn.functional.avg_pool2d(y, 2) if module.averages else y

    return Reference()


@given(cases(halo_modules()), seeds)
@settings(max_examples=20)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    module, params, inputs = case
    x = inputs["x"]
    [shape] = module.output_shapes(len(x), *x.shape[2:]).values()
    dy = np.random.RandomState(seed).standard_normal(shape)
    assert_parity(module, published(module), params, x, dy, floor=0.1)  # with one key no logit counts


@pytest.mark.parametrize("options", [{}, {"bias": True, "stride": 2, "out_channels": 8}])
def test_a_published_state_dict_loads_unchanged(options):
    module = HaloAttention(channels=12, block_size=4, **{"heads": 4} | options)
    x = generic_values(module)[1]["x"].astype(np.float32)
    assert_state_dict_loads(module, published(module), [x], atol=1e-5)


def test_training_starts_where_timm_starts():
    params = HaloAttention(channels=64, block_size=16, bias=True).init(seed=1)
    for name, deviation in (("q.weight", 1 / 8), ("kv.weight", 1 / 8), ("pos_embed.width_rel", 8**-0.5)):
        assert params[name].std() == pytest.approx(deviation, rel=0.1), name
    assert np.abs(params["kv.bias"]).max() == pytest.approx(1 / 8, rel=0.1)


@pytest.mark.parametrize("scale_pos_embed", [False, True])
def test_one_block_without_a_halo_is_bottleneck_attention(scale_pos_embed):
    options = {"heads": 2, "head_dim": 3, "bias": True, "scale_pos_embed": scale_pos_embed}
    module = HaloAttention(channels=6, block_size=4, halo_size=0, **options)
    params, inputs = generic_values(module, batch=2, height=4, width=4)
    whole = BottleneckAttention(channels=6, feat_size=(4, 4), **options)
    # Of every head the keys stand before the values; there all keys do.
    order = np.arange(12).reshape(2, 2, 3).swapaxes(0, 1).ravel()
    others = {
        f"qkv.{word}": np.concatenate([params[f"q.{word}"], params[f"kv.{word}"][order]]) for word in ("weight", "bias")
    }
    others |= {name: value for name, value in params.items() if name.startswith("pos_embed")}
    run, expected = (m(p, inputs["x"]) for m, p in ((module, params), (whole, others)))
    np.testing.assert_allclose(run.output, expected.output, rtol=1e-11)
    dy = np.cos(run.output)
    np.testing.assert_allclose(run.backward(dy)[0], expected.backward(dy)[0], rtol=1e-9, atol=1e-12)


def test_a_query_sees_its_block_and_the_halo_and_nothing_else():
    module = HaloAttention(channels=4, heads=2, head_dim=2, block_size=2, halo_size=1)
    params, inputs = generic_values(module, batch=1, height=6, width=8)
    x = inputs["x"]
    run = module(params, x)
    dy = np.zeros_like(run.output)
    dy[:, :, 2, 5] = 1  # in the block of rows 2 and 3, columns 4 and 5
    seen = run.backward(dy)[0][0].any(axis=0)
    expected = np.zeros((6, 8), bool)
    expected[1:5, 3:7] = True
    np.testing.assert_array_equal(seen, expected)
    weights = module.attention_map(params, x, rows=[2 * 8 + 5])
    np.testing.assert_array_equal((weights != 0).all(axis=(0, 1, 2)), expected.ravel())
    np.testing.assert_allclose(weights.sum(axis=3), 1, rtol=1e-13)


@given(cases(halo_modules()))
@settings(max_examples=20)
def test_weights_average_the_values_and_keys_beyond_the_map_take_the_rest(case):
    module, params, inputs = case
    x = inputs["x"]
    weights = module.attention_map(params, x)
    assert (weights.sum(axis=3) <= 1 + 1e-12).all()
    if not module.halo_size:
        np.testing.assert_allclose(weights.sum(axis=3), 1, rtol=1e-12)
    kv = np.einsum("oc,bchw->bohw", params["kv.weight"][:, :, 0, 0], x)
    if module.bias:
        kv += params["kv.bias"][:, None, None]
    v = kv.reshape(len(x), module.heads, -1, weights.shape[3])[:, :, module.head_channels :]
    o = v @ weights.swapaxes(2, 3)
    if not module.averages:
        output = module(params, x).output
        np.testing.assert_allclose(output, o.reshape(output.shape), rtol=1e-9, atol=1e-12)
    rows = [0, weights.shape[2] - 1]
    np.testing.assert_array_equal(module.attention_map(params, x, rows), weights[:, :, rows])


def test_a_stride_skips_queries_of_even_blocks_and_averages_what_odd_ones_put_out():
    options = {"channels": 4, "heads": 2, "head_dim": 2, "halo_size": 1}
    for block, averages in ((2, False), (3, True)):
        module = HaloAttention(**options, block_size=block, stride=2)
        params, inputs = generic_values(module, height=6, width=6)
        whole = HaloAttention(**options, block_size=block)(params, inputs["x"]).output
        averaged = whole.reshape(len(whole), 4, 3, 2, 3, 2).mean(axis=(3, 5))
        assert np.allclose(module(params, inputs["x"]).output, averaged, rtol=1e-10) == averages == module.averages


def test_vectors_of_offsets_that_no_query_has_get_no_gradient():
    module = HaloAttention(channels=4, heads=2, head_dim=2, block_size=2, halo_size=2)
    params, inputs = generic_values(module, height=8, width=8)
    run = module(params, inputs["x"])
    _, grads = run.backward(np.sin(run.output))
    for name in ("height_rel", "width_rel"):  # from -1 to 5, of -5 to 5
        np.testing.assert_array_equal(grads[f"pos_embed.{name}"].any(axis=1), [False] * 4 + [True] * 7)


@for_each(
    ("options", "message"),
    [
        ({"heads": 3}, "HaloAttention: heads=3; expected a divisor of out_channels=16"),
        ({"heads": 16, "qk_ratio": 0.5}, "HaloAttention: heads=16; expected at most 8, channels of all queries"),
        ({"stride": 3}, "HaloAttention: stride=3; expected 1 or 2"),
        ({"block_size": 0}, "HaloAttention: block_size=0; expected an integer of at least 1"),
        ({"halo_size": -1}, "HaloAttention: halo_size=-1; expected an integer of at least 0"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, message):
    with pytest.raises(ValueError, match=r".") as caught:
        HaloAttention(channels=16, **options)
    assert str(caught.value).startswith(message)


def test_maps_that_blocks_do_not_fill_are_refused():
    module = HaloAttention(channels=16, block_size=4)
    with pytest.raises(ValueError, match="expected multiples of block_size=4 for height and width"):
        module(module.init(), np.ones((1, 16, 8, 6)))
    module = HaloAttention(channels=16, block_size=1, stride=2)
    with pytest.raises(ValueError, match="expected at least 2 rows and columns for stride=2"):
        module(module.init(), np.ones((1, 16, 1, 6)))


def test_both_passes_hold_less_than_four_times_the_logits():
    module = HaloAttention(channels=32, heads=4, block_size=8, halo_size=3)
    blocks, queries, keys = 64, 64, 14 * 14
    assert peak_of_pass(module, 64) < 4 * module.heads * blocks * queries * keys * 4
