import numpy as np
import pytest
from hypothesis import assume, given, settings

from npattn import SpatialGroupEnhance
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in, assert_rearranged_alike, assert_state_dict_loads
from tests.strategies import cases, seeds, sge_modules


def published(module):
    """The formula of the authors' code in PyTorch, without its division of 0 by 0 on a map of one position."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, module.groups, 1, 1))
            self.bias = torch.nn.Parameter(torch.ones(1, module.groups, 1, 1))

        def forward(self, x):
            groups = x.unflatten(1, (module.groups, -1))
            similarity = (groups * groups.mean((3, 4), keepdim=True)).sum(2)
            centred = similarity - similarity.mean((2, 3), keepdim=True)
            if x[0, 0].numel() > 1:
                correction = 1 if module.variant == "code" else 0
                centred = centred / (similarity.std((2, 3), correction=correction, keepdim=True) + 1e-5)
            gates = torch.sigmoid(centred * self.weight + self.bias)
            return (groups * gates[:, :, None]).flatten(1, 2)

    return Reference()


def spread(module, x):
    """The least standard deviation of the similarities of a group, beside the largest of them; 1 of one position."""
    groups = x.reshape(len(x), module.groups, -1, x[0, 0].size)
    similarity = (groups * groups.mean(axis=3, keepdims=True)).sum(axis=2)
    return 1 if x[0, 0].size == 1 else np.min(similarity.std(axis=2) / np.abs(similarity).max(axis=2))


@given(cases(sge_modules()), seeds)
@settings(max_examples=50)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    module, _, inputs = case
    assume(spread(module, inputs["x"]) > 1e-2)  # rounding is divided by its square
    assert_parity_in(case, published, seed, floor=1e-3)


def test_a_published_state_dict_loads_unchanged():
    module = SpatialGroupEnhance(channels=12, groups=4)
    assert_state_dict_loads(module, published(module))


def test_training_starts_with_the_same_gate_everywhere():
    module = SpatialGroupEnhance(channels=128)
    x = generic_values(module)[1]["x"]
    np.testing.assert_allclose(module(module.init(), x).output, x / (1 + np.exp(-1)), rtol=1e-14)


@given(cases(sge_modules()), seeds)
def test_positions_in_another_order_give_outputs_in_that_order(case, seed):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], np.random.RandomState(seed))


@given(cases(sge_modules()))
def test_a_group_sees_itself_alone(case):
    module, params, inputs = case
    x = inputs["x"]
    moved = x.copy()
    each = module.channels // module.groups
    moved[0, :each] *= 3
    changed = module(params, moved).output != module(params, x).output
    changed[0, :each] = False
    assert not changed.any()


def test_a_group_that_is_stretched_keeps_its_gates():
    module = SpatialGroupEnhance(channels=6, groups=2)
    params, inputs = generic_values(module)
    gates = module(params, inputs["x"]).attention["group"]
    np.testing.assert_allclose(module(params, 50 * inputs["x"]).attention["group"], gates, rtol=1e-4)


def test_a_position_that_is_like_the_average_passes_more_where_the_scale_is_positive():
    module = SpatialGroupEnhance(channels=3, groups=1)
    params = {"weight": np.ones((1, 1, 1, 1)), "bias": np.zeros((1, 1, 1, 1))}
    x = generic_values(module, height=4, width=5)[1]["x"][:1]
    similarity = np.einsum("bchw,bc->bhw", x, x.mean(axis=(2, 3)))
    gates = module(params, x).attention["group"][:, 0]
    np.testing.assert_array_equal(gates.ravel().argsort(), similarity.ravel().argsort())
    assert ((gates > 0.5) == (similarity > similarity.mean())).all()


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_one_position_and_a_group_without_deviation_have_the_gate_of_the_shift(variant):
    module = SpatialGroupEnhance(channels=4, groups=2, variant=variant)
    params = module.init(seed=1, generic=True)
    gates = 1 / (1 + np.exp(-np.repeat(params["bias"], 2, axis=1)))
    for shape in [(1, 4, 1, 1), (2, 4, 2, 2)]:
        run = module(params, np.full(shape, 7.0))
        np.testing.assert_allclose(run.output, np.broadcast_to(7 * gates, shape), rtol=1e-14)
        dx, grads = run.backward(np.ones(shape))
        np.testing.assert_allclose(dx, np.broadcast_to(gates, shape), rtol=1e-14)
        assert not grads["weight"].any()


def test_groups_that_can_not_share_the_channels_are_refused():
    with pytest.raises(ValueError, match=r"SpatialGroupEnhance: groups=5; expected a divisor of channels=12.*10 or 15"):
        SpatialGroupEnhance(channels=12, groups=5)
