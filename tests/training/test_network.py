import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from npattn import PositionAttention, SqueezeExcitation
from npattn.oracle import generic_values, gradcheck
from npattn.training import (
    PARAMETER_BUDGET,
    SYSTEMS,
    Identity,
    SegmentationNetwork,
    SelfAttention,
    count_parameters,
    make_system,
    matched_network,
    network,
)
from tests.naming import for_each


def test_equations_of_code_and_page_have_the_same_numbers_and_backward_mirrors_forward():
    code = Path(network.__file__).read_text(encoding="utf-8")
    page = Path(__file__).parents[2] / "derivations/training.md"
    tags = re.findall(r"# \((\d+'?)\)$", code, flags=re.MULTILINE)
    assert tags == [*"1234567", *(f"{n}'" for n in "7654321")]
    assert sorted(tags) == sorted(re.findall(r"^\\tag\{(\d+'?)\}$", page.read_text("utf-8"), flags=re.MULTILINE))


@pytest.mark.parametrize("training", [False, True], ids=["running", "training"])
@for_each("key", SYSTEMS)
def test_every_gradient_of_the_network_is_exact_with_every_system(key, training):
    module = matched_network(key, training)
    report = gradcheck(module, *generic_values(module, batch=2, height=6, width=4))
    assert report.passed, report
    assert report.error < 1e-12


@for_each("key", SYSTEMS)
def test_networks_have_the_same_number_of_parameters_within_a_hundredth(key):
    assert count_parameters(matched_network(key)) == pytest.approx(PARAMETER_BUDGET, rel=0.0101)


@pytest.mark.parametrize(("key", "jacobian"), [("sdpa", True), ("window", True), ("pam+cam", True), ("none", True)])
def test_the_whole_jacobian_of_a_system_that_is_made_here_is_exact(key, jacobian):
    module = dataclasses.replace(make_system(key), channels=4)
    report = gradcheck(module, *generic_values(module, batch=1, height=3, width=4))
    assert (report.method == "jacobian") is jacobian
    assert report.passed, report
    assert report.error < 1e-12


def test_a_position_looks_at_its_window_and_nowhere_else():
    module = SelfAttention(channels=4, radius=2)
    params, inputs = generic_values(module, batch=1, height=7, width=6)
    weights = module.attention_map(params, inputs["x"], rows=[3 * 6 + 1])[0, 0, 0].reshape(7, 6)
    near = np.zeros((7, 6), bool)
    near[1:6, :4] = True
    assert ((weights > 0) == near).all()


def test_a_window_as_large_as_the_map_is_attention_to_all_positions():
    wide = SelfAttention(channels=4, radius=9)
    params, inputs = generic_values(wide, batch=2, height=3, width=4)
    free = dataclasses.replace(wide, radius=None)
    np.testing.assert_allclose(wide(params, inputs["x"]).output, free(params, inputs["x"]).output, rtol=1e-12)


def test_position_and_channel_attention_start_as_the_identity():
    module = make_system("pam+cam")
    x = np.random.RandomState(0).standard_normal((2, 24, 3, 4))
    np.testing.assert_allclose(module(module.init(0), x).output, x, rtol=1e-14)


def test_a_system_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="attention has channels=8; expected 24"):
        SegmentationNetwork(SqueezeExcitation(channels=8))
    with pytest.raises(TypeError, match="SegmentationNetwork: attention is "):
        SegmentationNetwork(PositionAttention)


def test_a_map_of_odd_sides_is_refused():
    module = SegmentationNetwork()
    with pytest.raises(ValueError, match=r"x has shape \(1, 1, 20, 21\); expected an even height and width"):
        module(module.init(), np.zeros((1, 1, 20, 21)))


def test_an_unknown_system_is_refused_and_the_nearest_named():
    with pytest.raises(ValueError, match="unknown system 'sdp'; did you mean 'sdpa'"):
        make_system("sdp")


def test_without_attention_the_map_passes():
    x = np.ones((1, 3, 2, 2))
    run = Identity(channels=3)({}, x)
    assert run.output is x
    assert run.backward(x) == (x, {}) or run.backward(x)[0] is x
