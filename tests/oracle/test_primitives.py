"""Primitives as systems: right, judged at hard cases, and all of them."""

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
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS, BatchNorm, Conv2d
from npattn.oracle.rounding import Rounding

every_primitive = pytest.mark.parametrize("key", PRIMITIVE_SYSTEMS)
NOT_SYSTEMS = {
    "affinity_sums", "concatenate", "fold_windows", "global_pools", "overlap_average", "select", "softmin", "split",
    "take", "top", "unfold_windows", "repeat", "masked_attention",
}  # fmt: skip
"""Primitives that move numbers, or serve one system alone."""


def variants(key):
    """List a primitive's example, and what its options make of it."""
    example = PRIMITIVE_SYSTEMS[key].example()
    return [example, *(type(example)(**{**vars(example), **changes}) for changes in example.options)]


def test_every_primitive_of_the_namespace_is_a_system_or_excepted():
    exported = {f.__name__ for f in PRIMITIVES if getattr(ops, f.__name__, None) is f} - {"accumulate"}
    assert {key.removeprefix("ops.") for key in PRIMITIVE_SYSTEMS} == exported - NOT_SYSTEMS
    assert exported >= NOT_SYSTEMS


@every_primitive
def test_gradients_agree_with_the_complex_step_whatever_the_options(key):
    for module in variants(key):
        report = gradcheck(
            module, *generic_values(module, batch=2, height=6, width=5), method="adjoint", allow_zero=True
        )
        assert report.passed, f"{module}\n{report}"


@every_primitive
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=20)
def test_outputs_have_the_shapes_that_are_promised(key, batch, height, width):
    for module in variants(key):
        if getattr(module, "training", False) and batch * height * width == 1:
            continue
        params, inputs = generic_values(module, batch=batch, height=height, width=width)
        try:
            module.check_inputs(tuple(inputs.values()))
        except ValueError:
            assert isinstance(module, Conv2d)
            continue
        run = module(params, *inputs.values())
        shapes = [y.shape for y in as_tuple(run.output)]
        assert shapes == [tuple(s) for s in module.output_shapes(batch, height, width).values()]


@every_primitive
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_right_kernels_pass_and_wrong_ones_do_not(key, dtype):
    recipes = [recipe for recipe in cases(key, [dtype]) if "x1x" not in recipe.id and recipe.batch][-4:]
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
def test_a_file_names_the_primitive_and_is_read_back(key, tmp_path):
    module = PRIMITIVE_SYSTEMS[key].example()
    case = golden(module, batch=2, height=2, width=3)
    case.save(tmp_path / "case.npz")
    again = load(tmp_path / "case.npz")
    assert again.module == module
    assert again.compare(case.expected).passed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_biased_running_variance_is_refused(dtype):
    (recipe,) = [recipe for recipe in cases(BatchNorm, [dtype]) if recipe.label == "training-few"]
    case = recipe.make()
    count = recipe.batch * recipe.height * recipe.width
    unbiased = case.expected["running_var"] - 0.9 * case.params["running_var"]
    biased = 0.9 * case.params["running_var"] + unbiased * (count - 1) / count
    case.assert_matches({"running_var": representable(case.expected["running_var"], FORMATS[dtype])})
    assert not case.compare({"running_var": representable(biased, FORMATS[dtype])}).passed
    forgotten = case.params["running_var"].astype(np.float64)
    assert not case.compare({"running_var": forgotten}).passed


def test_hyperparameters_that_can_not_be_are_refused():
    with pytest.raises(ValueError, match="Conv2d: groups=3; expected a divisor of channels=16"):
        Conv2d(groups=3)
    with pytest.raises(ValueError, match="Conv1d: kernel_size=4; expected an odd number"):
        PRIMITIVE_SYSTEMS["ops.conv1d"](kernel_size=4)
    module = Conv2d(kernel_size=5, padding=1)
    with pytest.raises(ValueError, match=r"x has shape \(1, 16, 2, 9\); expected at least 3 rows and columns"):
        module(module.init(), np.ones((1, 16, 2, 9)))
