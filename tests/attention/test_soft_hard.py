import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import HardAttention, SoftHardAttention
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity, assert_state_dict_loads
from tests.naming import for_each
from tests.strategies import cases, seeds, soft_hard_modules


def published(module):
    """The PyTorch form, by topk."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.score = torch.nn.Conv2d(module.channels, 1, 1)

        def forward(self, x):
            t, index = self.score(x).flatten(1).topk(module.k, dim=1)
            features = x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1))
            return (features @ torch.softmax(t, dim=1)[:, :, None])[:, :, 0]

    return Reference()


def masked(module):
    """The same as soft attention whose other scores are -inf."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.score = torch.nn.Conv2d(module.channels, 1, 1)

        def forward(self, x):
            s = self.score(x).flatten(1)
            kept = torch.zeros_like(s, dtype=torch.bool).scatter(1, s.topk(module.k, dim=1).indices, True)
            a = torch.softmax(s.masked_fill(~kept, -torch.inf), dim=1)
            return (x.flatten(2) * a[:, None]).sum(dim=2)

    return Reference()


def flat(x):
    return x.reshape(*x.shape[:-2], -1)


def scores(params, x):
    """Scores, added up position by position as the module does."""
    weight, bias = params.values()
    return np.einsum("bcn,c->bn", flat(x), weight.ravel()) + bias


def plain(k, rows):
    """A module that scores by the first channel, and a map of one row with these channels."""
    x = np.array(rows, dtype=float)[None, :, None]
    weight = np.zeros((1, len(rows), 1, 1))
    weight[0, 0] = 1
    return SoftHardAttention(len(rows), k), {"score.weight": weight, "score.bias": np.zeros(1)}, x


def chosen(run):
    """Positions with a weight, image by image."""
    return [np.flatnonzero(row).tolist() for row in flat(run.attention["weights"])]


@pytest.mark.parametrize("form", [published, masked])
@given(cases(soft_hard_modules()), seeds)
@settings(max_examples=20)
def test_output_and_gradients_agree_with_pytorch(form, case, seed):
    module, params, inputs = case
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape[:2])
    assert_parity(module, form(module), params, inputs["x"], dy, floor=1e-2)


def test_a_published_state_dict_loads_unchanged():
    module = SoftHardAttention(channels=12, k=5)
    assert_state_dict_loads(module, published(module))


@given(cases(soft_hard_modules()))
def test_the_highest_scores_share_the_weight_by_softmax_and_the_others_have_none(case):
    module, params, inputs = case
    x = inputs["x"]
    run = module(params, x)
    for s, a, features, y in zip(scores(params, x), flat(run.attention["weights"]), flat(x), run.output, strict=True):
        kept = sorted(range(s.size), key=lambda n, s=s: -s[n])[: module.k]
        expected = np.zeros_like(s)
        expected[kept] = np.exp(s[kept]) / np.exp(s[kept]).sum()
        np.testing.assert_allclose(a, expected, rtol=1e-11, atol=1e-300)
        assert not a[expected == 0].any()
        np.testing.assert_allclose(y, features @ expected, rtol=1e-10, atol=1e-12)


@given(cases(soft_hard_modules()), seeds)
@settings(max_examples=25)
def test_with_all_positions_it_is_soft_attention(case, seed):
    module, params, inputs = case
    x = inputs["x"]
    run = SoftHardAttention(module.channels, k=flat(x).shape[2])(params, x)
    soft = HardAttention(module.channels).expected_output(params, x)
    dy = np.random.RandomState(seed).standard_normal(run.output.shape)
    np.testing.assert_allclose(run.output, soft.output, rtol=1e-10, atol=1e-12)
    (dx, grads), (dx_soft, grads_soft) = run.backward(dy), soft.backward(dy)
    for found, expected in zip((dx, *grads.values()), (dx_soft, *grads_soft.values()), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


@given(cases(soft_hard_modules()), seeds)
@settings(max_examples=25)
def test_with_one_position_it_is_the_feature_at_the_highest_score(case, seed):
    module, params, inputs = case
    x = inputs["x"]
    run = SoftHardAttention(module.channels, k=1)(params, x)
    best = scores(params, x).argmax(axis=1)
    np.testing.assert_array_equal(run.output, np.stack([flat(x)[b, :, n] for b, n in enumerate(best)]))
    without_noise = HardAttention(module.channels)(params, x, np.zeros((len(x), flat(x).shape[2])))
    np.testing.assert_array_equal(run.output, without_noise.output)
    dy = np.random.RandomState(seed).standard_normal(run.output.shape)
    dx, grads = run.backward(dy)
    assert not any(grad.any() for grad in grads.values())
    np.testing.assert_array_equal(flat(dx).sum(axis=2), dy)
    assert chosen(run) == [[n] for n in best]


@given(cases(soft_hard_modules()), seeds)
@settings(max_examples=25)
def test_positions_that_are_not_chosen_have_no_gradient_and_no_effect(case, seed):
    module, params, inputs = case
    x = inputs["x"]
    run = module(params, x)
    dx, _ = run.backward(np.random.RandomState(seed).standard_normal(run.output.shape))
    left_out = run.attention["weights"] == 0
    assert not dx[np.broadcast_to(left_out[:, None], x.shape)].any()
    lowered = x - np.where(left_out[:, None], 3.0, 0.0) * params["score.weight"]  # their scores fall
    np.testing.assert_array_equal(module(params, lowered).output, run.output)


@given(cases(soft_hard_modules()), seeds)
@settings(max_examples=25)
def test_moving_positions_changes_nothing_and_moves_the_gradient_with_them(case, seed):
    module, params, inputs = case
    x = inputs["x"]
    order = np.random.RandomState(seed).permutation(flat(x).shape[2])
    rearranged = np.take(flat(x), order, axis=2).reshape(x.shape)
    run, moved = module(params, x), module(params, rearranged)
    np.testing.assert_array_equal(moved.output, run.output)
    np.testing.assert_array_equal(flat(moved.attention["weights"]), flat(run.attention["weights"])[:, order])
    dx, dx_moved = (flat(p.backward(run.output)[0]) for p in (run, moved))
    np.testing.assert_allclose(dx_moved, dx[:, :, order], rtol=1e-11, atol=1e-13)


# Ties


@for_each(
    ("row", "k", "expected"),
    [
        ([5, 5, 5, 5], 1, [0]),
        ([5, 5, 5, 5], 3, [0, 1, 2]),
        ([1, 5, 1, 5], 2, [1, 3]),
        ([1, 5, 1, 5], 3, [0, 1, 3]),
        ([0, 1, 2, 1, 1], 2, [1, 2]),
        ([0, 1, 2, 1, 1], 3, [1, 2, 3]),
        ([-0.0, 0.0, -0.0, 0.0], 2, [0, 1]),
    ],
)
def test_of_equal_scores_the_first_are_chosen(row, k, expected):
    module, params, x = plain(k, [row])
    assert chosen(module(params, x)) == [expected]


@given(st.integers(1, 40), st.integers(1, 70), seeds)
def test_equal_features_have_equal_scores_wherever_they_stand(channels, positions, seed):
    module = SoftHardAttention(channels, k=(positions + 1) // 2)
    params, inputs = generic_values(module, height=1, width=module.k, seed=seed)
    x = np.repeat(inputs["x"][:, :, :, :1], positions, axis=3)
    run = module(params, x)
    assert chosen(run) == [list(range(module.k))] * 2
    np.testing.assert_allclose(flat(run.attention["weights"])[:, : module.k], 1 / module.k, rtol=1e-13)


@given(st.floats(-3, 3), st.floats(-2, 2), seeds)
def test_the_output_jumps_by_the_weight_times_the_difference_of_features(top, tie, seed):
    random = np.random.RandomState(seed)
    module, params, x = plain(2, [[tie + 1 + abs(top), tie, tie, tie - 1], *random.standard_normal((3, 4))])
    outputs = {}
    for lift in (-1e-9, 0.0, 1e-9):
        x[0, 0, 0, 2] = tie + lift
        outputs[lift] = module(params, x).output[0]
    weight = 1 / (1 + np.exp(1 + abs(top)))
    jump = weight * (x[0, :, 0, 2] - x[0, :, 0, 1])
    np.testing.assert_allclose(outputs[1e-9] - outputs[-1e-9], jump, atol=1e-7)
    np.testing.assert_array_equal(outputs[0.0], outputs[-1e-9])


def test_a_change_of_places_within_the_choice_is_no_jump():
    module, params, x = plain(3, [[2.0, 1.0, 1.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    outputs = []
    for lift in (-1e-12, 0, 1e-12):
        x[0, 0, 0, 2] = 1 + lift
        outputs.append(module(params, x).output)
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-11)
    np.testing.assert_allclose(outputs[2], outputs[1], rtol=1e-11)


# Extremes


@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e100, 1e300])
def test_extreme_maps_give_finite_results(scale):
    module = SoftHardAttention.example()
    params, inputs = generic_values(module)
    run = module(params, scale * inputs["x"])
    dx, grads = run.backward(np.ones_like(run.output))
    for array in (run.output, run.attention["weights"], dx, *grads.values()):
        assert np.isfinite(array).all()
    if scale > 1:  # all weight on the highest score
        np.testing.assert_allclose(run.output, SoftHardAttention(32, 1)(params, scale * inputs["x"]).output, rtol=1e-12)


@pytest.mark.parametrize("position", [0, 3, 6])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_a_score_that_is_nan_is_chosen_and_seen(position, k):
    module, params, x = plain(k, [[9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], np.arange(7.0)])
    x[0, 0, 0, position] = np.nan
    assert np.isnan(module(params, x).output[0, 0])


def test_an_infinite_feature_that_is_not_chosen_is_not_seen():
    module, params, x = plain(2, [[9.0, -np.inf, 2.0, 3.0], [1.0, 4.0, 2.0, 3.0]])
    run = module(params, x)
    assert chosen(run) == [[0, 3]]
    assert np.isfinite(run.output).all()
    x[0, 0, 0, 1] = -1
    np.testing.assert_array_equal(module(params, x).output, run.output)


# Bad input


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9))
def test_more_positions_than_the_map_has_are_refused(height, width, excess):
    k = height * width + excess
    module = SoftHardAttention(channels=3, k=k)
    x = np.ones((2, 3, height, width))
    message = (
        f"{module}: x has shape {x.shape}; expected at least k={k} positions to choose from, the map has "
        f"{height * width}: give a larger map or a smaller k"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        module(module.init(), x)
    SoftHardAttention(channels=3, k=height * width)(module.init(), x)


@pytest.mark.parametrize("name", ["channels", "k"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "expected an integer of at least 1"),
        (-3, ValueError, "expected an integer of at least 1"),
        (2.0, TypeError, "is a float; expected an int"),
        (True, TypeError, "is a bool; expected an int"),
        (None, TypeError, "is a NoneType; expected an int"),
    ],
)
def test_what_is_no_integer_of_at_least_1_is_refused_by_name(name, value, error, message):
    with pytest.raises(error, match=rf"SoftHardAttention: {name}={value!r}.*{message}"):
        SoftHardAttention(**{"channels": 8, "k": 3, name: value})


def test_training_starts_as_hard_attention_does():
    hard, soft_hard = HardAttention(64).init(seed=3), SoftHardAttention(64, k=2).init(seed=3)
    assert list(hard) == list(soft_hard)
    for name, value in hard.items():
        np.testing.assert_array_equal(soft_hard[name], value)
