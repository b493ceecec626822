import pytest

from npattn import CATALOGUE, ops, oracle
from npattn.cli.systems import callers_of
from npattn.oracle.mistakes.planting import answering
from npattn.oracle.systems import SYSTEMS
from tests.naming import for_each

STEPS = sorted(
    name for name in ops.__all__ if f"ops.{name}" not in SYSTEMS and hasattr(getattr(ops, name), "definition")
)


@for_each("name", STEPS)
def test_a_primitive_that_is_no_system_has_one_whose_step_it_is(name):
    called = set()

    def watch(primitive, *_):
        called.add(primitive)
        return NotImplemented

    first, *_ = callers_of(name)
    module = CATALOGUE[first].example()
    params, inputs = oracle.generic_values(module)
    with answering(watch):
        run = module(params, *inputs.values())
        run.backward(run.output)
    assert getattr(ops, name) in called


@pytest.mark.parametrize("name", ["relu", "softmax", "nothing"])
def test_callers_call_it(name):
    assert set(callers_of(name)) <= set(CATALOGUE)
    assert bool(callers_of(name)) == hasattr(ops, name)
