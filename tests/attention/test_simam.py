import numpy as np
import pytest
from hypothesis import given, settings

from npattn import SimAM
from tests.attention.parity import assert_parity_in, assert_rearranged_alike, assert_state_dict_loads
from tests.strategies import cases, seeds, simam_modules


def published(module):
    """The formula of the authors' code in PyTorch, without its division of 0 by 0 on a map of one position."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def forward(self, x):
            degrees = x.shape[2] * x.shape[3] - (1 if module.variant == "code" else 0)
            squares = (x - x.mean(dim=(2, 3), keepdim=True)).pow(2)
            variance = squares.sum(dim=(2, 3), keepdim=True) / max(degrees, 1)
            return x * torch.sigmoid(squares / (4 * (variance + module.e_lambda)) + 0.5)

    return Reference()


@given(cases(simam_modules()), seeds)
@settings(max_examples=50)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed)


def test_a_published_state_dict_is_empty_and_loads():
    module = SimAM(channels=16)
    assert_state_dict_loads(module, published(module))
    assert module.init() == {}


@pytest.mark.parametrize("e_lambda", [1e-4, 1.0])
def test_the_papers_gate_is_that_of_the_least_energy_that_a_linear_classifier_has(e_lambda):
    """It is to say 1 of the number itself and -1 of its channel, in the mean of squares, and is fitted to each anew."""
    x = np.random.RandomState(0).standard_normal((1, 1, 3, 4))
    gates = SimAM(channels=1, e_lambda=e_lambda, variant="paper")({}, x).attention["gate"]
    root = x.size**-0.5
    for value, gate in zip(x.flat, gates.flat, strict=True):
        channel = [(root * other, root) for other in x.flat]
        rows = np.array([*channel, (value, 1), (e_lambda**0.5, 0)])
        labels = np.array([-root] * x.size + [1, 0])
        _, [energy], *_ = np.linalg.lstsq(rows, labels, rcond=None)
        assert gate == pytest.approx(1 / (1 + np.exp(-1 / energy)), rel=1e-12)


@given(cases(simam_modules()), seeds)
def test_moving_a_channel_as_a_whole_moves_no_gate(case, seed):
    module, params, inputs = case
    x = inputs["x"]
    shift = np.random.RandomState(seed).standard_normal((*x.shape[:2], 1, 1))
    gates = module(params, x).attention["gate"]
    np.testing.assert_allclose(module(params, x + shift).attention["gate"], gates, rtol=1e-9)


@given(cases(simam_modules()))
def test_a_gate_is_at_least_that_of_the_mean_and_grows_with_the_distance_from_it(case):
    module, params, inputs = case
    x = inputs["x"]
    gates = module(params, x).attention["gate"].reshape(-1, x[0, 0].size)
    assert gates.min() >= 1 / (1 + np.exp(-0.5))
    distance = np.abs(x - x.mean(axis=(2, 3), keepdims=True)).reshape(gates.shape)
    in_order = np.take_along_axis(gates, distance.argsort(axis=1), axis=1)
    assert (np.diff(in_order, axis=1) >= -1e-13).all()


@given(cases(simam_modules()), seeds)
@settings(max_examples=25)
def test_positions_in_another_order_give_outputs_in_that_order(case, seed):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], np.random.RandomState(seed))


@given(cases(simam_modules()))
def test_a_channel_sees_itself_alone(case):
    module, params, inputs = case
    x = inputs["x"]
    moved = x.copy()
    moved[0, 0] *= 3
    changed = module(params, moved).output != module(params, x).output
    changed[0, 0] = False
    assert not changed.any()


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_one_position_and_a_channel_without_variance_have_the_gate_of_a_half(variant):
    module = SimAM(channels=2, variant=variant)
    for shape in [(1, 2, 1, 1), (2, 2, 3, 4)]:
        run = module({}, np.full(shape, 7.0))
        np.testing.assert_allclose(run.output, 7 / (1 + np.exp(-0.5)), rtol=1e-14)
        dx, _ = run.backward(np.ones(shape))
        np.testing.assert_allclose(dx, 1 / (1 + np.exp(-0.5)), rtol=1e-14)


@pytest.mark.parametrize("e_lambda", [0, -1e-4])
def test_a_constant_that_is_not_above_0_is_refused(e_lambda):
    with pytest.raises(ValueError, match=f"SimAM: e_lambda={e_lambda}; expected a number above 0"):
        SimAM(channels=8, e_lambda=e_lambda)
