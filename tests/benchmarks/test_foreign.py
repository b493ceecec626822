"""The forms agree with npattn, and every mistake makes a difference."""

import inspect

import numpy as np
import pytest

import npattn
from npattn.module import as_tuple
from npattn.oracle import generic_values
from npattn.oracle.mistakes import MISTAKES
from npattn.oracle.mistakes.roundings import NARROW
from tests.naming import for_each

pytest.importorskip("torch")
from tests.benchmarks import diagnosis, foreign


def module_of(key, hyperparameters):
    system = npattn.CATALOGUE[key]
    return system(**hyperparameters) if hyperparameters else system.example()


def drawn(module):
    """Values with ties among the inputs, and on both sides of corners, and upstream gradients by the outputs' names."""
    params, inputs = generic_values(module, batch=3, height=5, width=4)
    factor = 3 if module.key in ("coordinate", "cbam-spatial") else 1
    ties = {name: a if name in module.without_gradient else (factor * a).round(1) for name, a in inputs.items()}
    random = np.random.RandomState(0)
    run = module(params, *ties.values())
    return params, ties, {name: random.standard_normal(y.shape) for name, y in named_outputs(run).items()}


def named_outputs(run):
    outputs = as_tuple(run.output)
    return {"output": outputs[0]} if len(outputs) == 1 else {f"output.{i}": y for i, y in enumerate(outputs)}


def expected(module, params, inputs, upstream):
    run = module(params, *inputs.values())
    dy = tuple(upstream.values())
    dx, grads = run.backward(dy if len(dy) > 1 else dy[0])
    named = dict(zip(inputs, as_tuple(dx), strict=True)) | grads
    gradients = {f"{name}.grad": a for name, a in named.items() if a is not None}
    return named_outputs(run) | run.buffers | gradients


def differences(found, right):
    """Names of those results that are off by more than rounding."""
    largest = max(np.abs(a[np.isfinite(a)]).max(initial=0) for a in right.values())
    return [n for n in right if not np.allclose(found[n], right[n], rtol=0, atol=1e-11 * (1 + largest))]


KINDS = "Forward:", "Backward:", "Forward alone:", "Tiles:", "Precision:"
SYSTEMS = {str((key, hyper)): (key, hyper) for key, hyper, *_ in foreign.MISTAKES}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_form_agrees_and_every_mistake_in_it_differs(system):
    key, hyper = SYSTEMS[system]
    module = module_of(key, hyper)
    given = drawn(module)
    right = expected(module, *given)
    options = {n: v for n, v in vars(module).items() if n in inspect.signature(foreign.FORMS[key]).parameters}

    def form(params, *inputs):
        return foreign.FORMS[key](params, *inputs, **options)

    def found(function):
        return foreign.results(module, function, *given)

    assert differences(found(form), right) == []
    mistakes = [function for *of, function, _ in foreign.MISTAKES if of == [key, hyper]]
    assert [f.__name__ for f in mistakes if not differences(found(f), right)] == []


PRECISION = {f"pass: sums accumulated in {format}" for format in NARROW[1:]}
"""What is looked for besides the catalogue: errors of the size that narrower arithmetic has."""


def test_kinds_of_mistakes_are_names_of_the_catalogue():
    assert foreign.KINDS.keys() <= {function.__name__ for *_, function, _ in foreign.MISTAKES}
    found = {kind for kinds in foreign.KINDS.values() for kind in diagnosis.kinds_in(kinds)}
    by_rule = {kind for kind in found if kind.startswith("by rule")}
    assert found - by_rule <= {*map(str, MISTAKES), *PRECISION}


SETS = {"fresh": foreign.fresh, "recent": foreign.recent, "latest": foreign.latest}
APART = {f"{name}: {(key, hyper)}": (name, key, hyper) for name, of in SETS.items() for key, hyper, *_ in of.MISTAKES}


@for_each("system", APART)
def test_the_form_of_a_set_apart_agrees(system):
    name, key, hyper = APART[system]
    module = module_of(key, hyper)
    given = drawn(module)
    form = SETS[name].FORMS[key]
    options = {n: v for n, v in vars(module).items() if n in inspect.signature(form).parameters}
    found = foreign.results(module, lambda *of: form(*of, **options), *given)
    assert differences(found, expected(module, *given)) == []


@pytest.mark.parametrize(("name", "least"), [("fresh", 120), ("recent", 90), ("latest", 100)])
def test_the_mistakes_of_a_set_apart_are_its_own(name, least):
    one = SETS[name]
    assert {key for key, *_ in one.MISTAKES} == set(one.FORMS) <= set(foreign.FORMS)
    assert len(one.MISTAKES) >= least
    assert all(function.__doc__.startswith(KINDS) for _, _, function, _ in one.MISTAKES)


@pytest.mark.parametrize("name", SETS)
def test_every_mistake_of_a_set_apart_has_its_kind(name):
    assert SETS[name].KINDS.keys() == {function.__name__ for _, _, function, _ in SETS[name].MISTAKES}


def test_every_mistake_says_what_it_is():
    assert all(function.__doc__ and names for *_, function, names in foreign.MISTAKES)
    assert len({function.__name__ for _, _, function, _ in foreign.MISTAKES}) == len(foreign.MISTAKES)
