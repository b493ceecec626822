"""Layers as kernels compute them: sums as long as an accumulator's, and correct kernels of another make, which pass."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import special

import npattn
from npattn import ops
from npattn.oracle import FORMATS, cases, golden
from npattn.oracle.formats import representable
from npattn.oracle.mistakes.planting import answering
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS
from npattn.oracle.rounding import Rounding

draw = np.random.RandomState(0).standard_normal


def errors_of_conv(x, weight, dy, **taps):
    """Root mean square errors of both gradients of a convolution in float32, in units of what they are."""
    exact = ops.conv2d(x, weight, **taps)[1](dy)[:2]
    rounding = Rounding(FORMATS["float32"], [0, 1])
    found = ops.conv2d(*map(rounding.array, (x, weight)), **taps)[1](rounding.array(dy))[:2]
    return [np.std(np.asarray(a) - b) / np.std(b) for a, b in zip(found, exact, strict=True)]


def test_gradients_of_weights_err_as_one_sum_over_all_images_does():
    x, dy, weight = np.float32(draw((64, 16, 4, 4))), np.float32(draw((64, 16, 4, 4))), np.float32(draw((16, 16, 1, 1)))
    of_many = errors_of_conv(x, weight, dy)[1]
    in_one = [a.swapaxes(0, 1).reshape(1, 16, 32, 32) for a in (x, dy)]  # the same terms
    assert of_many == pytest.approx(errors_of_conv(in_one[0], weight, in_one[1])[1], rel=0.2)


def test_gradients_of_maps_err_as_one_sum_over_all_taps_does():
    x, dy, weight = (np.float32(draw(shape)) for shape in [(1, 8, 20, 20), (1, 32, 20, 20), (32, 8, 5, 5)])
    by_taps, _ = errors_of_conv(x, weight, dy, padding=2)
    x, dy, weight = (np.float32(draw(shape)) for shape in [(1, 8, 20, 20), (1, 800, 20, 20), (800, 8, 1, 1)])
    at_once, _ = errors_of_conv(x, weight, dy)
    assert by_taps == pytest.approx(at_once, rel=0.2)


def line_of_batch_norm(params, x, dy, module):
    scale = 1 / np.sqrt(params["running_var"] + np.float32(module.eps))
    slope = params["weight"] * scale
    shift = params["bias"] - params["running_mean"] * slope
    return {"output": x * slope[:, None, None] + shift[:, None, None], "x.grad": dy * slope[:, None, None]}


def line_of_layer_norm(params, x, dy, module):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scale = 1 / np.sqrt(variance + np.float32(module.eps))
    normal = np.float32(x.astype(float) * scale - mean * scale)  # as one instruction: of two terms one is rounded
    return {"output": normal * params["weight"] + params["bias"], "weight.grad": (dy * normal).sum((0, 1))}


def quotient_of_l2_normalize(params, x, dy, module):
    norm = np.sqrt((x * x).sum(1, keepdims=True))
    length = norm + np.float32(module.eps)
    return {"x.grad": dy / length - x * ((dy * x).sum(1, keepdims=True) / length / length / norm)}


def z_score_centred_first(params, x, dz, module):
    centred = x - x.mean(-1, keepdims=True)
    deviation = centred.std(-1, keepdims=True, ddof=1)
    unit = deviation + np.float32(module.eps)
    along = (dz * centred).sum(-1, keepdims=True) / (unit * unit * (x.shape[-1] - 1) * deviation)
    return {"x.grad": (dz - dz.mean(-1, keepdims=True)) / unit - centred * along}


def narrow(a):
    return representable(a.astype(float), FORMATS["bfloat16"]).astype(np.float32)


def quotient_of_sum_normalize(params, x, dy, module):
    total = narrow(x.sum(1, keepdims=True))
    by_total = narrow(dy * narrow(narrow(x / total) / total))
    return {"x.grad": narrow(dy / total) - narrow(by_total.sum(1, keepdims=True))}


def through_the_maximum(params, x, dy, module):
    highest = x.max((2, 3), keepdims=True)
    e = np.exp(x - highest)
    dx = e * (dy[:, :, None, None] / e.sum((2, 3), keepdims=True))
    rest = dy[:, :, None, None] - dx.sum((2, 3), keepdims=True)
    return {"x.grad": dx + np.where(x == highest, rest, 0)}


def from_the_value(params, x, dy, module):
    highest = x.max((2, 3), keepdims=True)
    p = highest + np.log(np.exp(x - highest).sum((2, 3), keepdims=True))
    return {"x.grad": dy[:, :, None, None] * np.exp(x - narrow(p))}


def compared_after_rounding(params, x, dy, module):
    z = narrow(x + 3)
    return {"x.grad": np.where((z > 0) & (z < 6), dy / 6, 0)}


def in_float32_positions(params, x, dy, module):
    """Read each output between two inputs, with a step of float32."""
    length, outputs = x.shape[3], dy.shape[3]
    step = np.float32(length) / np.float32(outputs)
    at = np.clip(step * (np.arange(outputs, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0, None)
    low = np.minimum(at.astype(int), length - 1)
    dx = np.zeros_like(x)
    for k, (i, share) in enumerate(zip(low, at - low, strict=True)):
        dx[..., i] += (1 - share) * dy[..., k]
        dx[..., min(i + 1, length - 1)] += share * dy[..., k]
    return {"x.grad": dx}


KERNELS = {
    "batch norm as a line": ("batch_norm", "float32", {"training": False}, {"mean": 30}, line_of_batch_norm),
    "layer norm of one channel as a line": ("layer_norm", "float32", {"channels": 1}, {"mean": 3}, line_of_layer_norm),
    "l2 norm of one channel": ("l2_normalize", "float32", {"channels": 1}, {}, quotient_of_l2_normalize),
    "sum of one channel": ("sum_normalize", "bfloat16", {"channels": 1}, {}, quotient_of_sum_normalize),
    "logsumexp through the maximum": (
        "global_lse_pool",
        "float32",
        {"channels": 64},
        {"spread": 1},
        through_the_maximum,
    ),
    "logsumexp from its value": ("global_lse_pool", "bfloat16", {"channels": 64}, {"mean": 10}, from_the_value),
    "hard sigmoid of what is rounded": ("hard_sigmoid", "bfloat16", {}, {}, compared_after_rounding),
    "z-score that centres first": ("z_score", "float32", {}, {"mean": 100}, z_score_centred_first),
    "positions of float32": ("resize_bilinear", "float32", {"size": (1, 11)}, {"width": 127}, in_float32_positions),
}
"""Correct kernels: of which primitive, in which format, with which hyperparameters, on which inputs, and how."""


def judge(name):
    key, format, options, of_inputs, kernel = KERNELS[name]
    module = PRIMITIVE_SYSTEMS[f"ops.{key}"](**options)
    sizes = {"batch": 2, "height": 1 if "width" in of_inputs else 9, "width": of_inputs.get("width", 7)}
    params = module.init(1, generic=True)
    x = np.random.RandomState(0).standard_normal(module.input_shapes(**sizes)["x"])
    x = np.exp(x) if key == "sum_normalize" else of_inputs.get("spread", 2) * x + of_inputs.get("mean", 0)
    if "running_mean" in params:
        params["running_mean"] += of_inputs["mean"]
    case = golden(module, inputs={"x": x}, params=params, dtype=format)
    given = ({name: a.astype(np.float32) for name, a in values.items()} for values in (case.params, case.inputs))
    params, inputs = given
    results = kernel(params, inputs["x"], case.upstream["output"].astype(np.float32), module)
    results = {name: representable(a.astype(float), case.format) for name, a in results.items()}
    return case.compare(results)


@pytest.mark.parametrize("name", KERNELS)
def test_correct_kernels_of_another_make_pass(name):
    report = judge(name)
    assert report.passed, str(report)


@pytest.mark.parametrize("values", ["ties", "zeros"])
def test_norms_of_equal_numbers_may_add_up_one_by_one(values):
    case = golden(PRIMITIVE_SYSTEMS["ops.batch_norm"](), batch=3, height=7, width=9, dtype="float32", values=values)
    x, dy = (np.moveaxis(a, 1, -1).reshape(-1, 16) for a in (case.inputs["x"], case.upstream["output"]))

    def mean(rows):
        return np.add.accumulate(rows.astype(np.float32))[-1] / np.float32(len(rows))

    centred = x - mean(x)
    scale = 1 / np.sqrt(mean(centred * centred) + np.float32(1e-5))
    dx = case.params["weight"] * scale * (dy - mean(dy) - centred * scale * mean(dy * centred * scale))
    y = centred * scale * case.params["weight"] + case.params["bias"]
    found = {"output": y, "x.grad": dx}
    shape = 3, 7, 9, 16
    assert case.compare({name: np.moveaxis(a.reshape(shape), -1, 1) for name, a in found.items()}).passed


@pytest.mark.parametrize("norm", [ops.layer_norm, functools.partial(ops.group_norm, groups=1)])
def test_a_line_leaves_something_of_a_single_value_in_every_run_and_of_its_gradient(norm):
    """Both terms, which are equal, may be rounded to the same number; blurred, most are not."""
    shape = (50, 1) if norm is ops.layer_norm else (50, 1, 1, 1)
    x, dy = np.float32(draw(shape)), np.float32(draw(shape))
    for number in range(8):
        rounding = Rounding(FORMATS["float32"], [0, number])
        y, back = norm(rounding.array(x), rounding.array(np.ones(1)), rounding.array(np.zeros(1)))
        dx = back(rounding.array(dy))[0]
        assert all(np.count_nonzero(np.asarray(a)) > 30 for a in (y, dx))


def test_a_single_channel_may_be_divided_by_a_rounded_length():
    """Its own largest number, by which the primitive divides it first, would make it 1: nothing of that is rounded."""

    def normalize(x, eps):
        length = np.float16(np.abs(x) + np.float32(eps)).astype(np.float32)
        return x / length, lambda du: du / length - x * (x * du / length / length / np.abs(x))

    def answer(primitive, arguments, options):
        return normalize(*arguments) if primitive is ops.l2_normalize else NotImplemented

    module = npattn.PixelCorrelation(channels=5, embedding=1)
    case = golden(module, batch=3, height=3, width=3, dtype="float16", seed=5)
    given = case.params, case.inputs, case.upstream
    params, inputs, upstream = ({name: a.astype(np.float32) for name, a in values.items()} for values in given)
    with answering(answer):
        run = module(params, *inputs.values())
        gradients, grads = run.backward(*upstream.values())
    found = dict(zip(inputs, gradients, strict=True)) | grads
    case.assert_matches(
        {"output": np.float16(run.output)} | {f"{name}.grad": np.float16(a) for name, a in found.items()}
    )


def test_a_sigmoid_may_be_differentiated_step_by_step():
    module = PRIMITIVE_SYSTEMS["ops.sigmoid"]()
    case = golden(module, batch=3, height=7, width=9, dtype="float32", values="ones")
    e = np.exp(-case.inputs["x"].astype(np.float32))
    y = 1 / (1 + e)
    assert case.compare({"output": y, "x.grad": y * y * e}).passed


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_tanh_may_be_differentiated_by_its_value_in_the_format_and_be_made_of_an_exponential(dtype):
    case = golden(PRIMITIVE_SYSTEMS["ops.tanh"](), batch=3, height=7, width=9, dtype=dtype)
    x, dy = (a.astype(np.float32) for a in (case.inputs["x"], case.upstream["output"]))
    for way in np.tanh(x), 2 / (1 + np.exp(-2 * x)) - 1, 1 - 2 / (1 + np.exp(2 * x)):
        y = representable(way, FORMATS[dtype]).astype(np.float32)
        assert case.compare({"output": y, "x.grad": representable(dy * (1 - y * y), FORMATS[dtype])}).passed
    assert not case.compare({"x.grad": dy * (1 - y * y * y)}).passed


def gelu_of_erf(x):
    """Return GELU as it is written out, and its gradient of dy."""
    share = (1 + special.erf(x * 0.5**0.5)) * 0.5
    return x * share, lambda dy: dy * (share + x * (np.exp(-x * x / 2) * (2 * np.pi) ** -0.5))


@dataclass(frozen=True)
class WrittenOut(npattn.Module):
    """GELU of SciPy's error function."""

    channels: int = 16

    def input_shapes(self, batch=1, height=7, width=7):
        return {"x": (batch, self.channels, height, width)}

    def forward(self, params, x):
        y, back = gelu_of_erf(x)
        return npattn.Pass(y, lambda dy: (back(dy), {}))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("module", [PRIMITIVE_SYSTEMS["ops.gelu"](), WrittenOut()], ids=["primitive", "written out"])
def test_gelu_may_be_made_of_the_error_function_or_its_complement_in_float32_or_one_operation_at_a_time(module, dtype):
    case = golden(module, batch=3, height=7, width=9, dtype=dtype)
    x, dy = case.inputs["x"], case.upstream["output"]
    y, back = gelu_of_erf(np.float32(x))
    tail = np.float32(x) * special.ndtr(np.float32(x))
    for output in (y, tail):
        found = {"output": np.float64(output), "x.grad": np.float64(back(np.float32(dy)))}
        case.assert_matches({name: representable(a, FORMATS[dtype]) for name, a in found.items()})
    rounding = Rounding(FORMATS[dtype])
    y, back = gelu_of_erf(rounding.array(x))
    case.assert_matches({"output": np.asarray(y), "x.grad": np.asarray(back(rounding.array(dy)))})


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("seed", range(3))
def test_pytorchs_gelu_passes_whose_error_function_is_off_by_more_than_rounding(kind, seed):
    torch = pytest.importorskip("torch")
    for module in PRIMITIVE_SYSTEMS["ops.gelu"](), WrittenOut():
        case = golden(module, batch=3, height=7, width=9, dtype=kind, seed=seed)
        x = torch.tensor(case.inputs["x"], dtype=getattr(torch, kind), requires_grad=True)
        y = torch.nn.functional.gelu(x)
        y.backward(torch.tensor(case.upstream["output"], dtype=x.dtype))
        case.assert_matches({"output": y.detach(), "x.grad": x.grad})


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_pytorchs_gelu_passes_far_below_0_where_it_is_0(kind):
    torch = pytest.importorskip("torch")
    [recipe] = [recipe for recipe in cases("ops.gelu", [kind]) if recipe.label == "large"]
    case = recipe.make()
    x = torch.tensor(case.inputs["x"], dtype=getattr(torch, kind), requires_grad=True)
    y = torch.nn.functional.gelu(x)
    y.backward(torch.tensor(case.upstream["output"], dtype=x.dtype))
    assert ((y == 0) & (x < 0)).any()
    case.assert_matches({"output": y.detach(), "x.grad": x.grad})


def test_gelu_by_tanh_is_refused_where_it_shows():
    for dtype in ("float32", "float16"):
        case = golden(PRIMITIVE_SYSTEMS["ops.gelu"](), batch=3, height=7, width=9, dtype=dtype)
        x = case.inputs["x"]
        y = x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
        report = case.compare({"output": representable(y, FORMATS[dtype])})
        assert not report.passed
        assert case.diagnose({"output": y})[0].name.startswith("(1) gelu: by tanh")


def test_a_share_of_gelu_that_is_off_by_some_times_what_kernels_err_by_is_refused_in_float32():
    case = golden(PRIMITIVE_SYSTEMS["ops.gelu"](), batch=3, height=7, width=9, dtype="float32")
    x = case.inputs["x"]
    for error, passes in ((6e-8, True), (1e-6, False)):
        assert case.compare({"output": np.float32(x * (special.ndtr(x) + error))}).passed is passes


def test_the_slope_of_hard_swish_may_be_that_of_a_product_where_it_passes_through_0():
    recipes = cases("ops.hard_swish", ["float16"], kinds=["sizes"], seed=1)
    case = next(recipe for recipe in recipes if "1x129x3x43" in recipe.id).make()
    x, dy = (a.astype(np.float16) for a in (case.inputs["x"], case.upstream["output"]))
    share = dy / np.float16(6)
    inside = (x > -3) & (x < 3)
    dx = share * np.clip(x + np.float16(3), 0, 6) + np.where(inside, share * x, 0)
    assert case.compare({"x.grad": dx.astype(np.float16)}).passed


def test_the_slope_at_a_corner_of_hard_sigmoid_is_told_in_the_narrowest_format():
    module = PRIMITIVE_SYSTEMS["ops.hard_sigmoid"](channels=2)
    x = np.random.RandomState(0).standard_normal((1, 2, 9, 9))
    x[:, :, 0, 0] = 3, -3
    case = golden(module, inputs={"x": x}, dtype="bfloat16")
    for corner in (3, -3):
        slope = np.where(case.inputs["x"] == corner, case.upstream["output"] / 6, case.expected["x.grad"])
        assert not case.compare({"x.grad": slope}).passed


def test_numbers_far_above_the_corner_of_hard_sigmoid_hide_no_slope_below_it():
    x = np.random.RandomState(0).standard_normal((1, 2, 9, 9))
    x[:, :, 1:5], x[0, 0, 0, 0] = 1001, 2.25
    case = golden(PRIMITIVE_SYSTEMS["ops.hard_sigmoid"](channels=2), inputs={"x": x}, dtype="bfloat16")
    assert not case.compare({"x.grad": np.where(x == 2.25, 0, case.expected["x.grad"])}).passed
