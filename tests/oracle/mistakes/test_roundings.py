import numpy as np
import pytest

import npattn
from npattn.oracle import golden, mistakes
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes import running
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.planting import faulty
from tests.benchmarks import kernels
from tests.oracle.mistakes.searching import diagnosed


def run(module, *given):
    return named_results(module, Given(*given))


def spoilt(case, name):
    """Return a kernel's results, in float32, with a mistake in forward alone."""
    mistake = next(one for one in mistakes.MISTAKES if (str(one), one.way) == (name, "forward"))
    found = kernels.rounded(faulty(run, mistake, 0)(case.module, *kernels.given(case)), case.format)
    return {n: a for n, a in found.items() if n not in case.maps}


def test_a_rounding_at_one_step_is_named_where_some_numbers_are_rounded_the_other_way():
    case = golden(npattn.CATALOGUE["pam"].example(), batch=3, height=5, width=12, dtype="float32")
    results = spoilt(case, "gate: in bfloat16")
    flipped = results["output"].copy()
    at = np.unravel_index(np.argmax(np.abs(case.expected["output"])), flipped.shape)
    flipped[at] *= 1 + 2.0**-8
    found = diagnosed(case, results | {"output": flipped})
    assert found.sure
    assert found[0].name.startswith("gate: in bfloat16")


def test_errors_of_the_size_of_a_rounding_that_lie_elsewhere_are_not_one():
    case = golden(npattn.CATALOGUE["pam"].example(), batch=3, height=5, width=12, dtype="float32")
    right, results = case.expected["output"], spoilt(case, "gate: in bfloat16")
    errors = (results["output"] - right)[:, ::-1, ::-1]
    assert not any("gate: in bfloat16" in one.name for one in diagnosed(case, results | {"output": right + errors}))


@pytest.mark.parametrize("name", ["sigmoid: hard sigmoid, slope 0.2", "relu: left out", "gate: in bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_look_in_float32_first_changes_no_name(name, dtype, monkeypatch):
    case = golden(npattn.CATALOGUE["se"].example(), batch=2, height=7, width=5, dtype=dtype)
    results = spoilt(case, name)
    found = []
    for least in (0, 10**9):
        monkeypatch.setattr(running, "MIN_IN_FLOAT32", least)
        found.append([one.name for one in diagnosed(case, results)])
    assert found[0] == found[1]


def test_what_is_far_off_in_float32_is_not_run_exactly(monkeypatch):
    monkeypatch.setattr(running, "MIN_IN_FLOAT32", 0)
    case = golden(npattn.CATALOGUE["se"].example(), batch=2, height=7, width=5, dtype="float32")
    search = Search(case, {n: np.asarray(a, float) for n, a in spoilt(case, "relu: left out").items()}, 60.0)
    far, near = (
        next(one for one in mistakes.MISTAKES if (str(one), one.way) == (name, "forward"))
        for name in ("sigmoid: twice", "relu: left out")
    )
    search.find_places([far, near])
    kinds = []
    exact = search.forward_of

    def watched(places, given, memory):
        if places:
            kinds.append((places[0][0], given.inputs["x"].dtype))
        return exact(places, given, memory)

    monkeypatch.setattr(search, "forward_of", watched)
    misfits = [search.forward_misfit(one, 0) for one in (far, near)]
    assert misfits[0].worst > 30
    assert misfits[1].fits
    dtypes = {one: [dtype for planted, dtype in kinds if planted.name == one.name] for one in (far, near)}
    assert dtypes[near] == [np.float32, np.float64]
    assert dtypes[far] == [np.float32]
