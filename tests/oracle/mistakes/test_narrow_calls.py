"""Kernels that hold one step in a narrower format, in PyTorch, with autograd."""

import numpy as np
import pytest

import npattn
from npattn.oracle import golden
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.narrow_calls import narrow_calls
from npattn.oracle.mistakes.narrow_sums import narrow_sums
from npattn.oracle.mistakes.roundings import roundings
from npattn.oracle.mistakes.written import format_written

torch = pytest.importorskip("torch")
foreign = pytest.importorskip("tests.benchmarks.foreign")
F = torch.nn.functional


class Instead(torch.overrides.TorchFunctionMode):
    """Call another function in the place of one, in its first call or so many."""

    def __init__(self, function, other, most=1):
        super().__init__()
        self.function, self.other, self.left = function, other, most

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is self.function and self.left:
            self.left -= 1
            return self.other(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def narrow(dtype):
    """Compute in a dtype, and go on in float32: gradients come back through it too."""
    return lambda function, *given, **options: function(
        *(a.to(dtype) if isinstance(a, torch.Tensor) else a for a in given), **options
    ).float()


def kernel(key, context):
    """Run a system's PyTorch form in a context; return the case, and its results."""
    module = npattn.CATALOGUE[key].example()
    case = golden(module, batch=2, height=7, width=5, dtype="float32", certify=False)
    given = [{n: a.astype(np.float32) for n, a in one.items()} for one in (case.params, case.inputs, case.upstream)]

    def form(*tensors):
        with context:
            return foreign.FORMS[key](*tensors)

    return case, foreign.results(module, form, *given)


def searched(case, results):
    search = Search(case, {name: np.asarray(a, np.float64) for name, a in results.items()}, 600.0)
    search.find_places([])
    return search


def names(found):
    return [(one.mistakes[0][0].primitive, one.mistakes[0][1], one.mistakes[0][0].name) for one in found]


@pytest.mark.parametrize(
    ("key", "context", "name"),
    [
        (
            "pam",
            Instead(torch.softmax, narrow(torch.bfloat16)),
            ("dot_product_attention", 0, "softmax and all around it in bfloat16"),
        ),
        ("pam", Instead(F.conv2d, narrow(torch.float16)), ("conv2d", 0, "operands and value in float16")),
        ("se", torch.autocast("cpu", torch.bfloat16), ("", 0, "products in bfloat16, and what follows them")),
    ],
)
def test_a_step_in_a_narrower_format_is_named(key, context, name):
    found, sure = narrow_calls(searched(*kernel(key, context)))
    assert sure
    assert name in names(found)


def test_nothing_is_narrow_where_a_step_is_wrong_by_as_much():
    case, results = kernel("se", Instead(torch.sigmoid, lambda f, z: f(z * (1 + 2.0**-8))))
    assert not case.compare(results).passed
    assert not narrow_calls(searched(case, results))[1]


def test_calls_are_looked_at_as_long_as_there_is_time():
    search = searched(*kernel("se", torch.autocast("cpu", torch.bfloat16)))
    search.end = 0.0
    assert narrow_calls(search) == ([], False)
    assert narrow_sums(search) == []
    assert not search.complete


def test_a_gradient_alone_in_a_narrower_format_is_named():
    case, results = kernel("se", torch.enable_grad())
    (found,) = roundings(searched(case, results | {"x.grad": results["x.grad"].astype(np.float16)}))
    assert found.mistakes[0][0].name == "right numbers, written in float16"
    assert found.results["x.grad"].tolist() != case.expected["x.grad"].tolist()


def test_results_of_another_format_are_told_by_their_digits():
    case, results = kernel("se", torch.enable_grad())
    narrow_ones = {name: a.astype(np.float16) for name, a in results.items()}
    (found,) = roundings(searched(case, narrow_ones))
    assert found.mistakes[0][0].name == "results in float16"
    assert format_written(searched(case, {n: a * np.float32(1.0003) for n, a in narrow_ones.items()})) is None


def test_sums_accumulated_in_a_narrower_format_are_named_unsurely():
    def add_up(_, x, weight, bias):
        total = torch.zeros(())
        for i in range(0, x.shape[1], 4):
            total = (total + F.conv2d(x[:, i : i + 4], weight[:, i : i + 4])).bfloat16().float()
        return total + bias[:, None, None]

    case, results = kernel("pam", Instead(F.conv2d, add_up))
    search = searched(case, results)
    assert narrow_calls(search) == ([], False)
    (found,) = narrow_sums(search)
    assert names([found]) == [("conv2d", 0, "sums accumulated in bfloat16")]
    assert not found.results
