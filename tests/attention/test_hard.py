import re

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import HardAttention
from npattn.module import as_tuple
from npattn.oracle import generic_values
from npattn.oracle.gradcheck import STEP
from tests.attention.parity import assert_parity, assert_state_dict_loads
from tests.naming import for_each
from tests.strategies import cases, hard_modules, seeds

baselines = st.floats(-10, 10) | st.just("own")


def published(module):
    """The PyTorch form: h in forward, and in backward α."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.score = torch.nn.Conv2d(module.channels, 1, 1)

        def forward(self, x, noise):
            s = self.score(x).flatten(1)
            a = torch.softmax(s, dim=1)
            h = torch.nn.functional.one_hot((s + noise).argmax(dim=1), s.shape[1]).to(s.dtype)
            return (x.flatten(2) @ (h + a - a.detach())[:, :, None])[:, :, 0]

    return Reference()


def flat(x):
    return x.reshape(*x.shape[:-2], -1)


def every_draw(batch, positions):
    """Noise under which all images draw position 0, then position 1, and so on."""
    for n in range(positions):
        noise = np.zeros((batch, positions))
        noise[:, n] = 1e6
        yield n, noise


def mean_over_draws(probability, estimates):
    """Average what was estimated, image by image, over all positions, each with its own probability."""
    return sum(np.einsum("b,bi->i", p, flat(e[:, :, None])) for p, e in zip(probability.T, estimates, strict=True))


def probabilities(module, params, x):
    return flat(module.expected_output(params, x).attention["probability"])


def rewards_of(x, seed):
    return np.random.RandomState(seed).standard_normal(flat(x)[:, 0].shape)


def single(case, seed=0):
    """Module, parameters, the first image, its probabilities and rewards."""
    module, params, inputs = case
    x = inputs["x"][:1]
    return module, params, x, probabilities(module, params, x)[0], rewards_of(x, seed)


def all_estimates(module, params, x, r, baseline=0.0):
    """The estimate of every draw for one image, all its numbers in one row: (N, numbers)."""
    rows = []
    for n, noise in every_draw(1, r.shape[1]):
        dx, grads = module.score_function_grad(params, x, noise, r[:, n], baseline)
        rows.append(np.concatenate([dx.ravel(), *(g.ravel() for g in grads.values())]))
    return np.array(rows)


def exact_gradient(module, params, x, r):
    (dx, _), grads = module.expected_reward(params, x, r).backward(np.ones(len(x)))
    return np.concatenate([dx.ravel(), *(g.ravel() for g in grads.values())])


def assert_equal_to(found, expected, tolerance=1e-12):
    """Hold to a tolerance in units of the largest number that either of them holds, or of 1e-3."""
    scale = max(np.abs(found).max(initial=0), np.abs(expected).max(initial=0), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


# Forward and backward


@given(cases(hard_modules()), seeds)
@settings(max_examples=25)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    module, params, inputs = case
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape[:2])
    assert_parity(module, published(module), params, inputs["x"], dy, floor=1e-2, constants=[inputs["noise"]])


def test_a_published_state_dict_loads_unchanged():
    module = HardAttention(channels=12)
    _, inputs = generic_values(module, dtype=np.float32)
    assert_state_dict_loads(module, published(module), list(inputs.values()))


@given(cases(hard_modules()))
def test_the_output_is_the_feature_where_score_and_noise_are_largest(case):
    module, params, inputs = case
    x, noise = inputs.values()
    run = module(params, x, noise)
    weight, bias = params.values()
    scores = np.einsum("c,bcn->bn", weight.ravel(), flat(x)) + bias
    h = flat(run.attention["selected"])
    np.testing.assert_array_equal(h, np.eye(noise.shape[1])[(scores + noise).argmax(axis=1)])
    for b, n in enumerate(h.argmax(axis=1)):
        np.testing.assert_array_equal(run.output[b], flat(x)[b, :, n])
    e = np.exp(scores)
    np.testing.assert_allclose(
        flat(run.attention["probability"]), e / e.sum(axis=1, keepdims=True), rtol=1e-11, atol=1e-300
    )


@given(cases(hard_modules()))
def test_without_noise_the_most_probable_position_is_selected(case):
    module, params, inputs = case
    run = module(params, inputs["x"], np.zeros_like(inputs["noise"]))
    selected, probability = (flat(run.attention[name]) for name in ("selected", "probability"))
    np.testing.assert_array_equal((selected * probability).sum(axis=1), probability.max(axis=1))


@for_each("positions", [2, 7, 8, 33, 61])
def test_of_equal_features_with_equal_noise_the_first_is_selected(positions):
    module = HardAttention(channels=19)
    params, inputs = generic_values(module, height=1, width=1, batch=3)
    x = np.repeat(inputs["x"], positions, axis=3)
    for noise in (np.zeros((3, positions)), np.full((3, positions), 0.37)):
        run = module(params, x, noise)
        assert flat(run.attention["selected"]).argmax(axis=1).tolist() == [0, 0, 0]
    noise[:, 1:] += 1e-6
    assert flat(module(params, x, noise).attention["selected"]).argmax(axis=1).tolist() == [1, 1, 1]


@given(cases(hard_modules()), seeds)
def test_moving_positions_moves_selection_and_gradient_with_them(case, seed):
    module, params, inputs = case
    x, noise = inputs.values()
    order = np.random.RandomState(seed).permutation(noise.shape[1])
    run = module(params, x, noise)
    moved = module(params, np.take(flat(x), order, axis=2).reshape(x.shape), noise[:, order])
    np.testing.assert_array_equal(moved.output, run.output)
    (dx, _), (dx_moved, _) = (p.backward(run.output)[0] for p in (run, moved))
    assert_equal_to(flat(dx_moved), flat(dx)[:, :, order])


def test_one_position_alone_is_selected_and_hands_the_gradient_on():
    module = HardAttention.example()
    params, inputs = generic_values(module, height=1, width=1)
    run = module(params, *inputs.values())
    np.testing.assert_array_equal(run.output, inputs["x"][:, :, 0, 0])
    dy = np.random.RandomState(0).standard_normal(run.output.shape)
    (dx, _), grads = run.backward(dy)
    np.testing.assert_array_equal(dx[:, :, 0, 0], dy)
    assert not any(grad.any() for grad in grads.values())


@pytest.mark.parametrize("index", [(0, 3, 2, 1), (1, 0, 4, 3)])
def test_nan_in_the_map_is_selected_and_so_seen(index):
    module = HardAttention.example()
    params, inputs = generic_values(module)
    inputs["x"][index] = np.nan
    run = module(params, *inputs.values())
    assert run.attention["selected"][index[0], index[2], index[3]] == 1
    assert np.argwhere(np.isnan(run.output)).tolist() == [list(index[:2])]


# Straight-through


@given(cases(hard_modules()), seeds)
@settings(max_examples=20)
def test_straight_through_is_right_on_average_about_a_linear_loss(case, seed):
    module, params, inputs = case
    x, noise = inputs.values()
    dy = np.random.RandomState(seed).standard_normal(x.shape[:2])
    probability = probabilities(module, params, x)
    dx, weights = 0, []
    for n, draw in every_draw(*noise.shape):
        (dx_n, _), _ = module(params, x, draw).backward(dy)
        dx = dx + probability[:, n, None, None, None] * dx_n
        one = [module(params, x[b : b + 1], draw[:1]).backward(dy[b : b + 1])[1]["score.weight"] for b in range(len(x))]
        weights.append(sum(p * g for p, g in zip(probability[:, n], one, strict=True)))
    expected, grads = module.expected_output(params, x).backward(dy)
    assert_equal_to(dx, expected)
    assert_equal_to(sum(weights), grads["score.weight"])


@given(cases(hard_modules(), height=st.integers(2, 4), width=st.integers(2, 4)))
@settings(max_examples=30)
def test_straight_through_misses_what_bends_in_a_quadratic_loss_and_nothing_else(case):
    module, params, x, probability, _ = single(case)
    features = flat(x)
    estimated = 0
    for n, noise in every_draw(1, probability.size):
        run = module(params, x, noise)
        estimated = estimated + probability[n] * run.backward(run.output)[1]["score.weight"]
    exact, bend = (
        module.expected_reward(params, x, (f**2).sum(axis=1) / 2).backward(np.ones(1))[1]["score.weight"]
        for f in (features, features - (features * probability).sum(axis=2, keepdims=True))
    )
    assert_equal_to(estimated + bend, exact)
    assert np.abs(bend).max() > 1e-9 * np.abs(exact).max()


@given(cases(hard_modules()), seeds)
def test_the_surrogate_has_the_value_of_the_output_and_backwards_gradient(case, seed):
    module, params, inputs = case
    run = module(params, *inputs.values())
    other = module.surrogate(params, *inputs.values())(params, *inputs.values())
    assert_equal_to(other.output, run.output)
    dy = np.random.RandomState(seed).standard_normal(run.output.shape)
    ((dx, none), grads), ((dx_other, none_either), grads_other) = run.backward(dy), other.backward(dy)
    assert none is None
    assert none_either is None
    for found, expected in zip((dx_other, *grads_other.values()), (dx, *grads.values()), strict=True):
        assert_equal_to(found, expected)


def test_the_selection_itself_has_no_slope_in_the_parameters_which_is_why_there_is_an_estimator():
    module = HardAttention.example()
    params, inputs = generic_values(module)
    lifted = {name: value + 1j * STEP for name, value in params.items()}
    run = module(lifted, *(x.astype(complex) for x in inputs.values()))
    assert not run.output.imag.any()
    assert module(params, *inputs.values()).backward(run.output.real)[1]["score.weight"].all()


# The draw


def draw(noise):
    """Let many copies of one image draw: how often each position was selected, and how often it should be."""
    module = HardAttention(channels=3)
    params, inputs = generic_values(module, batch=1, height=3, width=4)
    x = np.repeat(inputs["x"], len(noise), axis=0)
    run = module(params, x, noise)
    return flat(run.attention["selected"]).sum(axis=0), len(noise) * flat(run.attention["probability"])[0]


def test_gumbel_noise_draws_positions_with_their_probabilities():
    noise = HardAttention(3).draw_input("noise", (50_000, 12), np.random.RandomState(0))
    assert scipy.stats.kstest(noise.ravel(), "gumbel_r").pvalue > 0.01
    assert scipy.stats.chisquare(*draw(noise)).pvalue > 0.01


WRONG_NOISE = {
    "normal": lambda random, shape: random.standard_normal(shape) * np.pi / 6**0.5,
    "uniform": lambda random, shape: random.uniform(0, 1, shape),
    "exponential": lambda random, shape: random.exponential(size=shape),
    "negative": lambda random, shape: -random.gumbel(size=shape),
    "too wide": lambda random, shape: 1.1 * random.gumbel(size=shape),
    "none": lambda random, shape: np.zeros(shape),
}


@for_each("noise", WRONG_NOISE.values())
def test_other_noise_draws_from_something_else(noise):
    assert scipy.stats.chisquare(*draw(noise(np.random.RandomState(0), (50_000, 12)))).pvalue < 1e-4


# Score function


@given(cases(hard_modules()), seeds, baselines)
@settings(max_examples=20)
def test_the_mean_over_all_draws_is_the_exact_gradient_whatever_the_baseline(case, seed, baseline):
    module, params, x, probability, r = single(case, seed)
    estimates = all_estimates(module, params, x, r, r[:, 0] if baseline == "own" else baseline)
    exact = exact_gradient(module, params, x, r)
    terms = np.abs(probability[:, None] * estimates).sum(axis=0).max()
    np.testing.assert_allclose(probability @ estimates, exact, rtol=0, atol=1e-12 * max(terms, 1e-3))


@given(cases(hard_modules()), seeds)
@settings(max_examples=20)
def test_images_are_rewarded_one_by_one_and_parameter_gradients_add_up(case, seed):
    module, params, inputs = case
    x, noise = inputs.values()
    random = np.random.RandomState(seed)
    reward, baseline = random.standard_normal((2, len(x)))
    dx, grads = module.score_function_grad(params, x, noise, reward, baseline)
    total = 0
    for b in range(len(x)):
        own = slice(b, b + 1)
        dx_own, grads_own = module.score_function_grad(params, x[own], noise[own], reward[own], float(baseline[b]))
        assert_equal_to(dx[own], dx_own)
        total = total + grads_own["score.weight"]
    assert_equal_to(grads["score.weight"], total)


@given(cases(hard_modules(), height=st.integers(2, 4), width=st.integers(2, 4)), seeds)
@settings(max_examples=20)
def test_no_baseline_has_less_variance_than_the_one_that_weighs_rewards_by_squared_length(case, seed):
    module, params, x, probability, r = single(case, seed)
    r = r + 2
    lengths = (all_estimates(module, params, x, np.ones_like(r)) ** 2).sum(axis=1)
    best = (probability * r[0]) @ lengths / (probability @ lengths)

    def variance(b):
        estimates = all_estimates(module, params, x, r, b)
        return probability @ ((estimates - probability @ estimates) ** 2).sum(axis=1)

    least = variance(best)
    for b in (0.0, probability @ r[0], best - 0.5, best + 0.5, r.max()):
        assert variance(b) >= least * (1 - 1e-9)
        parabola = least + (b - best) ** 2 * (probability @ lengths)
        assert variance(b) == pytest.approx(parabola, rel=1e-9, abs=1e-12 * probability @ lengths)


def two_positions(p):
    """A module and a map of two positions, of which the first has probability p."""
    params = {"score.weight": np.ones((1, 1, 1, 1)), "score.bias": np.zeros(1)}
    return HardAttention(channels=1), params, np.log([[[[p, 1 - p]]]])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_of_two_positions_the_baseline_with_exchanged_probabilities_leaves_no_variance(p):
    module, params, x = two_positions(p)
    r = np.array([[1.0, -0.2]])
    one, other = all_estimates(module, params, x, r, (1 - p) * r[0, 0] + p * r[0, 1])
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(one, exact_gradient(module, params, x, r), rtol=1e-12, atol=1e-15)


def test_the_mean_reward_can_be_a_worse_baseline_than_none():
    module, params, x = two_positions(0.9)
    r = np.array([[1.0, -0.2]])
    p = probabilities(module, params, x)[0]
    none, mean = (all_estimates(module, params, x, r, b) for b in (0.0, p @ r[0]))
    assert p @ (mean**2).sum(axis=1) > 2 * p @ (none**2).sum(axis=1)


def test_a_step_along_the_gradient_raises_the_expected_reward():
    module = HardAttention.example()
    params, inputs = generic_values(module)
    r = rewards_of(inputs["x"], 0)
    probability = probabilities(module, params, inputs["x"])
    draws = every_draw(*r.shape)
    estimates = [module.score_function_grad(params, inputs["x"], noise, r[:, n])[0] for n, noise in draws]
    dx = sum(p[:, None, None, None] * e for p, e in zip(probability.T, estimates, strict=True))
    before, after = (module.expected_reward(params, inputs["x"] + step * dx, r).output for step in (0, 0.1))
    assert (after > before).all()


# By enumeration


def slope(f, params, x, v):
    """The derivative of f along v, which has a direction for every parameter and for x, by complex step."""
    lifted = {name: value + 1j * STEP * v[name] for name, value in params.items()}
    return f(lifted, x + 1j * STEP * v["x"]).output.imag / STEP


@given(cases(hard_modules()), seeds)
@settings(max_examples=40)
def test_expected_output_and_reward_and_their_gradients_are_exact(case, seed):
    module, params, inputs = case
    x, r = inputs["x"], rewards_of(inputs["x"], seed)
    probability = probabilities(module, params, x)
    random = np.random.RandomState(seed)
    v = {name: random.standard_normal(value.shape) for name, value in {**params, "x": x}.items()}
    values = {"output": np.einsum("bn,bcn->bc", probability, flat(x)), "reward": (probability * r).sum(axis=1)}
    calls = {
        "output": module.expected_output,
        "reward": lambda p, x: module.expected_reward(p, x, r.astype(x.dtype)),
    }
    for name, call in calls.items():
        run = call(params, x)
        assert_equal_to(run.output, values[name])
        dy = random.standard_normal(run.output.shape)
        dx, grads = run.backward(dy)
        if name == "reward":
            dx, dr = dx
            assert_equal_to(dr, dy[:, None] * probability)
        terms = [(dx * v["x"]).ravel(), *((grads[n] * v[n]).ravel() for n in params)]
        found, expected = sum(map(np.sum, terms)), (dy * slope(call, params, x, v)).sum()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * max(np.abs(np.concatenate(terms)).sum(), 1e-3))


def test_with_the_features_for_rewards_the_expected_reward_is_the_expected_output():
    module = HardAttention.example()
    params, inputs = generic_values(module)
    expected = module.expected_output(params, inputs["x"]).output
    for c in range(module.channels):
        found = module.expected_reward(params, inputs["x"], flat(inputs["x"])[:, c]).output
        np.testing.assert_allclose(found, expected[:, c], rtol=1e-12)


# Numbers and devices


def all_methods(module, params, *arrays):
    """Everything that the methods beside forward return."""
    x, noise, reward, rewards = arrays
    found, gradients = [], [module.score_function_grad(params, x, noise, reward, b) for b in (0.25, reward)]
    for run in (module.expected_output(params, x), module.expected_reward(params, x, rewards)):
        found += [run.output, run.attention["probability"]]
        gradients.append(run.backward(run.output))
    return [*found, *(array for dx, grads in gradients for array in (*as_tuple(dx), *grads.values()))]


def arguments(dtype=np.float64, batch=2):
    module = HardAttention(channels=7)
    params, inputs = generic_values(module, dtype=dtype)
    random = np.random.RandomState(0)
    given = [*inputs.values(), random.standard_normal(2).astype(dtype), random.standard_normal((2, 20)).astype(dtype)]
    return module, params, *(a[:batch] for a in given)


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble, np.complex128])
def test_methods_keep_the_kind_of_number(dtype):
    found, expected = all_methods(*arguments(dtype)), all_methods(*arguments())
    for ours, double in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, double, rtol=1e-3, atol=1e-5)


def test_a_baseline_from_numpy_does_not_widen_the_numbers():
    module, params, x, noise, reward, _ = arguments(np.float32)
    dx, grads = module.score_function_grad(params, x, noise, reward, np.float64(0.5))
    assert {a.dtype for a in (dx, *grads.values())} == {np.dtype(np.float32)}


def test_methods_on_a_device_stay_there_and_give_the_same_bits():
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    module, params, *host = arguments()
    found = all_methods(module, {name: DeviceArray(p) for name, p in params.items()}, *map(DeviceArray, host))
    for ours, expected in zip(found, all_methods(module, params, *host), strict=True):
        assert type(ours) is DeviceArray
        assert ours.get().tobytes() == expected.tobytes()


def test_methods_write_to_nothing_and_know_the_empty_batch():
    module, params, *given = arguments()
    for array in (*params.values(), *given):
        array.flags.writeable = False
    all_methods(module, params, *given)
    for result in all_methods(*arguments(batch=0)):
        assert not result.any()


def test_extreme_maps_give_finite_results():
    module, params, x, noise, reward, rewards = arguments()
    for scale in (1e-100, 1e100):
        for result in all_methods(module, params, scale * x, noise, reward, rewards):
            assert np.isfinite(result).all()


# Bad input


@for_each(
    ("change", "error", "message"),
    [
        ({"reward": np.ones(3)}, ValueError, r"reward has shape (3,); expected (2,), (batch,)"),
        ({"reward": np.ones((2, 20))}, ValueError, r"reward has shape (2, 20); expected (2,), (batch,)"),
        ({"reward": 1.0}, TypeError, "reward is a float; expected an array"),
        ({"reward": np.ones(2, int)}, TypeError, "reward has dtype int64; expected floating point"),
        ({"reward": np.ones(2, np.float32)}, TypeError, "reward has dtype float32 but x has float64"),
        ({"baseline": np.ones((2, 1))}, ValueError, r"baseline has shape (2, 1); expected (2,), (batch,)"),
        ({"baseline": np.nan}, ValueError, "baseline=nan; expected a finite number"),
        ({"baseline": True}, TypeError, "baseline=True is a bool; expected a number"),
        ({"baseline": "mean"}, TypeError, "baseline is a str; expected an array"),
        ({"baseline": None}, TypeError, "baseline is a NoneType; expected an array"),
        ({"noise": np.ones((2, 19))}, ValueError, "noise has shape (2, 19); expected (2, 20)"),
        ({"x": np.ones((2, 6, 5, 4))}, ValueError, "x has shape (2, 6, 5, 4); expected (2, 7, 5, 4)"),
        ({"params": {}}, ValueError, "missing parameter 'score.weight' of shape (1, 7, 1, 1)"),
    ],
)
def test_bad_input_is_refused_by_score_function_grad(change, error, message):
    module, params, x, noise, reward, _ = arguments()
    given = {"params": params, "x": x, "noise": noise, "reward": reward} | change
    with pytest.raises(error, match=re.escape(message)) as caught:
        module.score_function_grad(**given)
    assert str(caught.value).startswith(str(module))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["expected_output", "expected_reward"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones((7, 5, 4))}, ValueError, "x has shape (7, 5, 4); expected 4 axes, (batch, channels, height"),
        ({"x": np.ones((2, 6, 5, 4))}, ValueError, "x has shape (2, 6, 5, 4); expected (2, 7, 5, 4)"),
        ({"x": np.ones((2, 7, 5, 0))}, ValueError, "x has shape (2, 7, 5, 0); expected at least one position"),
        ({"x": np.ones((2, 7, 5, 4), int)}, TypeError, "x has dtype int64; expected floating point"),
        ({"x": [1.0]}, TypeError, "x is a list; expected an array"),
        ({"params": None}, TypeError, "params is a NoneType; expected a mapping"),
        ({"params": {"score.weight": np.ones((1, 7, 1, 1))}}, ValueError, "missing parameter 'score.bias'"),
    ],
)
def test_bad_input_is_refused_by_what_goes_through_all_positions(name, change, error, message):
    module, params, x, _, _, rewards = arguments()
    given = {"params": params, "x": x} | ({"rewards": rewards} if name == "expected_reward" else {}) | change
    with pytest.raises(error, match=re.escape(message)) as caught:
        getattr(module, name)(**given)
    assert str(caught.value).startswith(str(module))


def test_rewards_and_upstream_gradients_of_another_shape_are_refused():
    module, params, x, _, _, rewards = arguments()
    with pytest.raises(ValueError, match=re.escape("rewards has shape (2, 19); expected (2, 20), (batch, positions)")):
        module.expected_reward(params, x, rewards[:, 1:])
    with pytest.raises(TypeError, match="rewards is a list; expected an array"):
        module.expected_reward(params, x, rewards.tolist())
    for run in (module.expected_output(params, x), module.expected_reward(params, x, rewards)):
        with pytest.raises(ValueError, match=r"dy has shape \(3,\); expected the output's"):
            run.backward(np.ones(3))
        with pytest.raises(TypeError, match="dy is a float; expected an array"):
            run.backward(1.0)


@pytest.mark.parametrize(
    ("channels", "error", "message"),
    [
        (0, ValueError, "HardAttention: channels=0; expected an integer of at least 1"),
        (2.0, TypeError, "HardAttention: channels=2.0 is a float; expected an int"),
        (True, TypeError, "HardAttention: channels=True is a bool; expected an int"),
    ],
)
def test_impossible_channels_are_refused(channels, error, message):
    with pytest.raises(error, match=message):
        HardAttention(channels)


def test_training_starts_from_the_uniform_distribution_of_a_convolution():
    params = HardAttention(channels=10_000).init(seed=3)
    assert np.abs(params["score.weight"]).max() <= 0.01
    assert np.std(params["score.weight"]) == pytest.approx(0.01 / 3**0.5, rel=0.02)
    assert 0 < abs(params["score.bias"][0]) <= 0.01
