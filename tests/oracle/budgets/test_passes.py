"""What the results of a pass are, and by which names: running statistics and attention maps among them."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

from npattn.oracle import cases, generic_values, golden
from npattn.oracle.budgets import Given, named_results, run_on
from npattn.oracle.formats import FORMATS, representable
from npattn.oracle.rounding import Rounding
from tests.own_systems import OWN_SYSTEMS, CausalHead, NormGate
from tests.strategies import SMALL_MODULES, SYSTEMS

TRAINED = [system for system in SYSTEMS if "training" in system.__dataclass_fields__]
formats = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])


def results_of(module, batch=3, height=2, width=3):
    params, inputs = generic_values(module, batch=batch, height=height, width=width)
    shapes = module.output_shapes(batch, height, width)
    upstream = {name: np.ones(shape) for name, shape in shapes.items()}
    return named_results(module, Given(params, inputs, upstream)), module(params, *inputs.values())


@pytest.mark.parametrize("system", [*SYSTEMS, *OWN_SYSTEMS], ids=lambda system: getattr(system, "key", system.__name__))
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


@pytest.mark.parametrize("system", TRAINED, ids=lambda system: system.key)
def test_running_statistics_are_results_in_training_alone(system):
    for training in (False, True):
        recipes = cases(system, ["float32"], kinds=["options"])
        module = next(r.module for r in recipes if r.label == "training")
        module = type(module)(**{**vars(module), "training": training})
        found, _ = results_of(module)
        assert (module.buffer_shapes().keys() <= found.keys()) == training
        assert bool(module.buffer_shapes().keys() & found.keys()) == training


def few(system, dtype):
    """A small case in which the variance of a sample differs visibly from that of what it is drawn from."""
    (recipe,) = [recipe for recipe in cases(system, [dtype], kinds=["options"]) if recipe.label == "training-few"]
    small = SMALL_MODULES.get(getattr(system, "key", None))
    if small:
        recipe = replace(recipe, module=replace(small, training=True))
    return recipe.make(), recipe.batch * recipe.height * recipe.width


@pytest.mark.parametrize(
    ("system", "dtype"),
    # In bfloat16 a tenth of the variance of a channel or two is no more than a rounding.
    [*((system, dtype) for system in TRAINED for dtype in ("float32", "float16")), (NormGate, "bfloat16")],
)
def test_a_biased_running_variance_is_refused_and_the_unbiased_one_not(system, dtype):
    case, count = few(system, dtype)
    format = FORMATS[dtype]
    names = [name for name in case.expected if name.endswith("running_var")]
    assert names
    case.assert_matches({name: representable(case.expected[name], format) for name in names})
    old = {name: 0.9 * case.params[name].astype(np.float64) for name in names}
    biased = {name: old[name] + (case.expected[name] - old[name]) * (1 - 1 / count) for name in names}
    assert not case.compare({name: representable(value, format) for name, value in biased.items()}).passed
    for name in names:
        assert not case.compare({name: case.params[name]}).passed, name  # as it was


@pytest.mark.parametrize("system", TRAINED, ids=lambda system: system.key)
@formats
def test_running_statistics_of_pytorch_pass(system, dtype):
    torch = pytest.importorskip("torch")
    tests = importlib.import_module(f"tests.attention.test_{system.__module__.rpartition('.')[2]}")
    case, _ = few(system, dtype)
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
