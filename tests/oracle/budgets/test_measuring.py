import threading

import numpy as np
import pytest

import npattn
from npattn.oracle.budgets import Given, measure_budgets, rms_limit, run_on, runs, worst_limit
from npattn.oracle.formats import FORMATS
from npattn.oracle.rounding import Rounding
from npattn.oracle.threads import PassThreads
from tests.oracle.budgets.runs import measured, prepared


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


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "tf32", "float8_e4m3"])
def test_budgets_are_of_the_size_of_errors_of_runs_they_were_not_estimated_from(name):
    format = FORMATS[name]
    module = npattn.PositionAttention(8)
    values, observed = prepared(module, format=format, height=8, width=9)
    budget = measured(observed, module, values, format)
    for seed in range(3):
        found = run_on(Rounding(format, [99, seed]), module, values)
        for key, value in observed.expected.items():
            units = (found[key] - value) / budget[key].scale
            assert np.sqrt(np.mean(units**2)) < rms_limit(budget[key].freedom), key
            assert np.abs(units).max() < worst_limit(value.size, budget[key].freedom), key
            if value.size > 100:
                assert np.sqrt(np.mean(units**2)) > 0.3, key


def test_a_layer_norm_that_rounds_every_operation_passes_in_a_format_of_few_digits():
    """A row's deviation takes one of two values there, and so do all errors of the row."""
    recipes = npattn.oracle.cases("ops.layer_norm", ["float8_e4m3"], kinds=["sizes"])
    case = next(one for one in recipes if one.id.endswith("2x16x17x1")).make()
    found = run_on(Rounding(case.format), case.module, Given(case.params, case.inputs, case.upstream))
    assert case.compare({name: np.asarray(a) for name, a in found.items()}).passed
