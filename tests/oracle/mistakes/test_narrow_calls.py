"""Kernels that hold one step in a narrower format, in PyTorch, with autograd."""

import numpy as np
import pytest

import npattn
from npattn import ops
from npattn.oracle import golden, mistakes
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.candidates import Candidate, Passes
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.narrow_calls import Errors, carried_back, from_forward, narrow_calls
from npattn.oracle.mistakes.narrow_sums import narrow_sums, weigh
from npattn.oracle.mistakes.narrowing import at_call
from npattn.oracle.mistakes.roundings import roundings
from npattn.oracle.mistakes.twins import unlike
from npattn.oracle.mistakes.written import format_written
from tests.naming import for_each
from tests.oracle.mistakes.searching import diagnosed

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


def meeting_narrow(function, *given, **options):
    """Round the value where it is used, but not in its own gradient."""
    value = function(*given, **options)
    return value + (value.half().float() - value).detach()


def kernel(key, context):
    """Run a system's PyTorch form in a context; return the case, and its results."""
    module = npattn.CATALOGUE[key].example()
    case = golden(module, batch=2, height=7, width=5, dtype="float32", certify=False)
    given = [{n: a.astype(np.float32) for n, a in one.items()} for one in (case.params, case.inputs, case.upstream)]

    def form(*tensors):
        with context:
            y = foreign.FORMS[key](*tensors)
        return y.float()

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
        (
            "halo",
            Instead(torch.softmax, narrow(torch.float16)),
            ("masked_attention", 0, "softmax and all around it in float16"),
        ),
        (
            "pam",
            Instead(torch.softmax, meeting_narrow),
            ("dot_product_attention", 0, "weights in float16 where they meet the values"),
        ),
        ("se", Instead(F.linear, narrow(torch.float16)), ("linear", 0, "operands and value in float16")),
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


def test_the_calls_of_a_case_are_kept_for_its_next_results():
    case, results = kernel("se", Instead(F.linear, narrow(torch.float16)))
    first, second = (Search(case, results, 600.0, passes) for passes in [Passes()] * 2)
    first.find_places(mistakes.MISTAKES)
    assert first.calls == {"global_average_pool": 1, "linear": 2, "relu": 1, "sigmoid": 1, "gate": 1}
    second.find_places(mistakes.MISTAKES)
    assert second.calls is first.calls


def test_a_gradient_alone_in_a_narrower_format_is_named():
    case, results = kernel("se", torch.enable_grad())
    (found,), sure = roundings(searched(case, results | {"x.grad": results["x.grad"].astype(np.float16)}))
    assert sure
    assert found.mistakes[0][0].name == "right numbers, written in float16"
    assert found.results["x.grad"].tolist() != case.expected["x.grad"].tolist()


def test_results_of_another_format_are_told_by_their_digits():
    case, results = kernel("se", torch.enable_grad())
    narrow_ones = {name: a.astype(np.float16) for name, a in results.items()}
    (found,), sure = roundings(searched(case, narrow_ones))
    assert sure
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


@for_each("error", [0.0, 1e-200, np.inf, np.nan])
def test_errors_that_have_no_size_are_of_no_sums(error):
    case, results = kernel("se", torch.enable_grad())
    search = searched(case, results | {"x.grad": results["x.grad"] + 1.0})
    search.ruler.results["x.grad"] = case.expected["x.grad"] + error
    drawn = [case.expected | {"x.grad": case.expected["x.grad"] + 1e-3}]
    with np.errstate(all="ignore"):
        assert not list(weigh(search, drawn, "linear", 0))


def test_formats_that_the_numbers_do_not_tell_apart_are_both_named():
    same = {"output": np.ones(3)}
    places = [((at_call("score", format, ("operands",), ()), 0),) for format in ("float16", "tf32")]
    (found,) = unlike([Candidate(place, Misfit({}, {}), same) for place in places], several_images=True)
    assert found.mistakes == places[0]
    assert found.twins == (places[1][0][0],)


def test_a_value_and_what_reads_it_are_not_told_apart():
    """The catalogue has the one, and its results are just those."""
    case, _ = kernel("eca", torch.enable_grad())
    one = next(m for m in mistakes.MISTAKES if str(m) == "conv1d: value in bfloat16")
    run = mistakes.faulty(lambda module, *given: named_results(module, Given(*given)), one, 0)
    found = diagnosed(case, run(case.module, case.params, case.inputs, case.upstream))
    said = {one.name.partition(",")[0] for one in found[: found.alike]}
    assert {"(2) conv1d: value in bfloat16", "(3) sigmoid: x in bfloat16"} <= said


def test_a_call_is_sure_where_all_others_had_time_alone():
    search = searched(*kernel("se", Instead(torch.sigmoid, narrow(torch.bfloat16))))
    errors = Errors(search)
    best, *_ = sorted(from_forward(search, errors), key=lambda pair: pair[0])
    (one, *_) = carried_back(search, errors, best[1])
    assert errors.are_explained(one.misfit)
    assert not errors.has_time(0.0)
    assert not errors.are_explained(one.misfit)


def test_products_that_a_framework_casts_are_not_told_from_arithmetic_throughout():
    case, results = kernel("mhsa", torch.autocast("cpu", torch.bfloat16))
    found, _ = roundings(searched(case, results))
    assert [name for *_, name in names(found)] == [
        "arithmetic in bfloat16",
        "products in bfloat16, and what follows them",
    ]


def test_scaled_queries_alone_are_narrow():
    q, k, v = np.random.RandomState(0).standard_normal((3, 1, 4, 6))
    attend, scale = ops.dot_product_attention, 0.3
    narrow_one = at_call(attend.__name__, "float16", ("scaled",), ()).apply(attend, q, k, v, scale)[0]
    exactly = attend(np.float16(scale * q).astype(np.float64), k, v, 1.0)[0]
    assert np.allclose(narrow_one, exactly, rtol=1e-12, atol=0)
