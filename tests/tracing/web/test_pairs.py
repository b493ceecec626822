"""Steps beside their mirror images."""

from npattn.oracle import generic_values
from npattn.tracing import trace
from npattn.tracing.web.pairs import pairs_of, walk
from tests.naming import for_each
from tests.strategies import SYSTEMS
from tests.tracing.own import Chain, Tagged, Untagged


def traced(module):
    params, inputs = generic_values(module, batch=1)
    steps = trace(module, params, *inputs.values())
    steps.backward(steps.run.output)
    return steps


@for_each("system", [*SYSTEMS, Chain, Tagged, Untagged])
def test_pairs_hold_every_step_once_beside_that_of_the_same_number(system):
    steps = traced(system.example())
    pairs = pairs_of(steps)
    assert [step for pair in pairs for step in pair.forward] == list(steps.forward_steps)
    back = steps.backward_passes[-1].steps
    assert {id(step) for pair in pairs for step in pair.backward} == {id(step) for step in back}
    for pair in pairs:
        assert {step.tag for step in pair.forward} <= {f"({pair.number})"}
        assert {step.tag for step in pair.backward} <= {f"({pair.number}')"}
        assert {step.parts for step in pair.forward + pair.backward} == {pair.parts}


@for_each("system", [*SYSTEMS, Chain, Tagged, Untagged])
def test_the_walk_goes_through_the_steps_as_they_were_computed(system):
    steps = traced(system.example())
    walked = [step for pair, back in walk(steps, pairs_of(steps)) for step in (pair.backward if back else pair.forward)]
    assert [id(step) for step in walked] == [id(step) for step in steps.steps]


def test_of_a_line_that_ran_twice_the_last_run_is_the_first_on_the_way_back():
    module = Chain.example()
    first, second = [pair for pair in pairs_of(traced(module)) if not pair.parts]
    assert [step.name for step in first.backward] == ["dy", "conv.weight.grad"]  # of part0, which has parameters
    assert [step.name for step in second.backward] == ["dy"]
