import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import DualAttentionHead, EfficientChannelAttention, SlidingWindowSegmentation, ops
from npattn.attention.sliding_window import Regions
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity, assert_state_dict_loads
from tests.strategies import cases, seeds, sliding_window_modules


def boxes_of(module, height, width):
    """All windows, row by row: top, left, bottom, right."""
    starts = (ops.window_starts(length, module.window, module.stride) for length in (height, width))
    rows, columns = starts
    h, w = min(module.window, height), min(module.window, width)
    return [(i, j, i + h, j + w) for i in rows for j in columns]


def published(module):
    """The definition in PyTorch, window by window, pixel counts by hand."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = torch.nn.Linear(module.channels, module.classes)

        def forward(self, x):
            total = x.new_zeros(len(x), module.classes, *x.shape[2:])
            count = torch.zeros_like(total)
            for top, left, bottom, right in boxes_of(module, *x.shape[2:]):
                score = self.classifier(x[:, :, top:bottom, left:right].mean(dim=(2, 3)))
                spread = torch.zeros_like(total)
                spread[:, :, top:bottom, left:right] = 1
                total = total + score[:, :, None, None] * spread
                count = count + spread
            return total / count

    return Reference()


def folded(module):
    """The same by PyTorch's own extraction and folding, for maps that the windows divide."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = torch.nn.Linear(module.channels, module.classes)

        def forward(self, x):
            size, area = x.shape[2:], module.window**2
            options = {"kernel_size": module.window, "stride": module.stride}
            columns = torch.nn.functional.unfold(x, **options).reshape(len(x), module.channels, area, -1)
            scores = self.classifier(columns.mean(dim=2).transpose(1, 2)).transpose(1, 2)
            spread = scores[:, :, None].expand(-1, -1, area, -1).reshape(len(x), module.classes * area, -1)
            total = torch.nn.functional.fold(spread, size, **options)
            return total / torch.nn.functional.fold(torch.ones_like(spread), size, **options)

    return Reference()


def fast(module):
    """The quickest form that PyTorch's own operations allow, for maps that the windows divide: what benchmarks use."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = torch.nn.Linear(module.channels, module.classes)

        def forward(self, x):
            size, area = x.shape[2:], module.window**2
            options = {"kernel_size": module.window, "stride": module.stride}
            means = torch.nn.functional.avg_pool2d(x, **options)
            scores = torch.nn.functional.conv2d(means, self.classifier.weight[:, :, None, None], self.classifier.bias)
            spread = scores.flatten(2)[:, :, None].expand(-1, -1, area, -1).flatten(1, 2)
            count = torch.nn.functional.fold(torch.ones_like(spread[:1, :area]), size, **options)
            return torch.nn.functional.fold(spread, size, **options) / count

    return Reference()


@given(cases(sliding_window_modules(), height=st.integers(1, 9), width=st.integers(1, 9)), seeds)
@settings(max_examples=20)
def test_output_and_gradients_agree_with_pytorch_window_by_window(case, seed):
    module, params, inputs = case
    batch, _, height, width = inputs["x"].shape
    dy = np.random.RandomState(seed).standard_normal((batch, module.classes, height, width))
    assert_parity(module, published(module), params, inputs["x"], dy)


@given(sliding_window_modules(), st.integers(0, 3), st.integers(0, 3), seeds)
@settings(max_examples=20)
def test_where_windows_divide_the_map_pytorch_unfold_and_fold_agree(module, down, right, seed):
    height, width = (module.window + steps * module.stride for steps in (down, right))
    params, inputs = generic_values(module, height=height, width=width, seed=seed)
    dy = np.random.RandomState(seed).standard_normal((2, module.classes, height, width))
    for reference in (folded(module), fast(module)):
        assert_parity(module, reference, params, inputs["x"], dy)


def test_a_state_dict_of_one_linear_layer_loads_unchanged():
    module = SlidingWindowSegmentation(channels=12, classes=4, window=3, stride=2)
    assert_state_dict_loads(module, published(module))


@given(cases(sliding_window_modules(), height=st.integers(1, 9), width=st.integers(1, 9)))
@settings(max_examples=20)
def test_each_pixel_has_the_mean_logits_of_the_windows_around_it(case):
    module, params, inputs = case
    x = inputs["x"]
    weight, bias = params.values()
    run = module(params, x)
    boxes = boxes_of(module, *x.shape[2:])
    scores = [x[:, :, i:m, j:n].mean(axis=(2, 3)) @ weight.T + bias for i, j, m, n in boxes]
    flat = run.attention["windows"].reshape(*run.output.shape[:2], -1)
    np.testing.assert_allclose(flat, np.stack(scores, axis=2), rtol=1e-11, atol=1e-12)
    for row, column in np.ndindex(x.shape[2:]):
        around = [s for s, (i, j, m, n) in zip(scores, boxes, strict=True) if i <= row < m and j <= column < n]
        np.testing.assert_allclose(run.output[:, :, row, column], np.mean(around, axis=0), rtol=1e-11, atol=1e-12)


@given(cases(sliding_window_modules()))
def test_a_map_that_is_the_same_everywhere_gets_the_classifiers_logits_everywhere(case):
    module, params, inputs = case
    feature = inputs["x"][:, :, :1, :1]
    x = np.broadcast_to(feature, inputs["x"].shape).copy()
    logits = feature[:, :, 0, 0] @ params["classifier.weight"].T + params["classifier.bias"]
    expected = np.broadcast_to(logits[:, :, None, None], module(params, x).output.shape)
    np.testing.assert_allclose(module(params, x).output, expected, rtol=1e-11, atol=1e-12)


@given(cases(sliding_window_modules()), seeds)
@settings(max_examples=25)
def test_the_bias_collects_the_gradient_of_all_pixels(case, seed):
    module, params, inputs = case
    run = module(params, inputs["x"])
    dy = np.random.RandomState(seed).standard_normal(run.output.shape)
    _, grads = run.backward(dy)
    np.testing.assert_allclose(grads["classifier.bias"], dy.sum(axis=(0, 2, 3)), rtol=1e-10, atol=1e-11)


def test_windows_of_one_pixel_classify_each_pixel_by_itself():
    module = SlidingWindowSegmentation(channels=5, classes=3, window=1, stride=1)
    params, inputs = generic_values(module)
    expected = np.einsum("kc,bchw->bkhw", params["classifier.weight"], inputs["x"])
    expected += params["classifier.bias"][:, None, None]
    np.testing.assert_allclose(module(params, inputs["x"]).output, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("window", [6, 7, 100])
def test_a_window_as_large_as_the_map_or_larger_gives_all_pixels_the_same_logits(window):
    module = SlidingWindowSegmentation(channels=5, classes=3, window=window, stride=2)
    params, inputs = generic_values(module, height=6, width=4)
    run = module(params, inputs["x"])
    assert run.attention["windows"].shape == (2, 3, 1, 1)
    np.testing.assert_array_equal(run.output, np.broadcast_to(run.attention["windows"], (2, 3, 6, 4)))
    assert module.regions(run).boxes.tolist() == [[[0, 0, 6, 4]]] * 2


def test_the_last_window_is_moved_inward_so_that_the_corner_pixel_counts():
    module = SlidingWindowSegmentation(channels=1, classes=2, window=3, stride=3)
    params = {"classifier.weight": np.array([[0.0], [9.0]]), "classifier.bias": np.zeros(2)}
    x = np.zeros((1, 1, 4, 5))
    x[0, 0, 3, 4] = 1
    run = module(params, x)
    np.testing.assert_array_equal(run.attention["windows"][0, 1], [[0, 0], [0, 1]])
    np.testing.assert_array_equal(module.regions(run).boxes[0], [[1, 2, 4, 5]])
    assert run.output[0, 1, 3, 4] == 1


# Mask


@given(cases(sliding_window_modules()))
def test_the_mask_is_the_class_of_the_highest_logit(case):
    module, params, inputs = case
    logits = module(params, inputs["x"]).output
    mask = module.mask(logits)
    assert mask.shape == (len(logits), *logits.shape[2:])
    assert mask.dtype.kind == "i"
    for b, row, column in np.ndindex(mask.shape):
        assert mask[b, row, column] == max(range(module.classes), key=lambda k: logits[b, k, row, column])


def test_a_tie_goes_to_the_lower_class_and_so_to_the_background_first():
    module = SlidingWindowSegmentation(channels=1, classes=3, window=1, stride=1)
    logits = np.array([[1.0, 0.0], [1.0, 2.0], [1.0, 2.0]]).reshape(1, 3, 1, 2)
    assert module.mask(logits).tolist() == [[[0, 1]]]


@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        (np.ones((3, 5, 4)), ValueError, r"logits have shape \(3, 5, 4\); expected \(batch, 3, height, width\)"),
        (np.ones((2, 4, 5, 4)), ValueError, r"logits have shape \(2, 4, 5, 4\); expected \(batch, 3, height, width\)"),
        (np.ones((2, 3, 5, 4), int), TypeError, "logits has dtype int64; expected floating point"),
        ([[1.0]], TypeError, "logits is a list; expected an array"),
    ],
)
def test_what_are_no_logits_of_this_module_is_refused_by_mask(logits, error, message):
    with pytest.raises(error, match=message):
        SlidingWindowSegmentation.example().mask(logits)


# Regions


@given(cases(sliding_window_modules()), st.integers(1, 40))
@settings(max_examples=25)
def test_regions_are_the_windows_sorted_by_best_foreground_logit_above_background(case, top):
    module, params, inputs = case
    run = module(params, inputs["x"])
    found = module.regions(run, top)
    windows = run.attention["windows"].reshape(*run.output.shape[:2], -1)
    boxes = boxes_of(module, *run.output.shape[2:])
    for b, logits in enumerate(windows):
        ranked = []
        for t, box in enumerate(boxes):
            label = max(range(1, module.classes), key=lambda k, t=t: logits[k, t])
            ranked.append((-(logits[label, t] - logits[0, t]), t, box, label))
        ranked = sorted(ranked)[:top]
        assert found.scores[b].tolist() == [-score for score, *_ in ranked]
        assert [tuple(box) for box in found.boxes[b].tolist()] == [box for *_, box, _ in ranked]
        assert found.labels[b].tolist() == [label for *_, label in ranked]


@given(cases(sliding_window_modules()))
def test_a_score_is_positive_where_the_classifier_calls_the_window_foreground(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    _, labels, scores = module.regions(run, top=100)
    for b, logits in enumerate(run.attention["windows"].reshape(*run.output.shape[:2], -1)):
        foreground = logits.argmax(axis=0)
        assert np.sum(scores[b] > 0) == np.sum(foreground > 0)
        assert sorted(labels[b][scores[b] > 0]) == sorted(foreground[foreground > 0])


def test_of_equal_scores_the_first_window_stands_first():
    module = SlidingWindowSegmentation(channels=2, classes=2, window=2, stride=1)
    params, _ = generic_values(module)
    found = module.regions(module(params, np.zeros((1, 2, 4, 4))), top=9)
    assert found.boxes[0, :, :2].tolist() == [[i, j] for i in range(3) for j in range(3)]


def test_scores_do_not_change_when_all_logits_of_a_window_move_together():
    module = SlidingWindowSegmentation.example()
    params, inputs = generic_values(module, height=9, width=9)
    moved = params | {"classifier.bias": params["classifier.bias"] + 8}
    found, same = (module.regions(module(p, inputs["x"]), top=5) for p in (params, moved))
    np.testing.assert_array_equal(found.boxes, same.boxes)
    np.testing.assert_allclose(found.scores, same.scores, rtol=1e-12)


def test_a_bright_square_on_dark_ground_is_found_and_masked():
    module = SlidingWindowSegmentation(channels=1, classes=2, window=4, stride=2)
    params = {"classifier.weight": np.array([[-1.0], [1.0]]), "classifier.bias": np.array([0.5, -0.5])}
    x = np.zeros((1, 1, 12, 14))
    x[0, 0, 4:8, 6:10] = 1
    run = module(params, x)
    boxes, labels, scores = module.regions(run, top=2)
    assert boxes[0, 0].tolist() == [4, 6, 8, 10]
    assert labels[0, 0] == 1
    assert scores[0, 0] == 1
    assert scores[0, 1] == 0  # windows that hold half of it
    mask = module.mask(run.output)[0]
    assert mask[5:7, 7:9].all() == (run.output[0, 1, 5:7, 7:9] > run.output[0, 0, 5:7, 7:9]).all()
    assert not mask[:4].any()
    assert not mask[8:].any()


def test_a_score_that_is_nan_stands_last():
    module = SlidingWindowSegmentation(channels=2, classes=2, window=1, stride=1)
    params, _ = generic_values(module)
    x = np.random.RandomState(0).standard_normal((1, 2, 1, 4))
    x[0, 0, 0, 1] = np.nan
    found = module.regions(module(params, x), top=4)
    assert np.isnan(found.scores[0]).tolist() == [False, False, False, True]
    assert found.boxes[0, -1].tolist() == [0, 1, 1, 2]


def test_regions_on_a_device_stay_there_and_are_the_same():
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    module = SlidingWindowSegmentation.example()
    params, inputs = generic_values(module)
    host = module(params, inputs["x"])
    device = module({name: DeviceArray(p) for name, p in params.items()}, DeviceArray(inputs["x"]))
    pairs = [*zip(module.regions(device, 3), module.regions(host, 3), strict=True)]
    pairs.append((module.mask(device.output), module.mask(host.output)))
    for found, expected in pairs:
        assert type(found) is DeviceArray
        np.testing.assert_array_equal(found.get(), expected)


def test_regions_of_an_empty_batch_are_empty():
    module = SlidingWindowSegmentation.example()
    found = module.regions(module(module.init(), np.ones((0, 32, 5, 4))), top=3)
    assert isinstance(found, Regions)
    assert [part.shape for part in found] == [(0, 3, 4), (0, 3), (0, 3)]


def test_what_is_no_pass_of_this_module_is_refused_by_regions():
    module = SlidingWindowSegmentation.example()
    params, inputs = generic_values(module)
    run = module(params, inputs["x"])
    with pytest.raises(TypeError, match=r"run is a numpy\.ndarray; expected the Pass that calling the module returns"):
        module.regions(run.output)
    other = SlidingWindowSegmentation(channels=32, classes=3, window=2, stride=2)
    with pytest.raises(ValueError, match=r"'windows'\] has shape \(2, 3, 2, 2\); expected \(2, 3, 3, 2\)"):
        other.regions(run)
    eca = EfficientChannelAttention(channels=32)
    with pytest.raises(ValueError, match=r"run.attention\['windows'\] is missing; expected \(2, 3, 2, 2\)"):
        module.regions(eca(eca.init(), inputs["x"]))
    head = DualAttentionHead(in_channels=32, classes=3)
    with pytest.raises(ValueError, match=r"run is Pass\(output: .*\); expected the Pass that calling this module"):
        module.regions(head(head.init(), inputs["x"]))


@pytest.mark.parametrize(("top", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (None, TypeError)])
def test_a_number_of_regions_that_is_none_is_refused(top, error):
    module = SlidingWindowSegmentation.example()
    params, inputs = generic_values(module)
    with pytest.raises(error, match=rf"SlidingWindowSegmentation\.regions: top={top!r}"):
        module.regions(module(params, inputs["x"]), top)


# Hyperparameters and initial values


@pytest.mark.parametrize("name", ["channels", "classes", "window", "stride"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "expected an integer of at least 1"),
        (-3, ValueError, "expected an integer of at least 1"),
        (2.0, TypeError, "is a float; expected an int"),
        (True, TypeError, "is a bool; expected an int"),
        ((3, 3), TypeError, "is a tuple; expected an int"),
    ],
)
def test_what_is_no_integer_of_at_least_1_is_refused_by_name(name, value, error, message):
    fields = {"channels": 8, "classes": 3, "window": 3, "stride": 2}
    with pytest.raises(error, match=rf"SlidingWindowSegmentation: {name}=.*{message}"):
        SlidingWindowSegmentation(**fields | {name: value})


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="classes=1; expected at least 2: the background, class 0, counts as one"):
        SlidingWindowSegmentation(channels=8, classes=1, window=3, stride=2)


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_stride_that_would_leave_pixels_out_is_refused_with_the_largest_that_does_not(window, excess):
    with pytest.raises(ValueError, match=f"stride={window + excess}; expected at most the window's side, {window}:"):
        SlidingWindowSegmentation(channels=8, classes=3, window=window, stride=window + excess)
    SlidingWindowSegmentation(channels=8, classes=3, window=window, stride=window)


def test_training_starts_from_he_weights_and_zero_bias():
    params = SlidingWindowSegmentation(channels=512, classes=50, window=3, stride=2).init(seed=3)
    assert not params["classifier.bias"].any()
    assert np.std(params["classifier.weight"]) == pytest.approx(np.sqrt(2 / 512), rel=0.02)
