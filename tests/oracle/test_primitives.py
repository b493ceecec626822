"""Primitives as systems: right, judged at hard cases, and all of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.module import as_tuple
from npattn.ops.primitive import PRIMITIVES
from npattn.oracle import cases, generic_values, golden, gradcheck, load
from npattn.oracle.budgets import Given, named_results, run_on
from npattn.oracle.formats import FORMATS, representable
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS
from npattn.oracle.primitives.layers import Conv2d
from npattn.oracle.primitives.selecting import Top
from npattn.oracle.rounding import Rounding

every_primitive = pytest.mark.parametrize("key", PRIMITIVE_SYSTEMS)
NO_SYSTEMS = {
    "accumulate": "adds to a gradient in place, in backward passes alone",
    "affinity_sums": "a step of pcm, which is a system",
    "concatenate": "moves numbers, and its gradient too",
    "concatenate_and_shuffle": "is made of two others",
    "cyclic_shift": "moves numbers, and its gradient too",
    "global_pools": "several of the pools, which are systems, at once",
    "masked_attention": "what sdpa computes, which is a system",
    "project": "several layers of conv2d, which is a system",
    "select": "a step of hard, which is a system",
    "split": "moves numbers, and its gradient too",
    "take": "moves numbers, and its gradient too",
    "window_partition": "moves numbers, and its gradient too",
    "window_reverse": "moves numbers, and its gradient too",
}
"""Primitives that are no systems, and why."""


def variants(key):
    """List a primitive's example, and what its options make of it."""
    example = PRIMITIVE_SYSTEMS[key].example()
    return [example, *(type(example)(**{**vars(example), **changes}) for changes in example.options)]


def test_every_primitive_of_the_namespace_is_a_system_or_excepted():
    exported = {f.__name__ for f in PRIMITIVES if getattr(ops, f.__name__, None) is f}
    assert {key.removeprefix("ops.") for key in PRIMITIVE_SYSTEMS} == exported - NO_SYSTEMS.keys()
    assert exported >= NO_SYSTEMS.keys()


@every_primitive
def test_gradients_agree_with_the_complex_step_whatever_the_options(key):
    for module in variants(key):
        report = gradcheck(
            module, *generic_values(module, batch=2, height=6, width=5), method="adjoint", allow_zero=True
        )
        assert report.passed, f"{module}\n{report}"


@every_primitive
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=5)
def test_outputs_have_the_shapes_that_are_promised(key, batch, height, width):
    for module in variants(key):
        if getattr(module, "training", False) and batch * height * width == 1:
            continue
        params, inputs = generic_values(module, batch=batch, height=height, width=width)
        try:
            module.check_inputs(tuple(inputs.values()))
        except ValueError:
            assert isinstance(module, (Conv2d, Top))
            continue
        run = module(params, *inputs.values())
        shapes = [y.shape for y in as_tuple(run.output)]
        assert shapes == [tuple(s) for s in module.output_shapes(batch, height, width).values()]


@pytest.mark.parametrize(("key", "dtype"), list(zip(PRIMITIVE_SYSTEMS, itertools.cycle(["float32", "bfloat16"]))))
def test_right_kernels_pass_and_wrong_ones_do_not(key, dtype):
    recipes = [recipe for recipe in cases(key, [dtype]) if recipe.label in {"ties", "broadcast"}]
    assert len(recipes) == 2
    refused = 0
    for recipe in recipes:
        case = recipe.make()
        inputs = Given(case.params, case.inputs, case.upstream).each(np.float64)
        case.assert_matches(run_on(Rounding(FORMATS[dtype]), case.module, inputs))
        single = named_results(case.module, inputs.each(np.float32))
        case.assert_matches({name: representable(np.float64(a), FORMATS[dtype]) for name, a in single.items()})
        refused += not case.compare({name: 1.1 * a for name, a in case.expected.items()}).passed
    assert refused == len(recipes)


@every_primitive
@pytest.mark.usefixtures("without_budgets")
def test_a_file_names_the_primitive_and_is_read_back(key, tmp_path):
    module = PRIMITIVE_SYSTEMS[key].example()
    case = golden(module, batch=2, height=2, width=3, dtype="float32", certify=False)
    case.save(tmp_path / "case.npz")
    again = load(tmp_path / "case.npz")
    assert again.module == module
    assert again.compare(case.expected).passed


def test_hyperparameters_that_can_not_be_are_refused():
    with pytest.raises(ValueError, match="Conv2d: groups=3; expected a divisor of channels=16"):
        Conv2d(groups=3)
    with pytest.raises(ValueError, match="Conv1d: kernel_size=4; expected an odd number"):
        PRIMITIVE_SYSTEMS["ops.conv1d"](kernel_size=4)
    module = Conv2d(kernel_size=5, padding=1)
    with pytest.raises(ValueError, match=r"x has shape \(1, 16, 2, 9\); expected at least 3 rows and columns"):
        module(module.init(), np.ones((1, 16, 2, 9)))
