"""The program that times passes with and without a trace: it runs both, in turns, and prints their ratios."""

import numpy as np

from tests.benchmarks import tracing


def test_both_passes_run_there_and_back(monkeypatch):
    monkeypatch.setattr(tracing.compare, "SHAPES", {"eca": (1, 4, 3, 3)})
    alone, traced = tracing.passes_of("eca")
    assert alone() is None
    assert [step.path for step in traced().steps][-1] == "(1') dx"


def test_functions_are_timed_in_turns_each_after_a_run_that_is_not(monkeypatch):
    seen, clock = [], iter(np.arange(100.0))
    monkeypatch.setattr(tracing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(tracing.time, "process_time", lambda: 2.0 * len(seen))
    found = tracing.time_in_turns([lambda: seen.append("a"), lambda: seen.append("b")], 3)
    assert seen == ["a", "a", "b", "b"] * 3
    assert found == [[1.0, 2.0], [1.0, 2.0]]


def test_the_table_has_a_line_for_each_system_and_the_highest_ratio(monkeypatch, capsys):
    monkeypatch.setattr(tracing, "passes_of", lambda key: key)
    monkeypatch.setattr(tracing, "time_in_turns", lambda key, _: [[0.5, 1.0], [0.75 if key == "se" else 0.6, 1.2]])
    tracing.main(["se", "eca"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [["se", "500.0", "1.50", "1.20"], ["eca", "500.0", "1.20", "1.20"], ["highest", "1.50"]]
