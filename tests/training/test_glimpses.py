import functools

import numpy as np
import pytest

from npattn import layers
from npattn.data import digit_maps
from npattn.parameters import strip_prefix
from npattn.training import ESTIMATORS, evaluate_glimpses, glimpse, train_glimpses
from npattn.training.glimpses import HARD, classes, declare
from npattn.training.network import blocks_to_channels
from npattn.training.steps import NUM_MAPS


@pytest.fixture
def few(monkeypatch):
    """Fewer maps, so that a run takes no second."""
    monkeypatch.setitem(NUM_MAPS, "train", 60)
    monkeypatch.setitem(NUM_MAPS, "test", 20)


@pytest.fixture
def given():
    """Parameters, maps and their digits, in float64."""
    random = np.random.RandomState(0)
    declared = {name: one for part in declare() for name, one in part.items()}
    params = {name: one.draw(random, generic=True) for name, one in declared.items()}
    maps = digit_maps(2, cells=1)
    return params, maps.x, classes(maps)


def drawing(*positions):
    """Noise that selects one position of each map."""
    return np.where(np.arange(25) == np.array(positions)[:, None], 1e4, 0.0)


def slope_of_loss(given, name, direction, noise, estimator):
    """The derivative of the mean loss by one parameter in a direction, by complex step."""
    params, x, labels = given
    moved = {key: value + (1e-200j * direction if key == name else 0j) for key, value in params.items()}
    return glimpse(moved, x + 0j, labels, noise + 0j, estimator)[0].mean().imag / 1e-200


def features(params, x):
    """What the scores are made of."""
    layer = functools.partial(layers.conv_norm_act, params=params, training=True)
    return layer(layer(blocks_to_channels(x), name="conv1")[0][0], name="conv2")[0][0]


@pytest.mark.parametrize("baseline", [0.0, -1.7])
def test_the_mean_of_all_estimates_by_the_score_function_is_the_gradient_of_the_expected_loss(given, baseline):
    params, x, labels = given
    losses = np.array([glimpse(params, x, labels, drawing(n, n), "score function")[0] for n in range(25)]).T
    exact = HARD.expected_reward(strip_prefix("attention.", params), features(params, x), losses)
    _, slopes = exact.backward(np.full(2, 1 / 2))  # the loss is the mean of two maps

    def estimate(*positions):
        name = "attention.score.weight"
        return glimpse(params, x, labels, drawing(*positions), "score function", baseline=baseline)[1][name]

    a = exact.attention["probability"].reshape(2, 25)
    mean = -estimate(0, 0)  # which is counted by both sums
    for n in range(25):
        mean = mean + a[0, n] * estimate(n, 0) + a[1, n] * estimate(0, n)
    np.testing.assert_allclose(mean, slopes["score.weight"], rtol=1e-9, atol=1e-12)


def test_what_the_features_get_is_on_average_the_gradient_of_the_expected_loss(given):
    params, x, labels = given
    name = "conv2.0.weight"
    direction = np.random.RandomState(1).standard_normal(params[name].shape)
    moved = {key: value + (1e-200j * direction if key == name else 0j) for key, value in params.items()}
    draws = [drawing(n, n) + 0j for n in range(25)]
    losses = np.array([glimpse(moved, x + 0j, labels, noise, "straight-through")[0] for noise in draws]).T
    expected = HARD.expected_reward(strip_prefix("attention.", moved), features(moved, x + 0j), losses)

    def estimate(*positions):
        grads = glimpse(params, x, labels, drawing(*positions), "score function", baseline=-1.0)[1]
        return (grads[name] * direction).sum()

    a = expected.attention["probability"].real.reshape(2, 25)
    sums = (a[0, n] * estimate(n, 0) + a[1, n] * estimate(0, n) for n in range(25))
    assert sum(sums) - estimate(0, 0) == pytest.approx(expected.output.mean().imag / 1e-200, rel=1e-8)


def test_behind_the_score_the_gradient_is_exact_whatever_the_estimator(given):
    params, x, labels = given
    noise = drawing(7, 12)
    found = [glimpse(params, x, labels, noise, one)[1]["classifier.weight"] for one in ESTIMATORS[1:]]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    direction = np.random.RandomState(1).standard_normal(found[0].shape)
    slope = slope_of_loss(given, "classifier.weight", direction, noise, "straight-through")
    assert (found[0] * direction).sum() == pytest.approx(slope, rel=1e-12)


def test_every_gradient_of_soft_attention_is_exact(given):
    params, x, labels = given
    _, grads, _ = glimpse(params, x, labels, drawing(0, 0), "soft")
    assert grads.keys() == declare()[0].keys()
    random = np.random.RandomState(1)
    for name, gradient in grads.items():
        direction = random.standard_normal(gradient.shape)
        slope = slope_of_loss(given, name, direction, drawing(0, 0), "soft")
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-11, abs=1e-15), name


def test_soft_attention_learns(few):
    *_, run = train_glimpses("soft", epochs=6)
    assert np.mean(run.losses[-6:]) < 0.95 * np.mean(run.losses[:6])
    right, hit = evaluate_glimpses(run)
    assert 0 <= right <= 1
    assert 0 <= hit <= 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run_is_a_function_of_its_seed(few, estimator):
    first, second, other = (list(train_glimpses(estimator, 1, seed))[-1].losses for seed in (0, 0, 1))
    assert first == second
    assert first != other


def test_without_a_baseline_and_with_it_the_first_step_is_the_same_and_the_second_is_not(few):
    without, having = (list(train_glimpses(one, 1)) for one in ESTIMATORS[2:])
    assert without[-1].losses[:2] == having[-1].losses[:2]
    assert without[-1].losses[3] != having[-1].losses[3]


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="train_glimpses: estimator='sotf'"):
        next(train_glimpses("sotf"))
