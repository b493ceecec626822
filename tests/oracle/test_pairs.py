import tracemalloc

import numpy as np
import pytest

import npattn
from npattn import ops
from npattn.oracle import FORMATS, pairs
from npattn.oracle.budgets import Given, exact_results, named_results, run_on
from npattn.oracle.extended import extend
from npattn.oracle.measurement import run_in_longdouble
from npattn.oracle.rounding import Rounding
from npattn.oracle.steps.recorded import Recorded

FLOAT32, BFLOAT16 = FORMATS["float32"], FORMATS["bfloat16"]
MODULE = npattn.BottleneckAttention(channels=4, feat_size=(6, 5), heads=2)


@pytest.fixture
def blocks(monkeypatch):
    """Few pairs count as many, and a block is of seven queries, or fourteen."""
    monkeypatch.setattr(pairs, "MIN_PAIRS", 1)
    monkeypatch.setattr(pairs, "BYTES_OF_QUERIES", 7 * 8)


def given(module, batch=2):
    random = np.random.RandomState(0)
    params = {name: random.standard_normal(shape) for name, shape in module.parameter_shapes().items()}
    x, dy = random.standard_normal((2, *module.input_shapes(batch, 0, 0)["x"]))
    return Given(params, {"x": x}, {"output": dy})


def assert_near(found, expected, tolerance):
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=tolerance, atol=tolerance * np.abs(value).max(), err_msg=name
        )


def test_logits_kept_as_summands_give_what_an_array_of_them_gives(blocks):
    expected = named_results(MODULE, given(MODULE))
    assert_near(exact_results(MODULE, given(MODULE)), expected, 1e-12)
    assert_near(run_on(Rounding(FLOAT32, 1), MODULE, given(MODULE)), expected, 2e-5)


@pytest.mark.parametrize("sampled", [True, False])
def test_they_do_in_longdouble(blocks, sampled):
    module = MODULE.for_size(12, 11)
    assert_near(run_in_longdouble(module, given(module), sampled), named_results(module, given(module)), 1e-12)


def test_a_gradient_of_all_pairs_is_taken_too():
    shapes = (2, 3, 4, 5), (7, 3), (9, 3)
    q, *tables = (extend(np.random.RandomState(n).standard_normal(shape)) for n, shape in enumerate(shapes))
    z, backward = ops.relative_logits.definition(q, *tables)
    logits, backward_apart = pairs.relative_logits(q, *tables)
    np.testing.assert_allclose(np.zeros(z.shape) + logits, z)
    for found, expected in zip(backward_apart(z), backward(z), strict=True):
        np.testing.assert_allclose(found, expected)


def test_steps_that_are_read_are_arrays(blocks):
    system = Recorded(MODULE, lambda steps: {step.path: step.value for step in steps})
    found = run_on(Rounding(FLOAT32, 1), system, given(MODULE))
    assert found["(3) r"].shape == (2, 2, 30, 30)


@pytest.mark.parametrize(("format", "queries"), [(FLOAT32, 128), (BFLOAT16, 256)])
def test_wide_numbers_come_in_blocks_of_fewer_queries(format, queries, monkeypatch):
    attend, found = pairs.attend_by_blocks, []

    def record(*arguments, queries, **options):
        found.append(queries)
        return attend(*arguments, queries=queries, **options)

    monkeypatch.setattr(pairs, "attend_by_blocks", record)
    module = MODULE.for_size(24, 24)
    run_on(Rounding(format, 1), module, given(module, batch=1))
    assert found == [queries]


@pytest.mark.parametrize("kind", ["float64", "rounding"])
def test_logits_of_all_pairs_are_never_held(kind, monkeypatch):
    monkeypatch.setattr(pairs, "BYTES_OF_QUERIES", 256)
    module = MODULE.for_size(24, 24)
    numbers = given(module, batch=1)
    tracemalloc.start()
    _ = exact_results(module, numbers) if kind == "float64" else run_on(Rounding(BFLOAT16, 1), module, numbers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 576**2 * {"float64": 8, "rounding": 4}[kind]  # of both heads
