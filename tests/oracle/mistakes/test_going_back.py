from dataclasses import dataclass

import numpy as np
import pytest

import npattn
from npattn.module import Module, Pass
from npattn.oracle import generic_values, mistakes
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.going_back import GoingBack, can_go_back, no_look
from npattn.oracle.mistakes.ordering import calls_in, with_every
from npattn.oracle.mistakes.replaying import Memory, same
from npattn.oracle.mistakes.returning import watching
from npattn.oracle.mistakes.rules import rules_of


def run(module, *given):
    return named_results(module, Given(*given))


def remembered(module, params, inputs, upstream):
    given, memory = Given(params, inputs, upstream), Memory()
    with memory.at_work():
        run(module, *given)
    memory.settle()
    return GoingBack(module, given, memory)


@pytest.mark.parametrize("key", ["danet", "cbam"])
def test_going_back_with_a_mistake_gives_what_a_whole_pass_with_it_gives(key):
    module = npattn.CATALOGUE[key].example()
    params, inputs = generic_values(module, batch=2, height=4, width=3)
    forward = module(params, *inputs.values())
    outputs = forward.output if isinstance(forward.output, tuple) else (forward.output,)
    names = list(module.output_shapes(2, 4, 3))
    given = params, inputs, dict(zip(names, outputs, strict=True))
    back, memory = remembered(module, *given), Memory()
    assert back.works
    seen, expected = [], []
    with watching(lambda *pair: expected.append(pair)):
        right = run(module, *given)
    assert same(back.results((MISTAKES[0], -2), lambda *pair: seen.append(pair)), right)
    assert same(seen, expected)  # by the same numbers of calls
    places = with_every(mistakes.sites(run, [*MISTAKES, *rules_of(npattn.ops.add)], module, *given))
    counts = {"add": 3 if key == "danet" else 0}  # forward; the others are made on the way back
    tried = 0
    for mistake, sites in list(places.items())[::11]:
        for site in (sites[0], sites[-1]):
            behind = min(calls_in(site, sites)) >= counts.get(mistake.primitive, np.inf)
            if can_go_back(mistake, behind=behind):
                try:
                    with np.errstate(all="ignore"), memory.at_work():
                        whole = mistakes.faulty(run, mistake, site)(module, *given)
                except ValueError:  # the rule does not fit these shapes
                    continue
                assert same(back.results((mistake, site), no_look), whole), (mistake, site)
                tried += 1
    assert tried > 4
    assert same(back.results((MISTAKES[0], -2), no_look), right)  # of a mistake before nothing is left


@dataclass(frozen=True)
class Spent(Module):
    channels: int = 2

    def forward(self, params, x):
        y, back = npattn.ops.relu(x)
        left = np.ones_like(x)

        def backward(dy):
            left[...] /= 2
            return back(dy) * left, {}

        return Pass(y, backward)


def test_a_pass_that_writes_to_what_it_has_saved_is_not_gone_back_through_twice():
    x = np.ones((1, 2, 3, 3))
    assert not remembered(Spent(), {}, {"x": x}, {"output": x}).works
