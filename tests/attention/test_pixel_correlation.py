import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import PixelCorrelation
from npattn.oracle import generic_values, gradcheck
from tests.memory import peak_of_pass
from tests.naming import for_each
from tests.strategies import cases, pcm_modules, seeds

EPSILON = 1e-5


def published(module):
    """The PyTorch form, with the name of the authors' code and its order of steps."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.f9 = torch.nn.Conv2d(module.channels, module.embedding, 1, bias=False)

        def forward(self, maps, features):
            f = self.f9(features).flatten(2)
            f = f / (torch.norm(f, dim=1, keepdim=True) + EPSILON)
            affinity = torch.relu(torch.matmul(f.transpose(1, 2), f))
            affinity = affinity / (affinity.sum(dim=1, keepdim=True) + EPSILON)
            return torch.matmul(maps.flatten(2), affinity).reshape(maps.shape)

    return Reference()


def flat(a):
    return a.reshape(*a.shape[:2], -1)


def affinities(module, params, features):
    """All affinities, as they are written."""
    f = params["f9.weight"][:, :, 0, 0] @ flat(features)
    u = f / (np.sqrt((f * f).sum(axis=1, keepdims=True)) + EPSILON)
    return np.maximum(np.einsum("bei,bej->bij", u, u), 0)


@given(case=cases(pcm_modules()), maps=st.integers(1, 5), seed=seeds)
@settings(max_examples=30)
def test_output_and_gradients_agree_with_pytorch(case, maps, seed):
    torch = pytest.importorskip("torch")
    module, params, inputs = case
    random = np.random.RandomState(seed)
    inputs["maps"] = random.standard_normal((len(inputs["maps"]), maps, *inputs["maps"].shape[2:]))
    dy = random.standard_normal(inputs["maps"].shape)
    reference = published(module).double()
    reference.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs.values()]
    expected = reference(*leaves)
    expected.backward(torch.tensor(dy))
    run = module(params, *inputs.values())
    (dmaps, dfeatures), grads = run.backward(dy)
    assert list(grads) == [name for name, _ in reference.named_parameters()]
    pairs = {"output": (run.output, expected), "maps": (dmaps, leaves[0].grad)}
    pairs |= {"features": (dfeatures, leaves[1].grad), "f9.weight": (grads["f9.weight"], reference.f9.weight.grad)}
    # With one position, or two that point apart, features have no gradient but a trace of ε.
    floor = np.abs(dmaps).max()
    for name, (ours, tensor) in pairs.items():
        theirs = tensor.detach().numpy()
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=1e-11 * max(np.abs(theirs).max(), 0.1 * floor), err_msg=name
        )


def test_a_published_state_dict_loads_unchanged():
    torch = pytest.importorskip("torch")
    module = PixelCorrelation(channels=195, embedding=192)
    reference = published(module)
    params = module.from_state_dict(reference.state_dict())
    assert list(params) == list(reference.state_dict())
    assert params["f9.weight"].dtype == np.float32
    random = np.random.RandomState(0)
    maps, features = (random.standard_normal((2, n, 3, 5)).astype(np.float32) for n in (21, 195))
    expected = reference(torch.tensor(maps), torch.tensor(features)).detach().numpy()
    np.testing.assert_allclose(module(params, maps, features).output, expected, rtol=1e-4, atol=1e-5)


def test_the_embedding_starts_as_the_authors_does():
    torch = pytest.importorskip("torch")
    weight = PixelCorrelation(channels=195, embedding=192).init()["f9.weight"]
    theirs = torch.nn.init.xavier_uniform_(torch.empty(192, 195, 1, 1), gain=4).numpy()
    assert abs(weight).max() == pytest.approx(abs(theirs).max(), rel=1e-3)
    assert weight.std() == pytest.approx(theirs.std(), rel=0.02)


@given(cases(pcm_modules()), st.floats(-9, 9))
def test_a_constant_map_stays_what_it_is_but_for_epsilon(case, value):
    module, params, inputs = case
    run = module(params, np.full_like(inputs["maps"], value), inputs["features"])
    s = run.attention["similarity"]
    expected = np.broadcast_to(value * s / (s + EPSILON), run.output.shape)
    np.testing.assert_allclose(run.output, expected, rtol=1e-12, atol=1e-300)
    (_, dfeatures), grads = run.backward(run.output)
    # Features are embedded and divided by their norm: near 0 that is as steep as they are small.
    x, w = inputs["features"], params["f9.weight"]
    norms = np.linalg.norm(np.einsum("oc,bchw->bohw", w[:, :, 0, 0], x), axis=1)
    scale = value**2 * max(abs(x).max(), abs(w).max()) / max(norms.min(), EPSILON)
    assert max(abs(dfeatures).max(), abs(grads["f9.weight"]).max()) <= 100 * EPSILON * scale + 1e-300


@given(cases(pcm_modules()))
def test_every_position_gets_an_average_of_the_map_over_what_looks_like_it(case):
    module, params, inputs = case
    a = affinities(module, params, inputs["features"])
    run = module(params, *inputs.values())
    np.testing.assert_allclose(run.attention["similarity"].reshape(len(a), -1), a.sum(axis=1), rtol=1e-12)
    weights = a / (a.sum(axis=1, keepdims=True) + EPSILON)
    np.testing.assert_allclose(flat(run.output), flat(inputs["maps"]) @ weights, rtol=1e-10, atol=1e-12)
    positive = module(params, np.abs(inputs["maps"]), inputs["features"]).output
    assert (positive >= 0).all()
    assert (flat(positive) <= flat(np.abs(inputs["maps"])).max(axis=2, keepdims=True)).all()


@given(cases(pcm_modules()), st.sampled_from([0.5, 3.0, 1e6, 1e180]))
def test_lengths_of_features_and_the_scale_of_the_embedding_change_nothing_but_epsilons_part(case, factor):
    module, params, inputs = case
    maps, features = 1 + np.abs(inputs["maps"]), inputs["features"]
    long = params | {"f9.weight": 1e4 * params["f9.weight"]}
    expected = module(long, maps, features).output
    length = np.linspace(1.0, factor, features[0, 0].size).reshape(features.shape[2:])
    np.testing.assert_allclose(module(long, maps, features * length).output, expected, rtol=1e-4)
    larger = params | {"f9.weight": 1e4 * factor * params["f9.weight"]}
    np.testing.assert_allclose(module(larger, maps, features).output, expected, rtol=1e-4)


@given(cases(pcm_modules()), st.randoms(use_true_random=False))
def test_positions_may_be_rearranged_and_the_output_is_rearranged_alike(case, random):
    module, params, inputs = case
    order = list(range(flat(inputs["maps"]).shape[2]))
    random.shuffle(order)

    def rearranged(a):
        return flat(a)[:, :, order].reshape(a.shape)

    output = module(params, *inputs.values()).output
    moved = module(params, *map(rearranged, inputs.values())).output
    np.testing.assert_allclose(moved, rearranged(output), rtol=1e-9, atol=1e-12)


def test_maps_do_not_see_each_other_and_there_may_be_any_number():
    module = PixelCorrelation.example()
    params, inputs = generic_values(module)
    features = inputs["features"]
    for count in (0, 1, 7):
        maps = np.random.RandomState(count).standard_normal((2, count, 5, 4))
        run = module(params, maps, features)
        (dmaps, dfeatures), _ = run.backward(run.output)
        assert run.output.shape == dmaps.shape == maps.shape
        assert dfeatures.shape == features.shape
        for k in range(count):
            alone = module(params, maps[:, k : k + 1], features).output
            np.testing.assert_allclose(alone[:, 0], run.output[:, k], rtol=1e-12, atol=1e-14)


def test_two_kinds_of_feature_make_two_averages():
    """Features of two orthogonal kinds: each half of the map becomes its own mean."""
    module = PixelCorrelation(channels=2, embedding=2)
    params = {"f9.weight": np.eye(2)[:, :, None, None]}
    maps = np.array([1.0, 2.0, 3.0, 10.0, 20.0]).reshape(1, 1, 1, 5)
    features = np.array([[3.0, 5.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0, 1.0]]).reshape(1, 2, 1, 5)
    run = module(params, maps, features)
    np.testing.assert_allclose(run.output.ravel(), [2, 2, 2, 15, 15], rtol=1e-4)
    np.testing.assert_allclose(run.attention["similarity"].ravel(), [3, 3, 3, 2, 2], rtol=1e-4)


def test_opposite_features_do_not_see_each_other():
    module = PixelCorrelation(channels=2, embedding=2)
    params, inputs = generic_values(module, batch=1, height=1, width=2)
    features = inputs["features"]
    features[..., 1] = -features[..., 0]
    run = module(params, inputs["maps"], features)
    np.testing.assert_allclose(run.output, inputs["maps"], rtol=1e-4)


def test_zero_features_take_in_nothing_and_do_not_learn_as_in_pytorch():
    torch = pytest.importorskip("torch")
    module = PixelCorrelation.example()
    params, inputs = generic_values(module)
    for zero in (np.s_[0, :, 2, 1], np.s_[:]):
        features = inputs["features"].copy()
        features[zero] = 0
        reference = published(module).double()
        reference.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
        leaves = [torch.tensor(x, requires_grad=True) for x in (inputs["maps"], features)]
        expected = reference(*leaves)
        expected.backward(torch.ones_like(expected))
        run = module(params, inputs["maps"], features)
        (dmaps, dfeatures), _ = run.backward(np.ones_like(run.output))
        for ours, theirs in ((run.output, expected), (dmaps, leaves[0].grad), (dfeatures, leaves[1].grad)):
            np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-8, atol=1e-12)
        assert not run.output[zero].any()
        assert not dfeatures[zero].any()
        report = gradcheck(module, params, inputs | {"features": features}, allow_zero=True)
        assert report.passed, report
        assert report.zeros == (() if features.any() else ("maps", "features", "f9.weight"))


@pytest.mark.parametrize("size", [{"channels": 4, "embedding": 1}, {"channels": 1, "embedding": 4}])
def test_in_one_dimension_features_have_no_gradient_but_a_trace_of_epsilon(size):
    module = PixelCorrelation(**size)
    params, inputs = generic_values(module)
    run = module(params, *inputs.values())
    (dmaps, dfeatures), _ = run.backward(run.output)
    f = np.sqrt((np.einsum("ec,bchw->behw", params["f9.weight"][:, :, 0, 0], inputs["features"]) ** 2).sum(axis=1))
    reach = np.abs(params["f9.weight"]).sum() * EPSILON / f.min() ** 2
    assert 0 < np.abs(dfeatures).max() <= 100 * reach * np.abs(dmaps).max()
    report = gradcheck(module, params, inputs)
    assert report.passed, report


def test_gradients_hold_across_many_blocks(monkeypatch):
    from npattn.ops import affinity

    monkeypatch.setattr(affinity, "BLOCK_ROWS", 2)
    module = PixelCorrelation(channels=4, embedding=3)
    for method in ("jacobian", "adjoint"):
        report = gradcheck(module, *generic_values(module, height=3, width=3), method=method)
        assert report.passed, report


@pytest.mark.parametrize("shape", [(1, 1, 1), (0, 3, 2), (1, 1, 40)])
def test_a_single_position_an_empty_batch_and_a_single_row_run(shape):
    batch, height, width = shape
    module = PixelCorrelation.example()
    params, inputs = generic_values(module, batch=1, height=height, width=width)
    inputs = {name: x[:batch] for name, x in inputs.items()}
    run = module(params, *inputs.values())
    (dmaps, dfeatures), grads = run.backward(run.output)
    assert run.output.shape == dmaps.shape == inputs["maps"].shape
    assert dfeatures.shape == inputs["features"].shape
    assert grads["f9.weight"].shape == (8, 16, 1, 1)
    if height * width == 1:
        np.testing.assert_allclose(run.output, inputs["maps"], rtol=1e-4)


@pytest.mark.parametrize("scale", [1e19, 1e30, 1e-19, 1e-30])
def test_single_precision_bears_features_whose_squares_it_lacks(scale):
    module = PixelCorrelation.example()
    params, inputs = generic_values(module, dtype=np.float32)
    features = inputs["features"] * np.float32(scale)
    run = module(params, inputs["maps"], features)
    exact = {name: value.astype(np.float64) for name, value in params.items()}
    expected = module(exact, inputs["maps"].astype(np.float64), features.astype(np.float64)).output
    np.testing.assert_allclose(run.output, expected, rtol=1e-4, atol=1e-5)
    (dmaps, dfeatures), grads = run.backward(run.output)
    assert all(np.isfinite(a).all() for a in (dmaps, dfeatures, grads["f9.weight"]))


def test_nan_in_a_feature_spoils_its_image_and_in_a_map_that_map():
    module = PixelCorrelation.example()
    params, inputs = generic_values(module)
    for name, spoilt in (("features", np.s_[1]), ("maps", np.s_[1, 2])):
        values = inputs | {name: inputs[name].copy()}
        values[name][1, 2, 3, 1] = np.nan
        marked = np.isnan(module(params, *values.values()).output)
        assert marked[spoilt].any()
        marked[spoilt] = False
        assert not marked.any()


@for_each(
    ("change", "message"),
    [
        (
            lambda m, f: (m, f[:, :15]),
            "features has shape (2, 15, 5, 4); expected (2, 16, 5, 4); the map has 15 channels",
        ),
        (lambda m, f: (m, f[:, :, :4]), "features has shape (2, 16, 4, 4); expected (2, 16, 5, 4)"),
        (lambda m, f: (m, f[:1]), "features has shape (1, 16, 5, 4); expected (2, 16, 5, 4)"),
        (lambda m, f: (m, f[0]), "features has shape (16, 5, 4); expected (2, 16, 5, 4)"),
        (lambda m, f: (m[0], f), "maps has shape (3, 5, 4); expected 4 axes, (batch, channels, height, width)"),
        (lambda m, f: (f, m), "features has shape (2, 3, 5, 4); expected (2, 16, 5, 4)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(change, message):
    module = PixelCorrelation.example()
    params, inputs = generic_values(module)
    with pytest.raises(ValueError, match="expected") as caught:
        module(params, *change(*inputs.values()))
    assert str(caught.value).startswith(f"{module}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["channels", "embedding"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-3, ValueError), (2.0, TypeError), (True, TypeError)])
def test_sizes_that_are_no_sizes_are_refused_by_name(name, value, error):
    with pytest.raises(error, match=f"PixelCorrelation: {name}={value}"):
        PixelCorrelation(**{"channels": 4, "embedding": 4, name: value})


def test_memory_grows_as_the_positions_and_not_as_their_square():
    small, large = (peak_of_pass(PixelCorrelation.example(), side) for side in (32, 64))
    assert large < 4.5 * small  # 16 times, if the affinities were held
    assert large < 4096**2 * 4 / 8
