import subprocess
import sys

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

import npattn
from npattn.oracle import strategies
from npattn.oracle.strategies.cases import map_sizes
from npattn.oracle.strategies.catalogue import MODULES
from tests.naming import for_each


def draw(strategy, wanted=lambda _: True):
    """Draw the first example that is wanted, as it comes."""
    return find(strategy, wanted, settings=settings(phases=[Phase.generate], database=None))


def test_every_system_has_a_strategy():
    assert list(MODULES) == list(npattn.CATALOGUE)


@for_each("key", npattn.CATALOGUE)
def test_modules_are_of_the_systems_asked_for(key):
    system = npattn.CATALOGUE[key]
    assert isinstance(draw(strategies.modules(key)), system)


def test_keys_classes_and_several_of_them_name_systems():
    for systems in ("eca", npattn.EfficientChannelAttention, ["eca"], (npattn.EfficientChannelAttention,)):
        assert isinstance(draw(strategies.modules(systems)), npattn.EfficientChannelAttention)


@given(st.data(), strategies.modules(["se", "danet", "pcm", "soft-hard", "coordinate"]))
@settings(max_examples=30)
def test_parameters_and_inputs_fit_their_module(data, module):
    params = data.draw(strategies.parameters(module, np.float32))
    inputs = data.draw(strategies.inputs(module, np.float32, height=st.just(3)))
    assert next(iter(inputs.values())).shape[2] == 3
    module(params, *inputs.values())


@given(strategies.cases(npattn.SqueezeExcitation, np.float32, batch=st.integers(2, 3)))
@settings(max_examples=10)
def test_a_case_has_the_sizes_and_the_dtype_asked_for(case):
    module, params, inputs = case
    assert isinstance(module, npattn.SqueezeExcitation)
    assert inputs["x"].shape[0] in (2, 3)
    assert {a.dtype for a in (*params.values(), *inputs.values())} == {np.dtype(np.float32)}


@given(st.data(), strategies.modules("residual"))
def test_a_connection_round_a_system_is_given_no_smaller_maps_than_the_system(data, module):
    ones = dict.fromkeys(("batch", "height", "width"), st.just(1))
    inner = module.inner
    while isinstance(inner, npattn.Residual):
        inner = inner.inner
    assert data.draw(map_sizes(module, **ones)) == data.draw(map_sizes(inner, **ones))


def test_both_modes_of_batch_norm_are_drawn():
    for training in (False, True):
        assert draw(strategies.modules("cbam"), lambda module, training=training: module.training is training)


def test_an_unknown_system_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="modules: systems='came'; did you mean 'cam'"):
        strategies.modules(["se", "came"])


def test_without_hypothesis_one_line_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import npattn.oracle; import npattn.oracle.strategies"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ImportError: npattn.oracle.strategies needs Hypothesis: pip install hypothesis" in run.stderr
