import functools

import numpy as np
import pytest

import npattn
from npattn.oracle import golden, mistakes
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes import matching
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.mistake import instead
from npattn.oracle.mistakes.screening import Screen, is_worth_screening
from npattn.oracle.threads import PassThreads
from tests.benchmarks import kernels

FEW = [one for one in MISTAKES if one.primitive in ("conv1d", "gate")]


def run(module, *given):
    return named_results(module, Given(*given))


def find(name, way):
    return next(one for one in MISTAKES if str(one) == name and one.way == way)


@functools.cache
def case_of(dtype="float16"):
    module = npattn.EfficientChannelAttention(channels=16)
    return golden(module, batch=1, height=32, width=32, dtype=dtype, certify=False)


def results_with(case, mistake):
    with np.errstate(all="ignore"):
        wrong = mistakes.faulty(run, mistake, 0)(case.module, *kernels.given(case))
    return {name: a for name, a in kernels.rounded(wrong, case.format).items() if name not in case.maps}


def searched(case, results, *, few=FEW):
    search = Search(case, {name: a.astype(np.float64) for name, a in results.items()}, seconds=60.0)
    search.find_places(few)
    return search, search.singles()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("way", ["carried", "backward"])
def test_what_is_screened_and_what_is_not_fit_alike(dtype, way, monkeypatch):
    case = case_of(dtype)
    name = "conv1d: flipped kernel" if way == "carried" else "gate: gradient: gate detached"
    results = results_with(case, find(name, way))
    screened, found = searched(case, results)
    monkeypatch.setattr(matching, "is_worth_screening", lambda case: False)
    exact, expected = searched(case, results)
    assert screened.screen is not None and exact.screen is None
    assert [one.mistakes for one in found] == [one.mistakes for one in expected] != []
    assert [one.mistakes for one in screened.tried] == [one.mistakes for one in exact.tried]
    for one, other in zip(screened.tried, exact.tried, strict=True):
        assert one.misfit.within() & screened.wrong == other.misfit.within() & screened.wrong


def test_few_of_the_mistakes_that_are_screened_are_run_exactly(monkeypatch):
    case, exactly = case_of(), []
    results = results_with(case, find("conv1d: flipped kernel", "carried"))
    run_exactly = Search.run_exactly

    def count(search, tried, **options):
        exactly.append(tried)
        return run_exactly(search, tried, **options)

    monkeypatch.setattr(Search, "run_exactly", count)
    search, _ = searched(case, results)
    assert 0 < len(exactly) < len(search.tried) / 4


def test_several_threads_screen_what_one_does():
    case = case_of()
    results = results_with(case, find("conv1d: flipped kernel", "carried"))
    found = []
    for count in 1, 3:
        search = Search(case, {name: a.astype(np.float64) for name, a in results.items()}, seconds=60.0)
        search.find_places(FEW)
        places = [(one, site) for one in search.places for site in search.places[one]][:40]
        search.look_ahead(places, PassThreads(count), np.inf)
        found.append({key: one and one.misfit.distances for key, one in search.screened.items()})
    assert len(found[0]) == 40 and found[0] == found[1]


def test_what_overflows_float32_alone_is_left_to_be_run_exactly():
    case = case_of()
    beyond = instead("gate", "beyond float32", lambda original, x, a: (x * 1e300, original(x, a)[1]))
    results = {name: a for name, a in case.expected.items() if name not in case.maps}
    screen = Screen(case, {name: a + (name == "output") for name, a in results.items()})
    screen.prepare({beyond: [0]})
    assert screen.look(((beyond, 0),), whole=False) is None


def test_small_cases_are_not_screened():
    assert is_worth_screening(case_of())
    small = golden(npattn.EfficientChannelAttention(channels=4), batch=2, height=7, width=5, certify=False)
    assert not is_worth_screening(small)
