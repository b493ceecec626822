import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import PolarizedSelfAttention
from tests.attention.parity import assert_parity_in, assert_rearranged_alike, assert_runs, assert_state_dict_loads
from tests.strategies import cases, polarized_modules, seeds

FORMS = [(form, variant) for form in ("parallel", "sequential") for variant in ("code", "paper")]
every_form = pytest.mark.parametrize(("form", "variant"), FORMS)


def published(module):
    """The forms of the authors' code in PyTorch, and the paper's, with the code's names."""
    torch = pytest.importorskip("torch")
    nn, channels, hidden, paper = torch.nn, module.channels, module.hidden_channels, module.variant == "paper"

    def conv(out):
        layer = nn.Conv2d(channels, out, 1, bias=paper)
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        if paper:
            nn.init.zeros_(layer.bias)
        return layer

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_q_right, self.conv_v_right = conv(1), conv(hidden)
            if paper:
                self.conv_up, self.ln = nn.Conv2d(hidden, channels, 1), nn.LayerNorm(channels)
            elif module.form == "parallel":
                self.conv_up = nn.Conv2d(hidden, channels, 1, bias=False)
            else:
                narrow = max(1, hidden // 4)
                layers = nn.Conv2d(hidden, narrow, 1), nn.LayerNorm([narrow, 1, 1]), nn.ReLU()
                self.conv_up = nn.Sequential(*layers, nn.Conv2d(narrow, channels, 1))
            self.conv_q_left, self.conv_v_left = conv(hidden), conv(hidden)

        def gate_channels(self, x):
            weights = self.conv_q_right(x).flatten(2).softmax(dim=2)
            context = self.conv_v_right(x).flatten(2) @ weights.transpose(1, 2)
            up = self.conv_up(context[..., None])
            up = self.ln(up.flatten(1))[..., None, None] if paper else up
            return x * torch.sigmoid(up)

        def gate_positions(self, x):
            query, values = self.conv_q_left(x).mean(dim=(2, 3)), self.conv_v_left(x).flatten(2)
            if paper:
                products = query.softmax(dim=1)[:, None] @ values
            elif module.form == "parallel":
                products = (query[:, None] @ values).softmax(dim=2)
            else:
                products = query[:, None] @ values.softmax(dim=2)
            return x * torch.sigmoid(products.reshape(len(x), 1, *x.shape[2:]))

        def forward(self, x):
            if module.form == "parallel":
                return self.gate_channels(x) + self.gate_positions(x)
            return self.gate_positions(self.gate_channels(x))

    return Reference()


@given(cases(polarized_modules()), seeds)
@settings(max_examples=20)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed, floor=0.1)  # that of a query's bias is 0


@every_form
def test_a_published_state_dict_loads_unchanged(form, variant):
    module = PolarizedSelfAttention(24, form, variant)
    assert_state_dict_loads(module, published(module))


@every_form
def test_training_starts_where_pytorch_starts(form, variant):
    module = PolarizedSelfAttention(64, form, variant)
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = {name: tensor.numpy() for name, tensor in published(module).state_dict().items()}
    for name, ours in module.init(seed=1).items():
        assert ours.std() == pytest.approx(theirs[name].std(), rel=4 / ours.size**0.5), name


def test_layers_on_pooled_numbers_start_within_their_bounds():
    module = PolarizedSelfAttention(64)
    assert np.abs(module.init(seed=1)["conv_up.weight"]).max() == pytest.approx(32**-0.5, rel=0.01)


@given(cases(polarized_modules().filter(lambda module: module.variant == "paper")))
@settings(max_examples=20)
def test_the_names_of_a_re_implementation_of_the_papers_form_are_read(case):
    module, params, _ = case
    names = {"conv_q_right": "ch_wq", "conv_v_right": "ch_wv", "conv_up": "ch_wz", "ln": "ln"}
    names |= {"conv_q_left": "sp_wq", "conv_v_left": "sp_wv"}
    theirs = {}
    for name, value in params.items():
        layer, _, word = name.rpartition(".")
        theirs[f"{names[layer]}.{word}"] = value
    found = module.from_state_dict({f"psa.{name}": value for name, value in theirs.items()}, "psa.")
    assert list(found) == list(params)
    for name, value in params.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


@given(cases(polarized_modules()))
def test_the_output_is_the_map_times_the_sum_or_the_product_of_its_gates(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    a, b = run.attention["channel"][:, :, None, None], run.attention["spatial"]
    expected = inputs["x"] * (a + b if module.form == "parallel" else a * b)
    np.testing.assert_allclose(run.output, expected, rtol=1e-12)


@given(cases(polarized_modules().filter(lambda module: module.variant == "paper")))
@settings(max_examples=25)
def test_in_the_paper_both_forms_have_the_same_gate_of_channels(case):
    module, params, inputs = case
    other = PolarizedSelfAttention(**{**vars(module), "form": "parallel"})
    expected = other(params, inputs["x"]).attention["channel"]
    np.testing.assert_array_equal(module(params, inputs["x"]).attention["channel"], expected)


@given(cases(polarized_modules()), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_positions_may_be_rearranged_and_the_output_is_rearranged_alike(case, random):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], random)


@given(cases(polarized_modules().filter(lambda module: module.gates == "parallel")))
@settings(max_examples=25)
def test_the_codes_parallel_gates_of_positions_exceed_a_half_by_little(case):
    """Their softmax adds up to 1 over the map, so that their logits are 1/N on the average."""
    module, params, inputs = case
    b = module(params, inputs["x"]).attention["spatial"]
    logits = np.log(b / (1 - b))
    np.testing.assert_allclose(logits.sum(axis=(2, 3)), 1, rtol=1e-9)
    assert b.min() >= 0.5
    assert b.max() <= 1 / (1 + np.exp(-1)) + 1e-12


def test_where_the_softmax_stands_tells_the_three_gates_of_positions_apart():
    one = {name: np.ones(shape) for name, shape in PolarizedSelfAttention(2).parameter_shapes().items()}
    left = {"conv_q_left.weight": np.reshape([1.0, 0], (1, 2, 1, 1)), "conv_v_left.weight": np.ones((1, 2, 1, 1))}
    x = np.reshape([[3.0, 3.0], [0.0, np.log(3)]], (1, 2, 1, 2))  # the mean query is 3, the values 3 and 3 + ln 3
    expected = {
        ("parallel", "code"): [1 / (1 + 27), 27 / (1 + 27)],
        ("sequential", "code"): [3 * 1 / 4, 3 * 3 / 4],
        ("parallel", "paper"): [3, 3 + np.log(3)],
    }
    for (form, variant), logits in expected.items():
        module = PolarizedSelfAttention(2, form, variant)
        params = {name: np.zeros(shape) for name, shape in module.parameter_shapes().items()} | left
        if form == "parallel":
            params |= {name: one[name] for name in ("conv_up.weight",)}
        else:  # so that channels are gated by 1, to rounding
            params["conv_up.3.bias"] = np.full(2, 50.0)
        b = module(params, x).attention["spatial"].ravel()
        np.testing.assert_allclose(np.log(b / (1 - b)), logits, rtol=1e-9)


@every_form
@pytest.mark.parametrize("shape", [(1, 1, 1), (0, 3, 2)])
def test_a_single_position_and_an_empty_batch_run(form, variant, shape):
    assert_runs(PolarizedSelfAttention(1, form, variant), *shape)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"form": "both"}, ValueError, "PolarizedSelfAttention: form='both'"),
        ({"variant": "timm"}, ValueError, "PolarizedSelfAttention: variant='timm'"),
        ({"hidden": 0}, ValueError, "PolarizedSelfAttention: hidden=0; expected an integer of at least 1"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        PolarizedSelfAttention(8, **options)
    assert str(caught.value).startswith(message)
