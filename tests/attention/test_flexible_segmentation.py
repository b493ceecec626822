import numpy as np
import pytest
from hypothesis import given, settings

from npattn import FlexibleAttention, FlexibleSegmentation, SlidingWindowSegmentation
from npattn.oracle import generic_values
from npattn.parameters import add_prefix, strip_prefix
from tests.attention import test_flexible, test_sliding_window
from tests.attention.parity import assert_parity, assert_state_dict_loads
from tests.naming import for_each
from tests.strategies import cases, flexible_segmentation_modules, seeds


def published(module, segmentation=test_sliding_window.published):
    """Both halves in PyTorch, as members of one module."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = test_flexible.published(module.attention)
            self.segmentation = segmentation(module.segmentation)

        def forward(self, x):
            return self.segmentation(self.attention(x))

    return Reference()


def fast(module):
    """The same with the quickest windows that PyTorch has: what benchmarks use."""
    return published(module, test_sliding_window.fast)


@given(cases(flexible_segmentation_modules()), seeds)
@settings(max_examples=20)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    module, params, inputs = case
    batch, _, height, width = inputs["x"].shape
    dy = np.random.RandomState(seed).standard_normal((batch, module.classes, height, width))
    assert_parity(module, published(module), params, inputs["x"], dy, floor=test_flexible.SATURATED)


def test_a_state_dict_of_both_halves_loads_unchanged():
    module = FlexibleSegmentation(channels=12, classes=4, window=3, stride=2, reduction=4)
    assert_state_dict_loads(module, published(module))


@given(cases(flexible_segmentation_modules()), seeds)
@settings(max_examples=25)
def test_the_whole_is_one_half_after_the_other_forward_and_backward(case, seed):
    module, params, inputs = case
    attention = FlexibleAttention(module.channels, module.reduction)
    segmentation = SlidingWindowSegmentation(module.channels, module.classes, module.window, module.stride)
    first = attention(strip_prefix("attention.", params), inputs["x"])
    second = segmentation(strip_prefix("segmentation.", params), first.output)
    run = module(params, inputs["x"])
    np.testing.assert_array_equal(run.output, second.output)
    np.testing.assert_array_equal(run.attention["channel"], first.attention["channel"])
    np.testing.assert_array_equal(run.attention["reweighted"], first.output)
    np.testing.assert_array_equal(run.attention["windows"], second.attention["windows"])
    dy = np.random.RandomState(seed).standard_normal(run.output.shape)
    du, dsegmentation = second.backward(dy)
    dx, dattention = first.backward(du)
    np.testing.assert_equal(
        run.backward(dy), (dx, add_prefix("attention.", dattention) | add_prefix("segmentation.", dsegmentation))
    )


@given(cases(flexible_segmentation_modules()))
@settings(max_examples=25)
def test_gates_act_as_a_classifier_of_each_images_own(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    for b, image in enumerate(inputs["x"]):
        weight = params["segmentation.classifier.weight"] * run.attention["channel"][b]
        own = {"classifier.weight": weight, "classifier.bias": params["segmentation.classifier.bias"]}
        expected = module.segmentation(own, image[None]).output[0]
        np.testing.assert_allclose(run.output[b], expected, rtol=1e-10, atol=1e-12)


def test_mask_and_regions_are_those_of_the_segmentation():
    module = FlexibleSegmentation.example()
    params, inputs = generic_values(module, height=9, width=8)
    run = module(params, inputs["x"])
    np.testing.assert_array_equal(module.mask(run.output), run.output.argmax(axis=1))
    again = module.segmentation(strip_prefix("segmentation.", params), run.attention["reweighted"])
    np.testing.assert_equal(tuple(module.regions(run, top=4)), tuple(module.segmentation.regions(again, top=4)))
    assert module.regions(run, top=4).boxes.shape == (2, 4, 4)


def test_with_gates_wide_open_the_attention_changes_nothing():
    module = FlexibleSegmentation.example()
    params, inputs = generic_values(module)
    params["attention.fc2.bias"][...] = 1000
    expected = module.segmentation(strip_prefix("segmentation.", params), inputs["x"]).output
    np.testing.assert_array_equal(module(params, inputs["x"]).output, expected)


@for_each(
    ("change", "error", "message"),
    [
        ({"channels": 0}, ValueError, "channels=0; expected an integer of at least 1"),
        ({"classes": 1}, ValueError, "classes=1; expected at least 2"),
        ({"window": 2.5}, TypeError, "window=2.5 is a float; expected an int"),
        ({"stride": 4}, ValueError, "stride=4; expected at most the window's side, 3"),
        ({"reduction": 0}, ValueError, "reduction=0; expected an integer of at least 1"),
    ],
)
def test_impossible_hyperparameters_are_refused(change, error, message):
    with pytest.raises(error, match=f"FlexibleSegmentation: {message}"):
        FlexibleSegmentation(**{"channels": 8, "classes": 3, "window": 3, "stride": 2} | change)
