"""Hard cases of systems that npattn does not bring."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import npattn
from npattn import CATALOGUE, Module, Pass, ops
from npattn.fields import integer
from npattn.oracle import cases, generic_values, golden
from npattn.oracle.mistakes.planting import answering
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS
from npattn.oracle.primitives.products import CrossEntropy
from npattn.oracle.systems import SYSTEMS, as_step, callers_of, name_system
from tests.naming import for_each
from tests.own_systems import OWN_SYSTEMS, LogitLoss, NormGate, RMSNorm

STEPS = sorted(
    name for name in ops.__all__ if f"ops.{name}" not in SYSTEMS and hasattr(getattr(ops, name), "definition")
)
"""Primitives that are steps of systems alone."""


@pytest.mark.parametrize("system", OWN_SYSTEMS, ids=lambda system: system.__name__)
def test_every_kind_of_case_is_made_and_exact_results_pass(system):
    kinds = ["options", "ties", "zeros", *(["large"] if system is not LogitLoss else [])]  # it takes the log of 0
    recipes = [*cases(system, ["bfloat16"], kinds=kinds), *cases(system, ["float16"], kinds=["sizes"], limit=3)]
    assert len({recipe.id for recipe in recipes}) == len(recipes) >= 4
    for recipe in recipes:
        case = recipe.make()
        assert case.compare(case.expected).passed, recipe.id
        first = next(iter(case.inputs.values()))
        assert "x".join(map(str, first.shape)) in recipe.id


def test_values_of_inputs_without_a_gradient_are_left_as_they_are():
    for kind in ("ties", "zeros", "large"):
        (recipe,) = cases(LogitLoss, ["float16"], kinds=[kind])
        case = golden(recipe.module, batch=3, height=7, width=9, values="generic")
        made = recipe.make()
        if kind == "large":  # drawn anew until float16 holds what they lead to
            assert np.isin(made.inputs["labels"], np.arange(made.inputs["logits"].shape[-1])).all()
        else:
            np.testing.assert_array_equal(made.inputs["labels"], case.inputs["labels"])
        assert (made.inputs["logits"] != case.inputs["logits"]).any()


def test_zeros_of_tokens_are_whole_tokens_and_the_last_of_the_batch():
    (recipe,) = cases(RMSNorm, ["float16"], kinds=["zeros"])
    x = recipe.make().inputs["x"]
    assert not x[:, 1::2].any()
    assert not x[-1].any()
    assert x[:-1, ::2].all()


@pytest.mark.parametrize("system", [NormGate, "ops.batch_norm"])
def test_large_inputs_leave_a_running_variance_that_the_format_holds(system):
    (recipe,) = cases(system, ["float16"], kinds=["large"])
    case = recipe.make()
    (name,) = [name for name in case.expected if name.endswith("running_var")]
    assert np.isfinite(case.budget[name]).all()
    assert np.abs(case.inputs["x"]).max() > 16


@pytest.mark.parametrize("dtype", ["float8_e4m3", "bfloat16", "float32"])
def test_labels_are_the_same_in_every_format(dtype):
    module = CrossEntropy(channels=300)
    labels = golden(module, height=5, width=7, dtype=dtype).inputs["labels"]
    np.testing.assert_array_equal(labels, golden(module, height=5, width=7, dtype="float32").inputs["labels"])
    assert (labels % 2 == 1).any()
    assert labels.max() > 256


@dataclass(frozen=True)
class Grouped(RMSNorm):
    """A system that does not take any number of channels."""

    channels: int = integer(least=1, default=8)
    options: ClassVar = ({"eps": 1.0}, {"eps": 0.0})

    def __post_init__(self):
        super().__post_init__()
        if self.channels % 8:
            raise ValueError("channels must be a multiple of 8")


def test_a_system_keeps_its_channels_where_it_refuses_others_and_tries_its_own_options():
    recipes = cases(Grouped, ["float16"])
    assert {recipe.module.channels for recipe in recipes} == {8, 16, 32, 64, 128}
    assert [r.module.eps for r in recipes if r.label.startswith("eps")] == [1.0, 0.0]
    assert {recipe.module.eps for recipe in cases(Grouped(16), ["float16"])} == {1e-6}


def test_a_system_that_trains_by_default_is_not_tried_twice():
    recipes = cases(NormGate, ["float16"])
    assert len({(r.module, r.batch, r.height, r.width, r.values, r.layout) for r in recipes}) == len(recipes)
    assert [r.label for r in recipes if "training" in r.label] == ["training-few", "training-few-large"]


@for_each("key", PRIMITIVE_SYSTEMS)
def test_cases_of_a_primitive_have_different_names_that_begin_with_its_key(key):
    recipes = cases(key, ["float32", "float16"])
    assert len({recipe.id for recipe in recipes}) == len(recipes) > 30
    assert all(recipe.id.startswith((f"{key}-float32-", f"{key}-float16-")) for recipe in recipes)


@for_each("value", [(3, 5), None, "few", 5])
@for_each("name", ["k", "inner", "split_input", "radix"])
def test_hyperparameters_that_are_named_as_the_catalogues_stay_what_they_are(name, value):
    @dataclass(frozen=True)
    class Named(Module):
        channels: int = 4

        def forward(self, params, x):
            return Pass(2 * x, lambda dy: (2 * dy, {}))

    own = dataclass(frozen=True)(type("Own", (Named,), {name: value, "__annotations__": {name: object}}))
    recipes = cases(own, ["float16"])
    assert len({recipe.module.channels for recipe in recipes}) > 5
    assert all(getattr(recipe.module, name) == value for recipe in recipes)


@dataclass(frozen=True)
class Weighed(npattn.CBAM):
    """A system derived from one of the catalogue."""

    share: float = 0.5
    options: ClassVar = ({"share": 0.25},)


def test_a_system_derived_from_one_of_the_catalogue_has_its_own_name_and_options():
    recipes = cases(Weighed, ["float16"], kinds=["options"])
    labels = [recipe.label for recipe in recipes if not recipe.label.startswith("training")]
    assert labels == ["share-0.25"]
    assert all(recipe.id.startswith("Weighed-float16-") for recipe in recipes)
    (within,) = cases(npattn.Residual(Weighed(4)), ["float16"], kinds=["ties"])
    assert within.id.startswith("residual-")
    assert [name_system(module) for module in (npattn.CBAM(4), Weighed(4), RMSNorm())] == ["cbam", "Weighed", "RMSNorm"]
    (recipe,) = cases("residual", ["float16"], kinds=["ties"], inner=Weighed(4))
    assert "Weighed" in recipe.id


def test_a_class_that_is_called_as_a_system_of_the_catalogue_has_its_own_options():
    @dataclass(frozen=True)
    class eca(Module):  # noqa: N801
        channels: int = 3
        factor: float = 1.0
        options: ClassVar = ({"factor": 2.0},)

        def forward(self, params, x):
            return Pass(self.factor * x, lambda dy: (self.factor * dy, {}))

    assert {recipe.module.factor for recipe in cases(eca, kinds=["options"])} >= {2.0}


@for_each("name", STEPS)
def test_a_primitive_that_is_no_system_has_one_whose_step_it_is(name):
    called = set()

    def watch(primitive, *_):
        called.add(primitive)
        return NotImplemented

    first, *_ = callers_of(name)
    module = CATALOGUE[first].example()
    params, inputs = generic_values(module)
    with answering(watch):
        run = module(params, *inputs.values())
        run.backward(run.output)
    assert getattr(ops, name) in called
    assert f": {first}" in as_step(name)


@pytest.mark.parametrize("name", ["relu", "softmax", "nothing"])
def test_what_is_a_system_or_nothing_is_no_step_alone(name):
    assert set(callers_of(name)) <= set(CATALOGUE)
    assert bool(callers_of(name)) == hasattr(ops, name)
    assert as_step(f"ops.{name}") == ""
