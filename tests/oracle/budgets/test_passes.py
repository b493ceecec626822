"""What the results of a pass are, and by which names: running statistics and attention maps among them."""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import itertools

import numpy as np
import pytest

from npattn import ops
from npattn.ops.context import replacing
from npattn.oracle import cases, generic_values, golden
from npattn.oracle.budgets import Given, exact_results, named_results, run_on
from npattn.oracle.formats import FORMATS, representable
from npattn.oracle.primitives.layers import BatchNorm
from npattn.oracle.rounding import Rounding
from tests.naming import for_each
from tests.own_systems import OWN_SYSTEMS, CausalHead, NormGate
from tests.strategies import SYSTEMS

TRAINED = [s for s in SYSTEMS if "training" in s.__dataclass_fields__ and s.example().buffer_shapes()]
COMMON = "float32", "bfloat16", "float16"
formats = pytest.mark.parametrize("dtype", COMMON)
TURNS = list(zip(TRAINED, itertools.cycle(COMMON)))
"""Each system in one format, each format with every third system: a case is much dearer than what is said of it."""


def results_of(module, batch=3, height=2, width=3):
    params, inputs = generic_values(module, batch=batch, height=height, width=width)
    shapes = module.output_shapes(batch, height, width)
    upstream = {name: np.ones(shape) for name, shape in shapes.items()}
    return named_results(module, Given(params, inputs, upstream)), module(params, *inputs.values())


@for_each("system", [*SYSTEMS, *OWN_SYSTEMS])
def test_running_statistics_and_attention_maps_come_last_by_their_own_names(system):
    module = system.example()
    if hasattr(module, "k"):
        module = type(module)(module.channels, k=2)
    found, run = results_of(module)
    rest = {name: value for name, value in found.items() if not (name.startswith("output") or name.endswith(".grad"))}
    assert list(rest) == [*run.buffers, *run.attention]
    assert list(found)[len(found) - len(rest) :] == list(rest)
    for name, value in (run.buffers | run.attention).items():
        np.testing.assert_array_equal(rest[name], value)


@for_each("system", TRAINED)
def test_running_statistics_are_results_in_training_alone(system):
    for training in (False, True):
        recipes = cases(system, ["float32"], kinds=["options"])
        module = next(r.module for r in recipes if r.label == "training")
        module = type(module)(**{**vars(module), "training": training})
        found, _ = results_of(module)
        assert (module.buffer_shapes().keys() <= found.keys()) == training
        assert bool(module.buffer_shapes().keys() & found.keys()) == training


@functools.cache
def few(system, dtype, label):
    """A case of few positions, in which a variance depends on what it was divided by."""
    (recipe,) = [recipe for recipe in cases(system, [dtype], kinds=["options"]) if recipe.label == label]
    sizes = {"batch": recipe.batch, "height": recipe.height, "width": recipe.width}
    return golden(recipe.module, **sizes, dtype=dtype, values=recipe.values, certify=False)


def remember_biased(called, arguments, options):
    """Compute batch norm by a wrong kernel: what it remembers in training is the variance that it divides by."""
    if called is not ops.batch_norm or not options["training"]:
        return NotImplemented
    given = inspect.signature(called).bind(*arguments, **options).arguments
    x, old = given["x"], given["running_var"]
    (y, (mean, new)), backward = called(*arguments, **options)
    count, kept = x.size // x.shape[1], (1 - given.get("momentum", 0.1)) * old
    return (y, (mean, kept + (new - kept) * (count - 1) / count)), backward


def running_statistics(case, *handlers):
    """New running statistics in the case's format, by name."""
    given = Given(case.params, case.inputs, case.upstream).each(np.float64)
    with contextlib.ExitStack() as stack:
        for handler in handlers:
            stack.enter_context(replacing(handler))
        found = named_results(case.module, given)
    return {name: representable(found[name], FORMATS[case.dtype]) for name in case.module.buffer_shapes()}


@pytest.mark.parametrize(
    ("system", "dtype"),
    [*TURNS, *itertools.product([NormGate, BatchNorm], COMMON)],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_some_case_refuses_a_biased_running_variance_and_every_case_takes_the_unbiased_one(system, dtype):
    labels, moved, passed = ("training-few", "training-few-large"), {}, set()
    for label in labels[:: -1 if dtype == "bfloat16" else 1]:  # a large variance shows there, and overflows in float16
        case = few(system, dtype, label)
        right, wrong = running_statistics(case), running_statistics(case, remember_biased)
        case.assert_matches(right)
        biased = case.compare(wrong).judgements
        refused = {name for name in biased if not biased[name].passed}
        variances = {name for name in right if name.endswith("running_var")}
        assert refused <= variances
        for name in refused:
            assert not case.compare({name: case.params[name]}).passed, name  # as it was
        fresh = dataclasses.replace(case, params=case.params | {name: 0 * case.params[name] for name in variances})
        alone, less = running_statistics(fresh), running_statistics(fresh, remember_biased)
        for name in variances:
            share = 1 - np.divide(less[name], alone[name], out=np.ones_like(less[name]), where=alone[name] > 0)
            moved[name] = max(share.max(), moved.get(name, 0))
        passed = (passed or variances) - refused
        if not passed:
            break
    # Where a batch has many positions, what its variance was divided by hardly shows in bfloat16.
    assert all(moved[name] < 6 * FORMATS[dtype].unit_roundoff for name in passed), {n: moved[n] for n in passed}


@pytest.mark.parametrize(("system", "dtype"), TURNS, ids=lambda one: getattr(one, "key", one))
def test_running_statistics_of_pytorch_pass(system, dtype):
    torch = pytest.importorskip("torch")
    tests = importlib.import_module(f"tests.attention.test_{system.__module__.rpartition('.')[2]}")
    case = few(system, dtype, "training-few")
    reference = tests.published(case.module)
    initial = reference.state_dict()
    given = {name: torch.tensor(case.params[name]) if name in case.params else a for name, a in initial.items()}
    reference.load_state_dict(given)
    reference = reference.to(getattr(torch, dtype)).train()
    reference(*(torch.tensor(x).to(getattr(torch, dtype)) for x in case.inputs.values()))
    buffers = dict(reference.named_buffers())
    found = {name: buffers[name] for name in case.module.buffer_shapes()}
    assert found
    case.assert_matches(found)


@formats
def test_attention_maps_are_judged_where_they_are_given(dtype):
    case = golden(CausalHead(), batch=2, height=5, width=6, dtype=dtype)
    found = run_on(
        Rounding(FORMATS[dtype]), case.module, Given(case.params, case.inputs, case.upstream).each(np.float64)
    )
    case.assert_matches(found)
    case.assert_matches({name: value for name, value in found.items() if name != "weights"})
    assert not case.compare({"weights": found["weights"].swapaxes(0, 1).reshape(2, 5, 6)}).passed
    assert not case.compare({"weights": 1.05 * found["weights"]}).passed


def test_no_pass_warns_of_an_infinity_on_the_way():
    class Logarithmic(SYSTEMS[0]):
        def forward(self, params, x):
            assert np.isneginf(np.log(0 * x.real)).all()
            return super().forward(params, x)

    module = Logarithmic.example()
    params, inputs = generic_values(module)
    given = Given(params, inputs, {"output": np.ones_like(inputs["x"])})
    found = run_on(Rounding(FORMATS["float32"]), module, given)
    for name, y in exact_results(module, given).items():
        np.testing.assert_allclose(found[name], y, rtol=1e-4, atol=1e-6)
