import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import MultiScaleConcat
from npattn.oracle import generic_values, gradcheck
from tests.attention.parity import assert_starts_as
from tests.naming import for_each
from tests.strategies import multi_scale_modules, seeds


def published(module):
    """The PyTorch form, with torchvision's names; in training it takes the keep mask as well."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    in_channels, out_channels = module.in_channels, module.out_channels

    def layer(channels, rate=None, *, first=()):
        spread = {"kernel_size": 1} if rate is None else {"kernel_size": 3, "padding": rate, "dilation": rate}
        return nn.Sequential(
            *first, nn.Conv2d(channels, out_channels, bias=False, **spread), nn.BatchNorm2d(out_channels), nn.ReLU()
        )

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            whole = layer(in_channels, first=(nn.AdaptiveAvgPool2d(1),))
            self.convs = nn.ModuleList(
                [layer(in_channels), *(layer(in_channels, rate) for rate in module.rates), whole]
            )
            self.project = layer(len(self.convs) * out_channels)
            self.project.append(nn.Dropout(0.5))

        def forward(self, x, mask=None):
            *maps, image = (branch(x) for branch in self.convs)
            spread = nn.functional.interpolate(image, size=x.shape[-2:], mode="bilinear", align_corners=False)
            joined = torch.cat([*maps, spread], dim=1)
            return self.project(joined) if mask is None else self.project[:-1](joined) * mask / 0.5

    return Reference().train(module.training)


@given(st.booleans().flatmap(multi_scale_modules), st.integers(3, 4), st.integers(1, 7), st.integers(1, 7), seeds)
@settings(max_examples=15, deadline=None)
def test_output_gradients_and_running_statistics_agree_with_pytorch(module, batch, height, width, seed):
    torch = pytest.importorskip("torch")
    params, inputs = generic_values(module, batch=batch, height=height, width=width, seed=seed)
    reference = published(module).double()
    missing, unexpected = reference.load_state_dict({n: torch.tensor(v) for n, v in params.items()}, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    x, *mask = (torch.tensor(value) for value in inputs.values())
    expected = reference(x.requires_grad_(), *mask)
    dy = np.random.RandomState(seed).standard_normal(expected.shape)
    expected.backward(torch.tensor(dy))
    run = module(params, *inputs.values())
    dx, grads = run.backward(dy)
    if module.training:
        dx, none = dx
        assert none is None
    assert list(grads) == [name for name, _ in reference.named_parameters()]
    pairs = {"output": (run.output, expected), "x": (dx, x.grad)}
    pairs |= {name: (grads[name], p.grad) for name, p in reference.named_parameters()}
    assert list(run.buffers) == (list(module.buffer_shapes()) if module.training else [])
    pairs |= {name: (run.buffers[name], b) for name, b in reference.named_buffers() if name in run.buffers}
    floor = 0.1 * max(np.abs(g).max() for g in (dx, *grads.values()))
    for name, (ours, tensor) in pairs.items():
        theirs = tensor.detach().numpy()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * max(np.abs(theirs).max(), floor), err_msg=name)


@pytest.mark.parametrize("rates", [(12, 24, 36), (6,), (1, 2, 3, 4)])
def test_a_published_state_dict_loads_unchanged(rates):
    torch = pytest.importorskip("torch")
    module = MultiScaleConcat(in_channels=16, out_channels=8, rates=rates)
    reference = published(module)
    params = module.from_state_dict(
        {f"classifier.0.{n}": v for n, v in reference.state_dict().items()}, "classifier.0."
    )
    assert list(params) == list(module.parameter_shapes() | module.buffer_shapes())
    assert list(module.parameter_shapes()) == [name for name, _ in reference.named_parameters()]
    x = np.random.RandomState(0).standard_normal((2, 16, 14, 9)).astype(np.float32)
    expected = reference(torch.tensor(x)).detach().numpy()
    assert (expected != 0).any()
    np.testing.assert_allclose(module(params, x).output, expected, rtol=1e-4, atol=1e-5)


@given(multi_scale_modules(training=True).filter(lambda module: module.out_channels > 2), seeds)  # else all may be off
@settings(max_examples=10, deadline=None)
def test_gradients_agree_with_the_complex_step_in_training(module, seed):
    report = gradcheck(module, *generic_values(module, batch=4, seed=seed), method="adjoint")
    assert report.passed, report


def test_training_starts_where_pytorch_starts():
    assert_starts_as(MultiScaleConcat(in_channels=64, out_channels=32, rates=(2, 3)), published)


def test_a_rate_beyond_the_map_reads_its_own_position_alone():
    params, inputs = generic_values(MultiScaleConcat(3, 2, (7,)), height=7, width=6)
    for name in ("convs.1.1", "project.1"):  # where every unit is on, nothing is hidden
        params[f"{name}.bias"] = params[f"{name}.bias"] + 100.0
    far = MultiScaleConcat(3, 2, (7,))(params, inputs["x"])
    farther = MultiScaleConcat(3, 2, (100,))(params, inputs["x"])
    np.testing.assert_array_equal(far.output, farther.output)
    _, grads = far.backward(np.ones_like(far.output))
    kernel = grads["convs.1.0.weight"]
    assert (kernel[:, :, 1, 1] != 0).any()
    kernel[:, :, 1, 1] = 0
    assert (kernel == 0).all()


@given(st.integers(1, 4), st.integers(0, 8), st.integers(0, 8), seeds)
@settings(max_examples=25)
def test_a_branch_reads_its_nine_taps_and_no_other_position(rate, row, column, seed):
    module = MultiScaleConcat(2, 3, (rate,))
    params, inputs = generic_values(module, batch=1, height=9, width=9, seed=seed)
    params["convs.1.1.bias"] = params["convs.1.1.bias"] + 100.0  # where every unit is on, nothing is hidden
    params["convs.1.1.weight"] = np.abs(params["convs.1.1.weight"])
    x = inputs["x"]
    before = module(params, x).attention["branches"][0, 1]
    moved = x.copy()
    moved[0, :, row, column] += 1.0
    changed = np.argwhere(np.abs(module(params, moved).attention["branches"][0, 1] - before) > 1e-9)
    taps = {(row + i * rate, column + j * rate) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert {tuple(map(int, place)) for place in changed} == {(r, c) for r, c in taps if 0 <= r < 9 and 0 <= c < 9}


@given(multi_scale_modules(), seeds)
@settings(max_examples=25)
def test_the_images_branch_is_the_same_at_every_position_and_knows_no_order(module, seed):
    params, inputs = generic_values(module, seed=seed)
    x = inputs["x"]
    image = module(params, x).attention["branches"][:, -1]
    np.testing.assert_allclose(image, np.broadcast_to(image[:, :1, :1], image.shape), rtol=1e-13)
    shuffled = x.reshape(*x.shape[:2], -1)[:, :, np.random.RandomState(seed).permutation(20)].reshape(x.shape)
    np.testing.assert_allclose(module(params, shuffled).attention["branches"][:, -1], image, rtol=1e-9, atol=1e-12)


def test_the_mask_drops_single_outputs_and_doubles_the_rest():
    module = MultiScaleConcat(3, 4, (1, 2), training=True)
    params, inputs = generic_values(module, batch=3)
    ones = np.ones_like(inputs["drop"])
    whole, some = (module(params, inputs["x"], mask) for mask in (ones, inputs["drop"]))
    np.testing.assert_array_equal(some.output, np.where(inputs["drop"] == 1, whole.output, 0))
    assert (whole.output > 0).any()
    (dx, _), grads = some.backward(1 - inputs["drop"])  # of what is dropped alone
    assert all((gradient == 0).all() for gradient in (dx, *grads.values()))


def test_inference_uses_the_running_statistics_and_training_moves_them_a_tenth_of_the_way():
    training = MultiScaleConcat(3, 4, (1, 2), training=True)
    params, inputs = generic_values(training, batch=3)
    run = training(params, *inputs.values())
    pooled = np.einsum("oc,bc->bo", params["convs.3.1.weight"][:, :, 0, 0], inputs["x"].mean(axis=(2, 3)))
    for name, new in (("running_mean", pooled.mean(axis=0)), ("running_var", pooled.var(axis=0, ddof=1))):
        old = params[f"convs.3.2.{name}"]
        np.testing.assert_allclose(run.buffers[f"convs.3.2.{name}"], 0.9 * old + 0.1 * new, rtol=1e-11)
    inference = MultiScaleConcat(3, 4, (1, 2))
    alone = inference(params, inputs["x"][:1])
    assert alone.buffers == {}
    np.testing.assert_allclose(alone.output, inference(params, inputs["x"]).output[:1], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("batch", [0, 1])
def test_training_on_fewer_than_two_images_is_refused(batch):
    module = MultiScaleConcat(in_channels=3, out_channels=2, training=True)
    params, inputs = generic_values(module, batch=2)
    with pytest.raises(ValueError, match=r"x has shape \(., 3, 5, 4\); expected at least two images.*training=False"):
        module(params, *(value[:batch] for value in inputs.values()))
    module(params, *inputs.values())


def test_the_mask_is_asked_for_in_training_alone():
    params, inputs = generic_values(MultiScaleConcat(3, 2, training=True))
    with pytest.raises(TypeError, match="got 1 inputs; expected 2: x, drop"):
        MultiScaleConcat(3, 2, training=True)(params, inputs["x"])
    with pytest.raises(TypeError, match="got 2 inputs; expected 1: x"):
        MultiScaleConcat(3, 2)(params, *inputs.values())


@for_each(
    ("options", "error", "message"),
    [
        ({"in_channels": 0}, ValueError, "in_channels=0; expected an integer of at least 1"),
        ({"out_channels": 2.0}, TypeError, "out_channels=2.0 is a float; expected an int"),
        ({"rates": 12}, TypeError, "rates=12 is an int; expected a tuple of ints"),
        ({"rates": ()}, ValueError, "expected at least one integer, such as"),
        ({"rates": (6, 0)}, ValueError, "rates\\[1\\]=0; expected an integer of at least 1"),
        ({"rates": (6.0,)}, TypeError, "rates\\[0\\]=6.0 is a float; expected an int"),
        ({"training": 1}, TypeError, "training=1 is an int; expected True or False"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        MultiScaleConcat(**{"in_channels": 8, "out_channels": 3} | options)


def test_a_list_of_rates_becomes_a_tuple():
    assert MultiScaleConcat(8, 4, [6, 12]) == MultiScaleConcat(8, 4, (6, 12))
    assert hash(MultiScaleConcat(8, 4, [6, 12])) == hash(MultiScaleConcat(8, 4, (6, 12)))
