import numpy as np
import pytest
from hypothesis import example, given, settings

import npattn
from npattn import oracle
from npattn.oracle import drawing
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.drawing import choose_params, draw_case
from npattn.oracle.formats import FORMATS
from npattn.oracle.own import read_own
from tests.strategies import seeds

NARROW = [
    npattn.SqueezeExcitation(channels=4, reduction=4),
    npattn.CBAM(channels=4, reduction=4),
    npattn.MultiScaleConcat(in_channels=4, out_channels=1, rates=(1, 2)),
    npattn.Residual(npattn.SqueezeExcitation(channels=4, reduction=4)),
]


def own(module, height=3, width=2):
    nothing = {"inputs": None, "params": None, "upstream": None}
    return read_own(module, FORMATS["float32"], {"batch": 2, "height": height, "width": width}, nothing)


def zeros(module, choice, seed):
    """The results that are 0 throughout."""
    drawn = draw_case(module, own(module), FORMATS["float32"], seed, values="generic", choice=choice)
    return [name for name, a in named_results(module, drawn).items() if not a.any()]


@pytest.mark.parametrize("module", NARROW, ids=lambda module: module.key)
@given(seeds)
@example(6)
@settings(max_examples=8)
def test_a_relu_of_one_channel_lets_something_through(module, seed):
    choice = choose_params(module, own(module), FORMATS["float32"], seed, values="generic").number
    assert zeros(module, choice, seed) == []
    assert all(zeros(module, before, seed) for before in range(choice))


def test_the_first_parameters_would_not_always_do():
    assert any(zeros(NARROW[0], 0, seed) for seed in range(20))


def test_what_is_0_whatever_the_parameters_takes_the_first():
    """The softmax over one position."""
    module = npattn.GlobalContext(channels=8)
    assert choose_params(module, own(module, 1, 1), FORMATS["float32"], 0, values="generic").number == 0


def test_what_was_drawn_to_choose_parameters_is_not_drawn_again(monkeypatch):
    drawn, special = [], drawing.special
    monkeypatch.setattr(drawing, "special", lambda *arguments: drawn.append(special(*arguments)) or drawn[-1])
    case = oracle.golden(npattn.CATALOGUE["eca"].example(), height=3, width=2, values="large")
    (found,) = drawn
    np.testing.assert_array_equal(case.inputs["x"], found.inputs["x"].astype(np.float16))


def test_parameters_that_are_given_stay_what_they_are():
    module = NARROW[0]
    params = {name: np.zeros(shape) for name, shape in module.parameter_shapes().items()}
    case = oracle.golden(module, batch=1, height=3, width=2, params=params, dtype="float32")
    assert not case.expected["fc1.weight.grad"].any()
    for name, value in params.items():
        np.testing.assert_array_equal(case.params[name], value)


def test_an_empty_batch_takes_the_first_parameters_and_tries_none(monkeypatch):
    module, tried = NARROW[0], []
    monkeypatch.setattr(drawing, "exact_results", lambda *_: tried.append(1) or {})
    case = oracle.golden(module, batch=0, dtype="float32", seed=3)
    expected = Given(module.init(3, generic=True), {}, {}).each(np.float32).params
    for name, value in expected.items():
        np.testing.assert_array_equal(case.params[name], value)
    assert tried == []
