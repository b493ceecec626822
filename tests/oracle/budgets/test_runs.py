import threading

import pytest

import npattn
from npattn.oracle.budgets import measure_budgets, run_on, runs
from npattn.oracle.formats import FORMATS
from npattn.oracle.threads import PassThreads
from tests.oracle.budgets.runs import prepared


@pytest.mark.parametrize(
    ("memory", "array", "at_once"), [(0, 2**20, 2), (10**6, 2**20, 8), (10**6, 2**17, 2), (10**6, 100, 1)]
)
def test_as_many_runs_are_made_at_once_as_fit_into_memory_and_are_worth_it(memory, array, at_once, monkeypatch):
    monkeypatch.setattr(runs, "MAX_MEMORY", memory)
    monkeypatch.setattr(runs, "MIN_MEMORY", 0)
    lock, meeting, running, most = threading.Lock(), threading.Barrier(at_once, timeout=300), 0, 0

    def run(*arguments, **options):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait()
        found = run_on(*arguments, **options)
        with lock:
            running -= 1
        return found

    module = npattn.ChannelAttention(4)
    values, observed = prepared(module, format=FORMATS["float32"])
    monkeypatch.setattr(runs, "run_on", run)
    observed = observed._replace(mean_array=array)
    assert measure_budgets(observed, module, values, FORMATS["float32"], 0, threads=PassThreads(8))
    assert most == at_once
