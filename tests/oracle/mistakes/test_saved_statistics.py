"""Weights and statistics that forward got wrong and backward reads, and sums over a batch that lack something."""

import numpy as np
import pytest

from npattn.oracle import golden
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS

SIZES = {"batch": 3, "height": 2, "width": 3, "dtype": "float32"}


def norm_by(root, module, eps, case):
    """Batch norm or layer norm by the root of another variance, and its gradients by that root, in float64."""
    x, dy = (np.moveaxis(a.astype(float), 1 if module == "batch_norm" else -1, -1) for a in given(case))
    weight, bias = case.params["weight"], case.params["bias"]
    axes = tuple(range(x.ndim - 1)) if module == "batch_norm" else -1
    centred = x - x.mean(axes, keepdims=True)
    by = root((centred**2).mean(axes, keepdims=True), eps, x.size // centred.mean(axes).size)
    n, dn = centred / by, dy * weight
    dx = (dn - dn.mean(axes, keepdims=True) - n * (dn * n).mean(axes, keepdims=True)) / by
    sums = {"weight.grad": (dy * n).reshape(-1, len(weight)).sum(0), "bias.grad": dy.reshape(-1, len(weight)).sum(0)}
    maps = {"output": n * weight + bias, "x.grad": dx}
    return {name: np.moveaxis(a, -1, 1 if module == "batch_norm" else -1) for name, a in maps.items()} | sums


def given(case):
    return case.inputs["x"], case.upstream["output"]


@pytest.mark.parametrize(
    ("module", "name", "root"),
    [
        ("batch_norm", "unbiased variance", lambda v, eps, n: np.sqrt(v * n / (n - 1) + eps)),
        ("layer_norm", "epsilon beside the root", lambda v, eps, n: np.sqrt(v) + eps),
    ],
)
def test_a_deviation_that_backward_reads_too_is_named(module, name, root):
    system = PRIMITIVE_SYSTEMS[f"ops.{module}"](**{"training": True} if module == "batch_norm" else {})
    x = np.random.RandomState(0).standard_normal(system.input_shapes(batch=3, height=2, width=3)["x"]) / 10
    case = golden(system, inputs=x, dtype="float32")
    found = case.diagnose(norm_by(root, module, system.eps, case))
    assert found.sure
    assert any(f"{name}, in forward and the statistics that backward reads of it" in one.name for one in found)


def test_weights_whose_sum_lacks_the_last_are_named_by_how_backward_is_made():
    case = golden(PRIMITIVE_SYSTEMS["ops.softmax"](), **SIZES)
    x, ds = (a.astype(float) for a in given(case))
    e = np.exp(x)
    s = e / e[..., :-1].sum(axis=-1, keepdims=True)
    right = e / e.sum(axis=-1, keepdims=True)
    by_sum = s * ds - e * (s * ds).sum(-1, keepdims=True) / e[..., :-1].sum(-1, keepdims=True) * (
        np.arange(x.shape[-1]) < x.shape[-1] - 1
    )
    words = "last weight left out of the sum"
    for output, dx, name in (
        (s, s * (ds - (s * ds).sum(-1, keepdims=True)), f"{words}, in forward and the weights that backward reads"),
        (s, by_sum, f"{words}, carried through backward"),
        (s, right * (ds - (right * ds).sum(-1, keepdims=True)), f"{words}, in forward alone"),
        (right, right * (ds - (right * ds)[..., :-1].sum(-1, keepdims=True)), "gradient: last term left out"),
    ):
        found = case.diagnose({"output": output, "x.grad": dx})
        assert found.sure
        assert name in found[0].name


@pytest.mark.parametrize(
    ("parameter", "kept", "words"),
    [("weight", 2, "of the weights without the last image"), ("bias", 1, "of the bias from image 0 alone")],
)
def test_a_single_parameters_gradient_that_lacks_images_is_named(parameter, kept, words):
    case = golden(PRIMITIVE_SYSTEMS["ops.conv2d"](), **SIZES)
    x, dy = (a.astype(float) for a in given(case))
    params = {name: a.astype(float) for name, a in case.params.items()}
    _, grads = case.module(params, x).backward(dy * (np.arange(3) < kept)[:, None, None, None])
    found = case.diagnose(
        {f"{name}.grad": case.expected[f"{name}.grad"] for name in params} | {f"{parameter}.grad": grads[parameter]}
    )
    assert found.sure
    assert words in found[0].name


@pytest.mark.parametrize("module", ["batch_norm", "group_norm"])
def test_a_mean_of_a_norms_gradient_that_is_not_divided_is_named(module):
    system = PRIMITIVE_SYSTEMS[f"ops.{module}"](**{"training": True} if module == "batch_norm" else {"groups": 1})
    case = golden(system, **SIZES)
    x, dy = (a.astype(float) for a in given(case))
    axes = (0, 2, 3) if module == "batch_norm" else (1, 2, 3)
    centred = x - x.mean(axes, keepdims=True)
    by = np.sqrt((centred**2).mean(axes, keepdims=True) + system.eps)
    n, dn = centred / by, dy * case.params["weight"][:, None, None]
    dx = (dn - dn.sum(axes, keepdims=True) - n * (dn * n).mean(axes, keepdims=True)) / by
    found = case.diagnose({"x.grad": dx})
    assert found.sure
    assert "gradient: mean's sum, not divided" in found[0].name
    dweight = (dy * centred).sum((0, 2, 3))
    found = case.diagnose({name: case.expected[name] for name in ("x.grad", "bias.grad")} | {"weight.grad": dweight})
    assert "of weight from x less its mean, not divided" in found[0].name
