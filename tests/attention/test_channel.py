import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ChannelAttention
from npattn.oracle import generic_values, gradcheck
from tests.attention.parity import assert_parity
from tests.naming import for_each
from tests.strategies import cam_modules, cases, seeds

every_variant = pytest.mark.parametrize("variant", ["paper", "code"])
scales = st.sampled_from([0.1, 0.5, 1.0, 3.0])


def published(module):
    """The PyTorch form, with the names of the authors' code."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            rows = x.flatten(2)
            energy = torch.bmm(rows, rows.transpose(1, 2))
            if module.variant == "code":
                energy = torch.max(energy, -1, keepdim=True)[0].expand_as(energy) - energy
            mixed = torch.bmm(torch.softmax(energy, -1), rows)
            return self.gamma * mixed.view_as(x) + x

    return Reference()


def small(module, scale=0.5, **options):
    """Generic values on which no softmax is all but a maximum."""
    params, inputs = generic_values(module, **{"height": 2, "width": 3} | options)
    return params, scale * inputs["x"]


@given(cases(cam_modules()), scales, seeds)
@settings(max_examples=50)
def test_output_and_gradients_agree_with_pytorch(case, scale, seed):
    module, params, inputs = case
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape)
    assert_parity(module, published(module), params, scale * inputs["x"], dy, floor=1e-2)


@every_variant
def test_a_published_state_dict_loads_unchanged(variant):
    module = ChannelAttention(12, variant)
    reference = published(module)
    reference.gamma.data.fill_(0.7)
    params = module.from_state_dict({f"sc.{name}": value for name, value in reference.state_dict().items()}, "sc.")
    assert params["gamma"].dtype == np.float32
    x = small(module, dtype=np.float32)[1].astype(np.float32)
    torch = pytest.importorskip("torch")
    expected = reference(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(module(params, x).output, expected, rtol=1e-5, atol=1e-6)


@given(cases(cam_modules()), scales)
@settings(max_examples=25)
def test_every_entry_of_the_jacobian_is_exact_where_no_softmax_saturates(case, scale):
    module, params, inputs = case
    x = scale / np.sqrt(inputs["x"][0, 0].size) * inputs["x"]
    report = gradcheck(module, params, x[:1], method="jacobian" if x[:1].size < 200 else "adjoint")
    assert report.passed, report


@every_variant
def test_untrained_module_hands_its_input_and_its_gradient_on(variant):
    module = ChannelAttention(6, variant)
    x = small(module)[1]
    run = module(module.init(), x)
    dx, grads = run.backward(2 * x)
    np.testing.assert_array_equal(run.output, x)
    np.testing.assert_array_equal(dx, 2 * x)
    assert grads["gamma"][0] != 0  # or it would never begin to learn


@given(cases(cam_modules()))
def test_weights_of_every_mixture_are_positive_and_add_up_to_one(case):
    module, params, inputs = case
    affinity = module(params, inputs["x"] / 5).attention["affinity"]
    assert affinity.shape == (len(inputs["x"]), module.channels, module.channels)
    assert (affinity > 0).all()
    np.testing.assert_allclose(affinity.sum(axis=-1), 1, rtol=1e-13)


@given(cases(cam_modules()))
def test_paper_attends_most_to_the_largest_inner_product_and_code_to_the_smallest(case):
    module, params, inputs = case
    x = inputs["x"] / 5
    energy = np.einsum("bjhw,bihw->bji", x, x)
    affinity = module(params, x).attention["affinity"]
    chosen = energy.argmax(axis=-1) if module.variant == "paper" else energy.argmin(axis=-1)
    np.testing.assert_array_equal(affinity.argmax(axis=-1), chosen)
    ordered = np.take_along_axis(affinity, energy.argsort(axis=-1), axis=-1)
    rising = np.diff(ordered, axis=-1) >= 0
    assert rising.all() if module.variant == "paper" else (np.diff(ordered, axis=-1) <= 0).all()


@every_variant
def test_row_of_the_affinity_belongs_to_the_channel_that_is_mixed(variant):
    module = ChannelAttention(4, variant)
    params, x = small(module)
    run = module(params, x)
    mixed = np.einsum("bji,bihw->bjhw", run.attention["affinity"], x)
    np.testing.assert_allclose(run.output, params["gamma"] * mixed + x, rtol=1e-13)
    assert not np.allclose(run.attention["affinity"], run.attention["affinity"].swapaxes(1, 2))


@given(cases(cam_modules()), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_renaming_channels_and_moving_positions_does_the_same_to_the_output(case, random):
    module, params, inputs = case
    x = inputs["x"] / 5
    channels, columns = list(range(module.channels)), list(range(x.shape[3]))
    random.shuffle(channels)
    random.shuffle(columns)
    moved = module(params, x[:, channels][..., columns]).output
    np.testing.assert_allclose(moved, module(params, x).output[:, channels][..., columns], rtol=1e-10, atol=1e-12)


@every_variant
def test_affinity_does_not_forget_how_strong_a_channel_is(variant):
    """An inner product is no cosine: all channels point the same way here, and the strong or the weak one wins."""
    x = np.array([1.0, 3.0, 2.0])[:, None] * np.ones((1, 3, 4))
    affinity = ChannelAttention(3, variant)({"gamma": np.ones(1)}, x.reshape(1, 3, 2, 2)).attention["affinity"]
    np.testing.assert_array_equal(affinity[0].argmax(axis=-1), 1 if variant == "paper" else 0)


@every_variant
def test_equal_channels_share_their_weight_and_their_gradient(variant):
    module = ChannelAttention(5, variant)
    x = np.broadcast_to(small(module)[1][:, :1], (2, 5, 2, 3)).copy()
    run = module({"gamma": np.array([0.5])}, x)
    np.testing.assert_array_equal(run.attention["affinity"], 0.2)
    np.testing.assert_allclose(run.output, 1.5 * x, rtol=1e-15)
    np.testing.assert_allclose(run.backward(np.ones_like(x))[0], 1.5, rtol=1e-14)


@every_variant
def test_large_maps_saturate_the_softmax_without_overflow(variant):
    module = ChannelAttention(6, variant)
    params, x = small(module, scale=3000, height=40, width=40, dtype=np.float32)
    x = x.astype(np.float32)
    run = module(params, x)
    dx, grads = run.backward(x)
    energy = np.einsum("bjhw,bihw->bji", x, x)
    assert np.abs(energy).max() > 1e6
    chosen = energy.argmax(axis=-1) if variant == "paper" else energy.argmin(axis=-1)
    np.testing.assert_array_equal(run.attention["affinity"], np.eye(6, dtype=np.float32)[chosen])
    for result in (run.output, dx, grads["gamma"]):
        assert np.isfinite(result).all()


@every_variant
def test_batch_is_mixed_image_by_image(variant):
    module = ChannelAttention(4, variant)
    params, x = small(module, batch=3)
    output = module(params, x).output
    changed = x.copy()
    changed[1] *= -2
    np.testing.assert_array_equal(module(params, changed).output[[0, 2]], output[[0, 2]])
    assert not np.allclose(module(params, changed).output[1], output[1])


@for_each(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "ChannelAttention: channels=0; expected an integer of at least 1"),
        ((8.0,), TypeError, "ChannelAttention: channels=8.0 is a float; expected an int"),
        ((8, "Code"), ValueError, "variant='Code'; did you mean 'code'\\? \\(expected 'paper' or 'code'\\)"),
        ((8, "official"), ValueError, "variant='official' \\(expected 'paper' or 'code'\\)"),
        ((8, None), TypeError, "variant=None is a NoneType; expected 'paper' or 'code'"),
        ((8, ["code"]), TypeError, "variant=\\['code'\\] is a list; expected 'paper' or 'code'"),
    ],
)
def test_impossible_hyperparameters_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ChannelAttention(*arguments)
