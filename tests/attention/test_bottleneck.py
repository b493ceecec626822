import numpy as np
import pytest
from hypothesis import given, settings

from npattn import BottleneckAttention, MultiHeadSelfAttention
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity, assert_rearranged_alike, assert_state_dict_loads
from tests.naming import for_each
from tests.strategies import bottleneck_modules, cases, seeds


def published(module):
    """The block in PyTorch as the paper has it, with timm's names."""
    torch = pytest.importorskip("torch")
    nn, (height, width) = torch.nn, module.feat_size

    class Offsets(nn.Module):
        def __init__(self):
            super().__init__()
            self.height_rel = nn.Parameter(torch.randn(2 * height - 1, module.head_channels))
            self.width_rel = nn.Parameter(torch.randn(2 * width - 1, module.head_channels))

        def forward(self, q):
            """Multiply queries (B, n, d, H, W) with the vectors of all pairs of rows, and of columns."""
            rows, columns = torch.arange(height), torch.arange(width)
            of_rows = self.height_rel[rows[None] - rows[:, None] + height - 1]
            of_columns = self.width_rel[columns[None] - columns[:, None] + width - 1]
            down = torch.einsum("bncij,ikc->bnijk", q, of_rows)
            across = torch.einsum("bncij,jlc->bnijl", q, of_columns)
            return (down[..., None] + across[..., None, :]).flatten(4).flatten(2, 3)

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Conv2d(module.channels, sum(module.sizes), 1, bias=module.bias)
            self.pos_embed = Offsets()

        def forward(self, x):
            parts = self.qkv(x).split(module.sizes, 1)
            q, k, v = (a.reshape(len(x), module.heads, -1, height, width) for a in parts)
            relative = self.pos_embed(q) * (module.scale if module.scale_pos_embed else 1)
            q, k, v = (a.flatten(3) for a in (q, k, v))
            weights = (module.scale * (q.transpose(2, 3) @ k) + relative).softmax(3)
            y = (v @ weights.transpose(2, 3)).reshape(parts[2].shape)
            return nn.functional.avg_pool2d(y, 2) if module.stride == 2 else y

    return Reference()


@given(cases(bottleneck_modules()), seeds)
@settings(max_examples=25)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    module, params, inputs = case
    [shape] = module.output_shapes(len(inputs["x"]), 1, 1).values()
    dy = np.random.RandomState(seed).standard_normal(shape)
    assert_parity(module, published(module), params, inputs["x"], dy, floor=0.1)  # with one key no logit counts


@pytest.mark.parametrize("options", [{}, {"bias": True, "stride": 2, "out_channels": 8}])
def test_a_published_state_dict_loads_unchanged(options):
    module = BottleneckAttention(channels=12, feat_size=(4, 5), **options)
    x = generic_values(module)[1]["x"].astype(np.float32)
    assert_state_dict_loads(module, published(module), [x], atol=1e-5)


def test_training_starts_where_timm_starts():
    params = BottleneckAttention(channels=64, feat_size=(20, 30), bias=True).init(seed=1)
    for name, deviation in (("qkv.weight", 1 / 8), ("pos_embed.height_rel", 1 / 4), ("pos_embed.width_rel", 1 / 4)):
        assert params[name].std() == pytest.approx(deviation, rel=0.1), name
    assert np.abs(params["qkv.bias"]).max() == pytest.approx(1 / 8, rel=0.1)


@given(cases(bottleneck_modules()))
@settings(max_examples=20)
def test_weights_of_a_position_add_up_to_one_and_average_the_values(case):
    module, params, inputs = case
    x = inputs["x"]
    weights = module.attention_map(params, x)
    np.testing.assert_allclose(weights.sum(axis=3), 1, rtol=1e-13)
    v = np.einsum("oc,bchw->bohw", params["qkv.weight"][-module.output_channels :, :, 0, 0], x)
    if module.bias:
        v += params["qkv.bias"][-module.output_channels :, None, None]
    o = v.reshape(len(x), module.heads, -1, v[0, 0].size) @ weights.swapaxes(2, 3)
    if module.stride == 1:
        np.testing.assert_allclose(module(params, x).output, o.reshape(v.shape), rtol=1e-9, atol=1e-12)
    rows = [0, v[0, 0].size - 1]
    np.testing.assert_allclose(module.attention_map(params, x, rows), weights[:, :, rows], rtol=1e-12)


@pytest.mark.parametrize("scale_pos_embed", [False, True])
def test_without_offsets_it_is_multi_head_attention_without_its_last_layer(scale_pos_embed):
    module = BottleneckAttention(12, (4, 3), heads=3, head_dim=4, bias=True, scale_pos_embed=scale_pos_embed)
    params, inputs = generic_values(module)
    for name in ("height_rel", "width_rel"):
        params[f"pos_embed.{name}"][:] = 0
    others = {"in_proj_weight": params["qkv.weight"][:, :, 0, 0], "in_proj_bias": params["qkv.bias"]}
    others |= {"out_proj.weight": np.eye(12), "out_proj.bias": np.zeros(12)}
    expected = MultiHeadSelfAttention(12, 3)(others, inputs["x"])
    run = module(params, inputs["x"])
    np.testing.assert_allclose(run.output, expected.output, rtol=1e-12)
    dy = np.cos(run.output)
    np.testing.assert_allclose(run.backward(dy)[0], expected.backward(dy)[0], rtol=1e-10, atol=1e-12)
    assert_rearranged_alike(module, params, inputs["x"], np.random.RandomState(0))


def test_a_position_can_look_by_offset_alone():
    module = BottleneckAttention(channels=1, feat_size=(1, 5), heads=1, head_dim=1)
    params = {"qkv.weight": np.reshape([1.0, 0.0, 1.0], (3, 1, 1, 1)), "pos_embed.height_rel": np.zeros((1, 1))}
    params["pos_embed.width_rel"] = np.zeros((9, 1))
    params["pos_embed.width_rel"][5] = 1000  # one to the right
    x = np.arange(1.0, 6.0).reshape(1, 1, 1, 5)
    np.testing.assert_allclose(module(params, x).output.ravel(), [2, 3, 4, 5, 3], rtol=1e-12)


def test_a_last_row_without_a_second_is_left_out_of_the_averages():
    module = BottleneckAttention(channels=4, feat_size=(3, 5), stride=2, heads=2)
    params, inputs = generic_values(module)
    whole = BottleneckAttention(channels=4, feat_size=(3, 5), heads=2)(params, inputs["x"]).output
    expected = whole[:, :, :2, :4].reshape(*whole.shape[:2], 1, 2, 2, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(module(params, inputs["x"]).output, expected, rtol=1e-13)


@for_each(
    ("options", "error", "message"),
    [
        ({"feat_size": 7}, ValueError, "BottleneckAttention: feat_size=7; expected a pair (height, width)"),
        ({"feat_size": (7, 0)}, ValueError, "BottleneckAttention: feat_size[1]=0; expected an integer of at least 1"),
        ({"heads": 3}, ValueError, "BottleneckAttention: heads=3; expected a divisor of out_channels=8"),
        ({"heads": 5, "out_channels": 10, "qk_ratio": 0.1, "channels": 20}, None, ""),
        (
            {"heads": 16, "out_channels": 16, "qk_ratio": 0.5},
            ValueError,
            "BottleneckAttention: heads=16; expected at most 8, channels of all queries: set head_dim",
        ),
        ({"stride": 3}, ValueError, "BottleneckAttention: stride=3; expected 1 or 2"),
        (
            {"stride": 2, "feat_size": (1, 4)},
            ValueError,
            "BottleneckAttention: feat_size=(1, 4); expected at least 2 rows and columns for stride=2",
        ),
        ({"scale_pos_embed": 1}, TypeError, "BottleneckAttention: scale_pos_embed=1 is an int; expected True or False"),
        ({"qk_ratio": 0}, ValueError, "BottleneckAttention: qk_ratio=0; expected a number above 0"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    given = {"channels": 8, "feat_size": (4, 4)} | options
    if error is None:
        assert BottleneckAttention(**given).head_channels == 1
        return
    with pytest.raises(error) as caught:
        BottleneckAttention(**given)
    assert str(caught.value).startswith(message)


def test_a_map_of_another_size_is_refused_and_told_what_would_do():
    module = BottleneckAttention(channels=4, feat_size=(3, 4))
    with pytest.raises(ValueError, match="expected a map of 3 × 4, for which") as caught:
        module(module.init(), np.ones((1, 4, 4, 3)))
    assert str(caught.value).endswith("resize the map, or set feat_size=(4, 3)")
    assert module.for_size(4, 3)(module.for_size(4, 3).init(), np.ones((1, 4, 4, 3))).output.shape == (1, 4, 4, 3)
