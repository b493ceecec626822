import itertools

import numpy as np
import pytest

from npattn.data import digit_maps
from npattn.training import Training, descend, evaluate, matched_network, train
from npattn.training.steps import NUM_MAPS, score_pixels


@pytest.fixture
def few(monkeypatch):
    """Fewer maps, so that a run takes no second."""
    monkeypatch.setitem(NUM_MAPS, "train", 60)
    monkeypatch.setitem(NUM_MAPS, "test", 20)


@pytest.mark.parametrize("key", ["none", "pam+cam"])
def test_the_loss_falls(few, key):
    *_, run = train(key, epochs=4)
    assert len(run.losses) == run.total == 24
    assert np.mean(run.losses[-6:]) < 0.75 * np.mean(run.losses[:6])


def test_a_run_is_a_function_of_its_seed(few):
    first, second, other = (list(train("se", 1, seed))[-1].losses for seed in (0, 0, 1))
    assert first == second
    assert first != other


def test_the_scale_leaves_zero_unless_its_gradient_is_dropped(few):
    names = "attention.sa.gamma", "attention.sc.gamma"
    *_, run = train("pam+cam", 1)
    *_, without = train("pam+cam", 1, without=names)
    for name in names:
        assert run.initial[name] == without.initial[name] == 0
        assert abs(run.scalars[name][-1]) > 1e-4
        assert set(without.scalars[name]) == {0}


def test_behind_a_scale_of_zero_the_first_step_moves_the_scale_alone(few):
    run = next(train("pam+cam"))
    moved = {
        name for name in run.params if name.startswith("attention") and (run.params[name] != run.initial[name]).any()
    }
    assert moved == {"attention.sa.gamma", "attention.sc.gamma"}


def test_momentum_adds_up_what_gradients_agree_on():
    params, velocity = {"w": np.zeros(2)}, {}
    for sign in (1, 1, 1, 1):
        descend(params, velocity, {"w": np.array([1.0, sign])}, 1.0)
        descend(params, velocity, {"w": np.array([1.0, -sign])}, 1.0)
    assert params["w"][0] < -20
    assert abs(params["w"][1]) < 4


def test_a_step_writes_to_no_array_that_it_was_given():
    w, g = np.ones(2), np.ones(2)
    descend({"w": w}, {}, {"w": g}, 0.1)
    assert w.tolist() == g.tolist() == [1, 1]


def test_scores_are_those_of_the_definitions():
    random = np.random.RandomState(0)
    labels, said = random.randint(0, 6, (2, 3, 40)), random.randint(0, 6, (2, 3, 40))
    found = score_pixels(labels, said)
    unions = [np.mean((labels == k) & (said == k)) / np.mean((labels == k) | (said == k)) for k in range(6)]
    assert found.mean_iou == pytest.approx(np.mean(unions))
    assert found.accuracy == pytest.approx(np.mean(labels == said))
    assert found.digit_accuracy == pytest.approx(np.mean((labels == said)[labels != 5]))


def test_an_untrained_network_is_evaluated_with_its_running_statistics():
    network = matched_network("none", training=True)
    params = network.init(0, dtype=np.float32)
    maps = digit_maps(7, split="test")
    whole = evaluate(Training(network, params, params, 1), maps)
    assert 0 <= whole.accuracy <= 1
    assert (params["conv1.1.running_mean"] == 0).all()


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("seed", -1)])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=f"train: {name}={value}; expected"):
        next(train("none", **{name: value}))


def test_a_mistake_can_be_tried(few):
    seen = []

    def change(network):
        seen.append(network)
        return network

    assert len(list(itertools.islice(train("none", change=change), 2))) == 2
    assert seen == [matched_network("none", training=True)]
