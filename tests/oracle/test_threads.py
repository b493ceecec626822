import contextlib
import inspect
import os
import signal
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import npattn
from npattn.oracle import golden, threads
from npattn.oracle.mistakes import screening
from npattn.oracle.steps import measure_steps
from npattn.oracle.threads import Follower, pass_threads
from tests.interrupts import alarms_within, interruptions


def blas_threads():
    """Of the libraries that NumPy and SciPy had loaded by the time of the first case."""
    return {library.num_threads for library in threads.blas().lib_controllers}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_case_is_the_same_on_any_number_of_threads(dtype, monkeypatch):
    monkeypatch.setattr(threads, "ARRAY_BYTES", 1)  # so that small arrays take all threads too
    module, made = npattn.PositionAttention(64), []
    for limit in (1, 3):
        with threadpool_limits(limit, user_api="blas"):
            made.append(golden(module, height=20, width=20, dtype=dtype, certify=False))
    first, second = made
    for name, budget in first.budget.items():
        np.testing.assert_array_equal(second.budget[name], budget)
    assert (first.limits, first.freedom) == (second.limits, second.freedom)


def test_there_are_no_more_threads_than_blas_may_take_nor_than_cores(monkeypatch):
    monkeypatch.setattr(threads, "count_cores", lambda: 2)
    for limit, expected in ((1, 1), (2, 2), (3, 2)):
        with threadpool_limits(limit, user_api="blas"), pass_threads() as pool:
            barriers = [threading.Barrier(expected, timeout=300)] * expected
            assert sorted(pool.map(threading.Barrier.wait, barriers)) == list(range(expected))
            assert pool.count == expected


def test_no_more_is_done_at_once_than_asked():
    lock, meeting, running, most = threading.Lock(), threading.Barrier(2, timeout=300), 0, 0

    def run(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait()
        with lock:
            running -= 1
        return item

    assert threads.PassThreads(5).map(run, range(12), at_once=2) == list(range(12))
    assert most == 2


def test_products_take_one_thread_until_the_last_has_ended_and_then_as_many_as_before():
    with threadpool_limits(3, user_api="blas"):
        first, second = pass_threads(), pass_threads()
        first.__enter__()
        assert blas_threads() == {1}
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == {3}


def test_what_is_raised_leaves_no_limit():
    with threadpool_limits(3, user_api="blas"):
        with pytest.raises(KeyboardInterrupt), pass_threads():
            raise KeyboardInterrupt
        assert blas_threads() == {3}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interrupts by a timer")
def test_interrupts_at_any_moment_leave_threads_that_go_on(monkeypatch):
    monkeypatch.setattr(threads, "ARRAY_BYTES", 1)  # so that small arrays take all threads too
    module = npattn.EfficientChannelAttention(channels=4)

    def make():
        return golden(module, height=3, width=3, dtype="float16")

    before, interrupts, random = make().budget, 0, np.random.RandomState(0)
    with alarms_within(make), threadpool_limits(3, user_api="blas"):
        for _ in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 0.03))
                make()
            except KeyboardInterrupt:
                interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert blas_threads() == {3}
    assert interrupts > 10
    for name, budget in make().budget.items():
        np.testing.assert_array_equal(budget, before[name])


def interrupted_exits(function):
    """Call a function until nothing interrupts it as a block's end begins; yield every interrupt, which is kept."""
    leave = vars(contextlib._GeneratorContextManager)["__exit__"].__code__
    limiting = [inspect.unwrap(block).__code__ for block in (pass_threads, threads.one_thread)]

    def meets(frame, event):
        return event == "call" and frame.f_code is leave and frame.f_locals["self"].gen.gi_code in limiting

    return interruptions(function, meets)


@pytest.mark.parametrize("what", ["golden", "steps", "diagnose"])
def test_an_interrupt_whose_traceback_is_kept_leaves_no_limit(what, monkeypatch):
    monkeypatch.setattr(screening, "LEAST_SIZE", 1)  # so that mistakes in small cases are looked for on threads too
    module = npattn.EfficientChannelAttention(channels=4)
    case = golden(module, height=3, width=3, certify=False)
    wrong = case.expected | {"output": 1.2 * case.expected["output"]}
    calls = {
        "golden": lambda: golden(module, height=3, width=3, certify=False),
        "steps": lambda: measure_steps(case),
        "diagnose": lambda: case.diagnose(wrong),
    }
    interrupts = 0
    with threadpool_limits(3, user_api="blas"):
        for _ in interrupted_exits(calls[what]):
            interrupts += 1
            assert blas_threads() == {3}
    assert interrupts


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no cores to be kept to")
def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7})
    assert threads.count_cores() == 3


def test_a_follower_has_one_item_at_most_in_hand_and_one_before_it():
    made, taken, most = [], [], []

    def follow(items):
        for item in items:
            most.append(len(made) - len(taken))
            taken.append(item)

    with Follower(follow) as follower:
        for item in range(50):
            made.append(item)
            follower.hand_over(item)
    assert taken == made
    assert max(most) <= 3


def test_what_a_follower_raises_is_raised_at_the_end_and_keeps_nobody_waiting():
    def fail(items):
        next(items)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"), Follower(fail) as follower:
        for item in range(5):
            follower.hand_over(item)


def test_a_follower_ends_with_its_maker_and_is_not_begun_for_nothing():
    begun, ended = [], []

    def follow(items):
        begun.append(None)
        ended.extend(items)

    with Follower(follow):
        pass
    assert not begun
    with pytest.raises(KeyError), Follower(follow) as follower:
        follower.hand_over(1)
        raise KeyError
    assert ended == [1]


def test_a_follower_takes_what_was_kept_for_later_first_and_in_its_makers_thread_if_there_is_nothing_else():
    taken = []

    def follow(items):
        taken.extend((item, threading.get_ident() == maker) for item in items)

    maker = threading.get_ident()
    with Follower(follow) as follower:
        for item in range(4):
            follower.hand_over(item, later=item != 2)
    assert taken == [(item, False) for item in range(4)]
    taken.clear()
    with Follower(follow) as follower:
        for item in range(3):
            follower.hand_over(item, later=True)
    assert taken == [(item, True) for item in range(3)]
    with pytest.raises(KeyError), Follower(taken.clear) as follower:
        follower.hand_over(1, later=True)
        raise KeyError
    assert taken
