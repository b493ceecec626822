import dataclasses

import numpy as np

import npattn
from npattn.oracle import golden
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.settings import rules_of_settings
from tests.benchmarks import kernels
from tests.oracle.mistakes.searching import diagnosed


def run(module, *given):
    return named_results(module, Given(*given))


def named(module):
    return {one.name: one for one in rules_of_settings(module)}


def given(case):
    return kernels.given(case, np.float64)


def test_another_hyperparameter_is_that_of_a_system_with_it():
    case = golden(npattn.MultiScaleConcat(8, 4, rates=(1, 2)), batch=2, height=5, width=4, certify=False)
    wrong = named(case.module)["rates=(2, 1) for (1, 2)"].apply(run, case.module, *given(case))
    right = run(dataclasses.replace(case.module, rates=(2, 1)), *given(case))
    assert all(np.array_equal(wrong[name], a) for name, a in right.items())


def test_layers_exchanged_have_their_gradients_exchanged():
    case = golden(npattn.CATALOGUE["coordinate"].example(), batch=2, height=5, width=4, certify=False)
    params, *others = given(case)
    swapped = {name: params[name.replace("conv_h", "_").replace("conv_w", "conv_h").replace("_.", "conv_w.")]
               for name in params}  # fmt: skip
    right = run(case.module, swapped, *others)
    wrong = named(case.module)["layers conv_h and conv_w exchanged"].apply(run, case.module, params, *others)
    assert np.array_equal(wrong["output"], right["output"])
    assert np.array_equal(wrong["conv_h.weight.grad"], right["conv_w.weight.grad"])
    assert np.array_equal(wrong["conv_w.bias.grad"], right["conv_h.bias.grad"])


def test_a_layer_in_anothers_place_too_gets_the_gradients_of_both():
    case = golden(npattn.CATALOGUE["pam"].example(), batch=2, height=3, width=4, certify=False)
    params, *others = given(case)
    shared = params | {f"key_conv.{name}": params[f"query_conv.{name}"] for name in ("weight", "bias")}
    right = run(case.module, shared, *others)
    wrong = named(case.module)["layer query_conv in the place of key_conv too"].apply(run, case.module, params, *others)
    both = right["query_conv.weight.grad"] + right["key_conv.weight.grad"]
    assert np.array_equal(wrong["query_conv.weight.grad"], both)
    assert not wrong["key_conv.weight.grad"].any()


def test_layers_of_several_parts_are_exchanged_as_one():
    names = named(npattn.CATALOGUE["danet"].example())
    assert "layers conv51 and conv52 exchanged" in names
    assert "layers conv51.0 and conv52.0 exchanged" in names


def test_a_pass_that_is_not_in_training_leaves_the_running_statistics_as_they_are():
    module = npattn.CATALOGUE["coordinate"].example()
    case = golden(
        dataclasses.replace(module, training=True), batch=2, height=5, width=4, dtype="float32", certify=False
    )
    params, *others = kernels.given(case)
    wrong = named(case.module)["training=False for True"].apply(run, case.module, params, *others)
    assert np.array_equal(wrong["bn1.running_var"], params["bn1.running_var"])
    found = diagnosed(case, {name: a for name, a in wrong.items() if name not in case.maps})
    assert "running statistics in training" in found[0].name or "training=False" in found[0].name
