import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import SqueezeExcitation
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in, assert_state_dict_loads, in_pytorch
from tests.strategies import cases, se_modules, seeds


def published(module):
    """The PyTorch form, with torchvision's names."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            hidden = module.hidden or max(1, module.channels // module.reduction)
            self.fc1 = torch.nn.Conv2d(module.channels, hidden, 1, bias=module.bias)
            if module.batch_norm:
                self.bn = torch.nn.BatchNorm2d(hidden)
            self.fc2 = torch.nn.Conv2d(hidden, module.channels, 1, bias=module.bias)

        def forward(self, x):
            p = torch.nn.functional.adaptive_avg_pool2d(x, 1)
            if module.add_maxpool:
                p = 0.5 * p + 0.5 * torch.nn.functional.adaptive_max_pool2d(x, 1)
            h = self.bn(self.fc1(p)) if module.batch_norm else self.fc1(p)
            return x * in_pytorch(module.gate)(self.fc2(in_pytorch(module.activation)(h)))

    return Reference().train(module.training)


@given(cases(se_modules() | se_modules(training=True)), seeds)
@settings(max_examples=25)
def test_output_gradients_and_running_statistics_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed, floor=1e-2)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_published_state_dict_loads_unchanged(batch_norm):
    module = SqueezeExcitation(channels=12, reduction=4, batch_norm=batch_norm)
    assert_state_dict_loads(module, published(module))


@given(st.integers(1, 300), st.integers(1, 40))
def test_the_middle_is_a_fraction_of_the_channels_and_never_empty(channels, reduction):
    shapes = SqueezeExcitation(channels, reduction).parameter_shapes()
    hidden = shapes["fc1.bias"][0]
    assert hidden >= 1
    assert hidden * reduction <= max(channels, reduction)
    assert (hidden + 1) * reduction > channels
    assert shapes["fc1.weight"] == (hidden, channels, 1, 1)
    assert shapes["fc2.weight"] == (channels, hidden, 1, 1)


@given(cases(se_modules()), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_renaming_channels_renames_the_output(case, random):
    module, params, inputs = case
    order = list(range(module.channels))
    random.shuffle(order)
    renamed = dict(params, **{"fc1.weight": params["fc1.weight"][:, order], "fc2.weight": params["fc2.weight"][order]})
    if module.bias:
        renamed["fc2.bias"] = params["fc2.bias"][order]
    output = module(params, inputs["x"]).output
    np.testing.assert_allclose(module(renamed, inputs["x"][:, order]).output, output[:, order], rtol=1e-10, atol=1e-12)


def test_a_number_of_hidden_channels_stands_in_place_of_the_reduction():
    shapes = SqueezeExcitation(64, reduction=2, hidden=5).parameter_shapes()
    assert (shapes["fc1.weight"], shapes["fc2.weight"]) == ((5, 64, 1, 1), (64, 5, 1, 1))


def test_a_hard_gate_beyond_its_corners_is_exact_and_sends_nothing_back():
    module = SqueezeExcitation(channels=2, hidden=1, gate="hard_sigmoid")
    params, inputs = generic_values(module)
    run = module(params | {"fc2.bias": np.array([90.0, -90.0])}, inputs["x"])
    np.testing.assert_array_equal(run.attention["channel"], np.broadcast_to([1.0, 0.0], (len(inputs["x"]), 2)))
    _, grads = run.backward(inputs["x"])
    assert not any(gradient.any() for gradient in grads.values())


def test_a_single_image_is_refused_in_training_where_there_is_a_norm():
    module = SqueezeExcitation(channels=4, batch_norm=True, training=True)
    with pytest.raises(ValueError, match="expected at least two images: in training batch norm behind the pool"):
        module(module.init(), np.ones((1, 4, 5, 5)))
    bare = SqueezeExcitation(channels=4, training=True)
    assert bare(bare.init(), np.ones((1, 4, 5, 5))).buffers == {}


def test_training_starts_from_he_weights_and_zero_biases():
    params = SqueezeExcitation(channels=512, reduction=2).init(seed=3)
    assert not params["fc1.bias"].any()
    assert not params["fc2.bias"].any()
    assert np.std(params["fc1.weight"]) == pytest.approx(np.sqrt(2 / 512), rel=0.02)
    assert np.std(params["fc2.weight"]) == pytest.approx(np.sqrt(2 / 256), rel=0.02)


def test_with_zero_parameters_every_gate_is_one_half():
    module = SqueezeExcitation.example()
    params, inputs = generic_values(module)
    zero = {name: np.zeros_like(value) for name, value in params.items()}
    run = module(zero, inputs["x"])
    np.testing.assert_array_equal(run.attention["channel"], 0.5)
    np.testing.assert_array_equal(run.output, inputs["x"] / 2)
