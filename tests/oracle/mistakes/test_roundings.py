import functools

import numpy as np
import pytest

import npattn
from npattn.oracle import FORMATS, golden, mistakes
from npattn.oracle.budgets import Given, named_results, run_on
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.planting import faulty
from npattn.oracle.mistakes.precision import in_format
from npattn.oracle.mistakes.roundings import NarrowSums, at_one_step, roundings
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS
from npattn.oracle.rounding import Rounding
from npattn.oracle.rounding.products import multiply
from tests.benchmarks import kernels
from tests.oracle.mistakes.searching import diagnosed


def run(module, *given):
    return named_results(module, Given(*given))


@functools.cache
def case_of(key, *sizes):
    batch, height, width = sizes or (2, 7, 5)
    module = npattn.CATALOGUE[key].example()
    return golden(module, batch=batch, height=height, width=width, dtype="float32", certify=False)


def made(name):
    return next(one for one in mistakes.MISTAKES if (str(one), one.way) == (name, "forward"))


def spoilt(case, name):
    """Return a kernel's results, in float32, with a mistake in forward alone."""
    found = kernels.rounded(faulty(run, made(name), 0)(case.module, *kernels.given(case)), case.format)
    return {n: a for n, a in found.items() if n not in case.maps}


def test_a_rounding_at_one_step_is_named_where_some_numbers_are_rounded_the_other_way():
    case = case_of("pam", 3, 5, 12)
    results = spoilt(case, "gate: value in bfloat16")
    flipped = results["output"].copy()
    at = np.unravel_index(np.argmax(np.abs(case.expected["output"])), flipped.shape)
    flipped[at] *= 1 + 2.0**-8
    found = diagnosed(case, results | {"output": flipped})
    assert found.sure
    assert "gate: value in bfloat16" in found[0].name


def test_errors_of_the_size_of_a_rounding_that_lie_elsewhere_are_not_one():
    case = case_of("pam", 3, 5, 12)
    right, results = case.expected["output"], spoilt(case, "gate: value in bfloat16")
    errors = (results["output"] - right)[:, ::-1, ::-1]
    found = diagnosed(case, results | {"output": right + errors})
    assert not any("gate: value in bfloat16" in one.name for one in found)


def test_roundings_are_looked_for_as_long_as_there_is_time():
    case = case_of("pam", 3, 5, 12)
    given = {name: np.asarray(a, np.float64) for name, a in spoilt(case, "gate: value in bfloat16").items()}
    search = Search(case, given)
    search.find_places([made("gate: value in bfloat16")])
    for end, named in ((0.0, []), (np.inf, ["value in bfloat16"])):
        search.end = end
        for look in (at_one_step, roundings):
            search.complete = True
            found, _ = look(search)
            assert [one.mistakes[0][0].name for one in found] == named
            assert search.complete == bool(named)


def test_arithmetics_are_tried_as_long_as_there_is_time():
    case = case_of("se")
    given = Given(case.params, case.inputs, case.upstream)
    search = Search(case, dict(run_on(Rounding(FORMATS["bfloat16"]), case.module, given)))
    for end in (0.0, np.inf):
        search.end, search.complete = end, True
        assert bool(roundings(search)[0]) == search.complete == (end > 0)


def test_errors_in_a_few_elements_are_not_those_of_an_arithmetic():
    """Of the same size, over a whole result, as those of the arithmetic."""
    case = case_of("se")
    given = Given(case.params, case.inputs, case.upstream)
    results = dict(run_on(Rounding(FORMATS["bfloat16"]), case.module, given))
    assert roundings(Search(case, results))[0]
    right = case.expected["output"]
    error = np.zeros(right.shape)
    error[0, 0] = np.linalg.norm((results["output"] - right) / case.budget["output"]) / np.sqrt(error[0, 0].size)
    local = right + error * case.budget["output"]
    assert roundings(Search(case, results | {"output": local})) == ([], False)


@pytest.mark.parametrize(("height", "width"), [(6, 23), (10, 13)])
def test_numbers_that_are_all_off_by_one_are_not_right_ones_written_in_a_narrow_format(height, width):
    """Each is a number of bfloat16, and within a unit of its last place of the right one."""
    module = PRIMITIVE_SYSTEMS["ops.shift"].example()
    case = golden(module, batch=3, height=height, width=width, dtype="float16", values="ones", certify=False)
    found = diagnosed(case, case.expected | {"t.grad": case.expected["t.grad"] + 1})
    assert not any("written" in one.name or "results in" in one.name for one in found)
    rounded = {n: in_format(a, "bfloat16") for n, a in case.expected.items()}
    assert any(one.name == "results in bfloat16" for one in diagnosed(case, rounded))


@pytest.mark.parametrize("dtype", ["float16", "tf32"])
def test_one_lost_number_is_no_sum_in_a_narrow_format(dtype):
    case = golden(
        PRIMITIVE_SYSTEMS["ops.conv2d"].example(), batch=2, height=12, width=11, dtype=dtype, seed=1, certify=False
    )
    for place in range(0, case.expected["output"].size, 37):
        output = case.expected["output"].copy()
        output.flat[place] = 0
        found = diagnosed(case, case.expected | {"output": output})
        assert not any("sums accumulated" in one.name for one in found), place


def named(case, mistake, way):
    one = next(m for m in mistakes.MISTAKES if (str(m), m.way) == (mistake, way))
    with np.errstate(all="ignore"):
        results = kernels.rounded(faulty(run, one, 0)(case.module, *kernels.given(case)), case.format)
    return diagnosed(case, {n: a for n, a in results.items() if n not in case.maps})


@pytest.mark.parametrize(
    ("key", "mistake", "way"),
    [
        ("mhsa", "dot_product_attention: softmax and all around it in bfloat16", "both"),
        ("cam", "softmax: it and all around it in float16", "both"),
        ("mhsa", "dot_product_attention: queries and keys in tf32", "both"),
        ("mhsa", "dot_product_attention: weights in bfloat16 where they meet the values", "both"),
        ("se", "linear: operands in bfloat16", "both"),
        ("pam", "pass: inputs and parameters in bfloat16", "both"),
        ("mhsa", "pass: results in float16", "forward"),
    ],
)
def test_what_is_kept_in_a_narrow_format_is_named(key, mistake, way):
    case = case_of(key)
    found = named(case, mistake, way)
    assert found.sure
    names = {str(one) for suspect in found.suspects[: found.alike] for one in (*suspect.mistakes, *suspect.twins)}
    assert mistake in names


def test_a_format_is_not_sure_by_the_size_of_errors_alone():
    case = case_of("se")
    given = Given(case.params, case.inputs, case.upstream)
    results = dict(run_on(Rounding(FORMATS["bfloat16"], 3), case.module, given))
    found = diagnosed(case, {name: a * (1 + 2.0**-22) for name, a in results.items()})
    assert not found.sure
    assert str(found).startswith("it may be a lack of precision, and no mistake of mathematics")
    assert diagnosed(case, results).sure, "all results are numbers of the format"


def test_errors_on_one_side_are_no_lack_of_precision():
    module = PRIMITIVE_SYSTEMS["ops.silu"](channels=8)
    case = golden(module, batch=2, height=7, width=5, dtype="float32", certify=False)
    x, dy = case.inputs["x"], case.upstream["output"]
    y = 1 / (1 + np.exp(-1.01 * x))
    results = {"output": x * y, "x.grad": dy * (y + 1.01 * x * y * (1 - y))}
    assert not diagnosed(case, {name: np.float32(a) for name, a in results.items()})


def test_no_rounding_is_tried_where_an_output_is_off_by_more_than_roundings_make():
    case = case_of("se")
    tried = {}
    for factor in (1.2, 2.0):
        search = Search(case, dict(case.expected) | {"output": factor * case.expected["output"]})
        search.find_places([made("linear: operands in bfloat16"), made("relu: GELU")])
        search.singles()
        tried[factor] = {one.mistakes[0][0].name for one in search.tried}
    assert tried == {1.2: {"operands in bfloat16", "GELU"}, 2.0: {"GELU"}}


@pytest.mark.parametrize(("dtype", "length"), [("float32", 60), ("float32", 300), ("tf32", 300), ("tf32", 400)])
def test_sums_of_products_of_every_size_are_accumulated_in_the_narrower_format(dtype, length):
    """Of operands that are cut into blocks, and of those that are shortened some rows at a time, as of small ones."""
    a, b = np.random.RandomState(0).standard_normal((2, length, length))
    error = multiply(a, b, NarrowSums(FORMATS[dtype], FORMATS["bfloat16"], [0, 7])) - a @ b
    per_sum = FORMATS["bfloat16"].unit_roundoff * length / np.sqrt(2)  # that of a random walk of so many terms
    assert 0.4 < np.sqrt(np.mean(error**2)) / per_sum < 0.8
