import numpy as np
import pytest

import npattn
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes import MISTAKES, faulty, sites
from npattn.oracle.mistakes.choosing import ADDED


def run(module, *given):
    return named_results(module, Given(*given))


def results(module, name=None):
    params, inputs = generic_values(module, batch=2, height=3, width=4)
    upstream = {"output": np.random.RandomState(0).standard_normal((2, module.channels))}
    given = params, inputs, upstream
    found = run if name is None else faulty(run, next(m for m in MISTAKES if m.name == name), 0)
    return found(module, *given), given


@pytest.mark.parametrize("mistake", ADDED, ids=str)
def test_every_mistake_makes_a_difference_where_it_applies(mistake):
    for key in ("hard", "soft-hard"):
        module = npattn.CATALOGUE[key].example()
        right, given = results(module)
        if mistake.when(module, *given):
            wrong = mistake.apply(run, module, *given)
            assert any(not np.allclose(wrong[name], right[name]) for name in right)
            return
    raise AssertionError("it applies nowhere")


def test_the_soft_mean_is_that_of_the_probabilities():
    module = npattn.CATALOGUE["hard"].example()
    found, (_, inputs, _) = results(module, "soft mean in the place of what was drawn")
    mean = (inputs["x"] * found["probability"][:, None]).sum(axis=(2, 3))
    assert np.allclose(found["output"], mean)


def test_every_form_of_a_mistake_in_a_choice_can_be_run_to_the_end():
    module = npattn.CATALOGUE["soft-hard"].example()
    right, given = results(module)
    forms = [one for one in sites(run, MISTAKES, module, *given) if one.primitive in ("top", "take")]
    assert {"all positions taken", "scores that are not chosen become 0"} <= {one.name for one in forms}
    for one in forms:
        found = faulty(run, one, 0)(module, *given)
        assert {name: found[name].shape for name in right} == {name: a.shape for name, a in right.items()}
