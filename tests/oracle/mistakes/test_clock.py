import collections
import time
from types import SimpleNamespace

import numpy as np
import pytest

import npattn
from npattn.oracle import golden
from npattn.oracle.mistakes import clock as clocks
from npattn.oracle.mistakes.clock import Clock
from npattn.oracle.mistakes.diagnosing import diagnose
from npattn.oracle.threads import PassThreads

TICK = 0.02


def compute():
    until = time.thread_time() + TICK
    while time.thread_time() < until:
        pass


def ticking(monkeypatch, wall, own):
    """Let every reading of the clock find so many more seconds passed, and so many computed."""
    read = collections.Counter()

    def tell(which, by):
        read[which] += 1
        return by * read[which]

    made = SimpleNamespace(perf_counter=lambda: tell("wall", wall), thread_time=lambda: tell("own", own))
    monkeypatch.setattr(clocks, "time", made)
    return read


def test_what_others_compute_does_not_count_but_a_fifth_of_what_passes():
    clock = Clock()
    time.sleep(5 * TICK)
    assert clock.now() < 2 * TICK
    compute()
    assert clock.now() >= TICK


@pytest.mark.parametrize(("wall", "own", "complete"), [(1.0, 0.0, True), (0.0, 1.0, False), (5.0, 0.0, False)])
def test_a_search_ends_by_the_processors_time_unless_far_too_much_passes(wall, own, complete, monkeypatch):
    case = golden(npattn.EfficientChannelAttention(channels=4), batch=2, height=3, width=4, certify=False)
    noise = np.random.RandomState(0).standard_normal(case.expected["x.grad"].shape)
    results = case.expected | {"x.grad": noise}
    read = ticking(monkeypatch, 0.0, 0.0)
    assert diagnose(case, results).complete
    ticking(monkeypatch, wall, own)
    assert diagnose(case, results, seconds=read["wall"] / 2).complete == complete


def test_of_threads_that_compute_at_once_the_longest_counts():
    clock = Clock()
    clock.each_until(10.0, PassThreads(2), [compute] * 4)
    assert TICK <= clock.now() < 10 * TICK


def test_nothing_is_begun_after_the_end():
    done, clock = [], Clock()
    clock.each_until(-1.0, PassThreads(2), [lambda: done.append(1)] * 4)
    assert not done


def test_a_thread_begins_nothing_more_once_it_has_computed_till_the_end():
    done, clock = [], Clock()
    clock.each_until(clock.now() + 1.5 * TICK, PassThreads(1), [lambda: (compute(), done.append(1))] * 4)
    assert len(done) == 2


@pytest.mark.parametrize("seconds", [0.0, 600.0])
def test_a_search_without_time_says_how_far_it_came_and_how_the_rest_is_tried(seconds):
    case = golden(npattn.EfficientChannelAttention(channels=4), batch=2, height=3, width=4, certify=False)
    noise = np.random.RandomState(0).standard_normal(case.expected["x.grad"].shape)
    found = case.diagnose(case.expected | {"x.grad": noise}, seconds=seconds)
    said = " ".join(str(found).split())
    assert ("there was time to try 0 of " in said) != found.complete
    assert ("mistakes: case.diagnose(results, seconds=" in said) != found.complete
    assert found.complete == (seconds > 0)


def test_seconds_are_a_number():
    case = golden(npattn.EfficientChannelAttention(channels=4), batch=2, height=3, width=4, certify=False)
    with pytest.raises(ValueError, match=r"diagnose: seconds=nan; expected a finite number"):
        case.diagnose(case.expected, seconds=np.nan)
