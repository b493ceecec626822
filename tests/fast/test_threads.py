import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController, threadpool_limits

import npattn
from npattn import ops
from npattn.fast import blas, machine, threads
from npattn.fast.threads import num_threads, parallel_for, reusing_memory
from npattn.ops.context import CONTEXT
from tests.fast.products import blas_threads, matrices, product
from tests.fast.programs import PATIENCE, run
from tests.interrupts import interrupt_within
from tests.naming import for_each
from tests.ops.primitives import normal

on_one_thread = pytest.mark.skipif(not blas.multiplies_on_one_thread(), reason="BLAS has no product on one thread")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind threads to cores")


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 2)


@pytest.fixture
def fresh_pool(monkeypatch):
    """Threads of the test's own, renewed by a call."""

    def renew():
        end(threads.Pool.current)
        threads.Pool.renew()

    monkeypatch.setattr(threads.Pool, "current", threads.Pool())
    yield renew
    end(threads.Pool.current)


def assert_two_threads_work_at_once():
    both = threading.Barrier(2, timeout=PATIENCE)  # an error unless two are there at once
    parallel_for(lambda _: both.wait(), range(2))


def end(pool):
    for _ in range(len(pool.threads) + 1):  # one may have been started and not counted
        pool.tasks.put(sys.exit)


# Every block, once


@given(number=st.integers(0, 30), count=st.integers(1, 9))
def test_every_block_is_worked_on_once(number, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "num_threads", lambda: count)
        done = []
        parallel_for(done.append, iter(range(number)))
    assert sorted(done) == list(range(number))


def test_several_threads_work_at_once(two_threads):
    assert_two_threads_work_at_once()


@pytest.mark.parametrize(("number", "count", "helpers"), [(0, 3, []), (1, 3, []), (2, 3, [1]), (7, 3, [2]), (7, 1, [])])
def test_no_more_helpers_are_asked_than_there_is_work_for(number, count, helpers, monkeypatch):
    asked, invite = [], threads.Loop.invite
    monkeypatch.setattr(threads, "num_threads", lambda: count)
    monkeypatch.setattr(threads.Loop, "invite", lambda loop, n, context: asked.append(n) or invite(loop, n, context))
    parallel_for(lambda _: None, range(number))
    assert asked == helpers


@pytest.mark.parametrize("of_helper", [False, True])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_reaches_the_caller_from_whoever_met_it_and_stops_the_others(of_helper, kind, two_threads):
    both, caller, raised, done = threading.Barrier(2, timeout=PATIENCE), threading.get_ident(), threading.Event(), []

    def work(block):
        done.append(block)
        both.wait()
        if (threading.get_ident() != caller) == of_helper:
            raised.set()
            raise kind("met")
        raised.wait(PATIENCE)
        time.sleep(0.05)  # until the others have been called off

    with pytest.raises(kind, match="met"):
        parallel_for(work, range(100))
    assert sorted(done) == [0, 1]


@pytest.mark.parametrize("bad", range(6))
def test_an_exception_is_raised_once_all_have_stopped(bad, two_threads):
    running = []

    def work(block):
        running.append(block)
        try:
            time.sleep(0.001)
            if block == bad:
                raise ValueError(f"block {block}")
        finally:
            running.remove(block)

    with pytest.raises(ValueError, match=f"block {bad}"):
        parallel_for(work, range(6))
    assert not running


def test_loops_within_loops_run_on_the_thread_that_meets_them(monkeypatch, fresh_pool):
    monkeypatch.setattr(threads, "num_threads", lambda: 4)
    done, all_at_once = [], threading.Barrier(3, timeout=PATIENCE)

    def inner(*indices):
        time.sleep(0.002)  # for others to come
        done.append((*indices, threading.get_ident()))

    def outer(i):
        all_at_once.wait()
        here = threading.get_ident()
        parallel_for(lambda j: parallel_for(lambda k: inner(i, j, k, here), range(2)), range(2))

    for _ in range(2):  # the second time with a helper that has nothing else to do
        done.clear()
        parallel_for(outer, range(3))
        assert sorted(entry[:3] for entry in done) == [(i, j, k) for i in range(3) for j in (0, 1) for k in (0, 1)]
        assert all(outside == inside for *_, outside, inside in done)
        assert len({entry[-1] for entry in done}) == 3
        threads.Pool.current.grow(3)


def test_a_loop_within_a_loop_of_one_block_has_helpers(two_threads):
    parallel_for(lambda _: assert_two_threads_work_at_once(), range(1))


def test_many_callers_at_once_come_to_an_end_with_few_threads(monkeypatch, fresh_pool):
    monkeypatch.setattr(threads, "num_threads", lambda: 3)
    callers, rounds = 12, 30
    together, done = threading.Barrier(callers, timeout=PATIENCE), [[] for _ in range(callers)]

    def call(caller):
        together.wait()
        for _ in range(rounds):
            parallel_for(done[caller].append, range(5))

    with ThreadPoolExecutor(callers) as executor:
        list(executor.map(call, range(callers)))
    assert all(sorted(blocks) == sorted(list(range(5)) * rounds) for blocks in done)
    assert len(threads.Pool.current.threads) <= 2 * callers  # several may start one at the same time, once


def test_a_caller_waits_for_no_helper_that_is_busy_elsewhere(two_threads, fresh_pool):
    leave, both, done = threading.Event(), threading.Barrier(3, timeout=PATIENCE), []

    def stay(_):
        both.wait()
        leave.wait(PATIENCE)

    busy = threading.Thread(target=parallel_for, args=(stay, range(2)))
    busy.start()
    both.wait()  # the only helper is at work now, and stays there
    x = np.ones(4)
    alive = weakref.ref(x)
    parallel_for(lambda block, x=x: done.append((block, threading.get_ident())), range(4))
    assert done == [(block, threading.get_ident()) for block in range(4)]
    del x
    assert alive() is None  # though the helper is still to find out that it came too late
    leave.set()
    busy.join(PATIENCE)


def test_threads_are_made_when_they_are_first_needed():
    assert run(
        "import threading, npattn.fast.threads as t; print(len(t.Pool.current.threads), threading.active_count())"
    ) == [
        "0",
        "1",
    ]


def test_where_no_thread_can_be_started_the_caller_does_it_all(two_threads, fresh_pool, monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "start_new_thread", refuse)
    done = []
    parallel_for(lambda block: done.append((block, threading.get_ident())), range(4))
    assert done == [(block, threading.get_ident()) for block in range(4)]
    assert threads.Pool.current.tasks.empty()


@pytest.mark.parametrize("count", [1, 2])
def test_no_arrays_are_kept_alive(count, monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: count)
    x = np.ones(4)
    alive = weakref.ref(x)
    parallel_for(lambda block, x=x: x[block].sum(), range(4))
    del x
    until = time.monotonic() + PATIENCE
    while alive() is not None and time.monotonic() < until:  # a helper that came late lets go of it in a moment
        time.sleep(0.001)
    assert alive() is None


SHUTDOWN = """
import atexit
import numpy as np
from npattn.fast import threads

threads.num_threads = lambda: 3

def call(when):
    done = []
    threads.parallel_for(done.append, range(20))
    print(when, sorted(done) == list(range(20)), flush=True)

class Late:
    def __del__(self, call=call):
        call("late")

atexit.register(call, "atexit")
if __name__ == "__main__":
    import sys
    if sys.argv[1] == "used":
        call("before")
    late = Late()
    late.itself = late
"""


@pytest.mark.parametrize(("used", "expected"), [("used", "before True atexit True"), ("unused", "atexit True")])
def test_loops_come_to_an_end_while_the_interpreter_shuts_down(used, expected):
    found = run(SHUTDOWN, used)
    assert found[: len(expected.split())] == expected.split()
    assert found[len(expected.split()) :] in ([], ["late", "True"])


# The caller's context


@pytest.mark.parametrize("setting", ["ignore", "raise"])
def test_a_helper_has_the_callers_settings(setting, two_threads):
    both, found, variable = threading.Barrier(2, timeout=PATIENCE), [], ContextVar("variable")

    def look(_):
        both.wait()
        found.append((np.geterr()["under"], variable.get(), CONTEXT.get().definitions_only))

    variable.set(5)
    with np.errstate(under=setting), npattn.definitions():
        parallel_for(look, range(2))
    assert found == [(setting, 5, True)] * 2


@pytest.mark.parametrize("count", [1, 2])
def test_the_callers_settings_stay_as_they_were(count, monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: count)
    before, call = (np.geterr(), np.getbufsize()), np.geterrcall()
    parallel_for(lambda _: np.seterr(all="ignore"), range(4))
    assert (np.geterr(), np.getbufsize()) == before
    assert np.geterrcall() is call
    assert threads.IN_PARALLEL.get() is False


@pytest.mark.parametrize("count", [1, 2])
def test_numpy_lays_out_no_rows_of_maps_in_work_on_blocks(count, monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: count)
    found = []
    parallel_for(lambda _: found.append(np.getbufsize()), range(4))
    assert found == [threads.BUFFER_SIZE] * 4


def divide(blocks=8):
    x = np.ones(blocks)
    with np.errstate(divide="warn", invalid="warn"):
        parallel_for(lambda i: np.divide(x[i : i + 1] - (i < 4), 0 * x[i : i + 1]), range(blocks))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_warning_is_raised_once_however_many_blocks_and_threads_meet_it(count, monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: count)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        divide()
    assert [str(w.message) for w in found] == [
        "divide by zero encountered in divide",
        "invalid value encountered in divide",
    ]
    assert {(w.category, w.filename) for w in found} == {(RuntimeWarning, __file__)}


def test_warnings_of_loops_within_loops_are_raised_once(two_threads):
    x = np.zeros(4)
    with warnings.catch_warnings(record=True) as found, np.errstate(divide="warn"):
        warnings.simplefilter("always")
        parallel_for(lambda _: parallel_for(lambda i: np.divide(1, x[i : i + 1]), range(4)), range(3))
    assert len(found) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_a_warning_that_is_an_error_is_raised(count, monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: count)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="divide by zero"):
            divide()


@pytest.mark.parametrize("count", [1, 2])
def test_errors_are_raised_ignored_or_told_as_the_caller_wishes(count, monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: count)
    x, told = np.zeros(8), []
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        parallel_for(lambda i: np.divide(1, x[i : i + 1]), range(8))
    with np.errstate(divide="ignore"):
        parallel_for(lambda i: np.divide(1, x[i : i + 1]), range(8))
    with np.errstate(divide="call", call=lambda error, flag: told.append(error)):
        parallel_for(lambda i: np.divide(1, x[i : i + 1]), range(8))
    assert told == ["divide by zero"] * 8


# Same bits


@on_one_thread
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (((), 512, 4096, 512), np.float32),
        (((3,), 100, 300, 170), np.float64),
        (((9,), 64, 144, 196), np.float32),
        (((40,), 49, 32, 49), np.float64),
    ],
)
def test_a_product_has_the_same_bits_whatever_threads_there_are_and_whatever_others_do(shape, dtype):
    batch, rows, inner, columns = shape
    a, b = matrices(*batch, rows, inner, dtype=dtype), matrices(*batch, inner, columns, dtype=dtype, seed=1)
    x, y, stop, rounds = matrices(300, 300), matrices(300, 300, seed=1), threading.Event(), []

    def disturb():
        while not stop.is_set():
            product(x, y)
            x @ y
            rounds.append(None)

    other, found = threading.Thread(target=disturb), []
    try:
        for busy in (False, True):
            if busy:
                other.start()
            for count in (1, 2, 4):
                for limit in (1, 2) if count < 4 else (2,):
                    with threadpool_limits(limit), pytest.MonkeyPatch.context() as patch:
                        patch.setattr(threads, "num_threads", lambda count=count: count)
                        found.append(product(a, b))
    finally:
        stop.set()
        other.join(PATIENCE)
    assert rounds
    np.testing.assert_allclose(found[0], a.astype(float) @ b, rtol=0, atol=3e-3 if dtype == np.float32 else 1e-10)
    for others in found[1:]:
        np.testing.assert_array_equal(found[0], others)


def test_products_come_one_after_the_other_where_blas_has_none_on_one_thread(two_threads, monkeypatch):
    monkeypatch.setattr(blas, "gemm_of", lambda dtype: None)
    done = []

    def work(block):
        time.sleep(0.002)  # for others to come
        done.append((block, threading.get_ident()))

    parallel_for(work, range(6), products=True)
    assert done == [(block, threading.get_ident()) for block in range(6)]
    assert_two_threads_work_at_once()  # other work is shared still


# Interrupts

INTERRUPTS = """
import _thread, os, random, signal, sys, threading, time
import numpy as np
from npattn.fast import blas, threads
from tests.fast.products import blas_threads, matrices, product
from tests.interrupts import interrupt_within
from tests.naming import for_each
from tests.ops.primitives import normal

seconds, way = float(sys.argv[1]), sys.argv[2]
threads.num_threads = lambda: 3
a, b = matrices(150, 200), matrices(200, 150, seed=1)
a2, b2 = matrices(256, 256), matrices(256, 256, seed=1)
x, y = np.arange(4000.0), np.empty(4000)
main, active, rng = threading.get_ident(), [], random.Random(int(sys.argv[3]))

def add_one(block):
    if threading.get_ident() != main:
        active.append(block)
    try:
        np.add(x[block], 1, out=y[block])
        time.sleep(rng.choice((0, 0, 0.0002)))
    finally:
        if threading.get_ident() != main:
            active.remove(block)

def compute():
    y.fill(0)
    threads.parallel_for(add_one, [slice(i, i + 500) for i in range(0, 4000, 500)])
    return product(a, b), product(a2, b2), y.copy()

def compute_under_fire(fresh):
    if fresh:
        for _ in range(9):
            threads.Pool.current.tasks.put(sys.exit)
        threads.Pool.renew()  # so that threads are started under fire as well
    delay = rng.uniform(1e-5, 1.3 * usual)
    if way == "storm":
        signal.setitimer(signal.ITIMER_REAL, delay, 0.0003)
    elif way == "timer":
        signal.setitimer(signal.ITIMER_REAL, delay)
    else:
        others.append(threading.Timer(delay, _thread.interrupt_main))
        others[-1].start()
    compute()
    while way == "thread" and others[-1].is_alive():
        time.sleep(0.0001)

def state():
    return blas_threads(), sorted(os.sched_getaffinity(0)), np.geterr(), threads.IN_PARALLEL.get()

def assert_all_is_as_before():
    assert state() == before, (state(), before)
    assert all(np.array_equal(f, e) for f, e in zip(compute(), expected)), "other bits"
    both = threading.Barrier(2, timeout=200)
    threads.parallel_for(lambda _: both.wait(), range(2))
    assert not blas.MULTIPLYING
    assert len(threads.Pool.current.threads) <= 2

expected, before = compute(), state()
signal.signal(signal.SIGALRM, interrupt_within(compute_under_fire))
signal.signal(signal.SIGINT, interrupt_within(compute_under_fire))
started = time.monotonic()
for _ in range(5):
    compute()
usual = (time.monotonic() - started) / 5
rounds, interrupts, escapes, others = 0, 0, 0, []
while time.monotonic() < started + seconds or rounds < 20:
    rounds += 1
    try:
        compute_under_fire(fresh=rng.random() < 0.1)
    except KeyboardInterrupt:
        interrupts += 1
        escapes += bool(active)
    signal.setitimer(signal.ITIMER_REAL, 0)
    while others:
        others.pop().join()
    while active:
        time.sleep(0.0001)
    if rounds % 10 == 0:
        assert_all_is_as_before()
assert_all_is_as_before()
print(rounds, interrupts, escapes)
"""


@posix
@pytest.mark.parametrize("way", ["timer", "thread", "storm"])
def test_interrupts_at_any_moment_leave_everything_as_it_was(way):
    rounds, interrupts, escapes = map(int, run(INTERRUPTS, 1, way, random.randrange(1000)))
    assert interrupts > min(rounds / 4, 20) > 1  # however soon rounds end beside what else the machine does
    assert escapes == 0 or way == "storm"  # no helper works on when the exception leaves


def interrupt_before(step, call, names=None):
    """Call a function and interrupt it before an instruction of `npattn.fast`, or of functions with these names.

    Returns whether there was one.
    """
    count, files, before = 0, (threads.__file__, blas.__file__), sys.gettrace()

    def trace(frame, event, _):
        nonlocal count
        code = frame.f_code
        if code.co_filename not in files or (names and code.co_name not in names):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == step:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_before_any_instruction_leaves_everything_as_it_was(two_threads, fresh_pool):
    a, b = matrices(2, 101, 100), matrices(2, 100, 100, seed=1)

    def compute():
        out = np.empty((2, 101, 100), np.float32)
        parallel_for(lambda i: blas.multiply(a[i], b[i], out[i]), range(2))
        return out

    limits, settings, expected, step = blas_threads(), np.geterr(), compute(), 0
    while step := step + 1:
        fresh_pool()  # so that threads are started as well
        interrupted = interrupt_before(step, compute)
        np.testing.assert_array_equal(compute(), expected)
        assert np.geterr() == settings
        assert threads.IN_PARALLEL.get() is False
        assert not blas.FORKING
        assert len(threads.Pool.current.threads) == 1
        if step % 50 == 0 or not interrupted:
            assert blas_threads() == limits
            assert_two_threads_work_at_once()
        if not interrupted:
            break
    assert not blas.MULTIPLYING
    assert step > 200


def test_helpers_have_ended_when_an_interrupt_leaves(two_threads):
    both, active = threading.Barrier(2, timeout=PATIENCE), []
    caller = threading.get_ident()

    def work(_):
        both.wait()
        if threading.get_ident() == caller:
            raise KeyboardInterrupt
        active.append(None)
        time.sleep(0.05)
        active.pop()

    with pytest.raises(KeyboardInterrupt):
        parallel_for(work, range(9))
    assert not active


def test_an_interrupt_before_any_instruction_of_waiting_leaves_when_helpers_have_ended(two_threads):
    active, caller, step = [], threading.get_ident(), 0
    while step := step + 1:
        both = threading.Barrier(2, timeout=PATIENCE)

        def work(_, both=both):
            both.wait()
            if threading.get_ident() != caller:
                active.append(None)
                time.sleep(0.01)
                active.pop()

        interrupted = interrupt_before(step, lambda work=work: parallel_for(work, range(2)), names={"finish"})
        assert not active
        if not interrupted:
            break
    assert step > 20


@posix
def test_however_many_interrupts_come_helpers_have_ended(two_threads):
    both, active, caller, interrupts = threading.Barrier(2, timeout=PATIENCE), [], threading.get_ident(), []

    def work(_):
        both.wait()
        if threading.get_ident() == caller:
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.03)
        else:
            active.append(None)
            time.sleep(0.3)
            active.pop()

    def interrupt(number, frame):
        interrupts.append(None)
        interrupt_within(parallel_for)(number, frame)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            parallel_for(work, range(2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not active
    assert len(interrupts) > 2


# Forks

FORKS = """
import os, sys, threading
import numpy as np
from npattn.fast import threads
from tests.fast.products import blas_threads, matrices, product
from tests.fast.programs import fork_beside

threads.num_threads = lambda: 2
a, b = matrices(150, 300), matrices(300, 150, seed=1)
expected = product(a, b)
before = blas_threads(), os.sched_getaffinity(0)

def is_right():
    as_before = (blas_threads(), os.sched_getaffinity(0)) == before and not threads.Pool.current.threads
    both = threading.Barrier(2, timeout=200)
    threads.parallel_for(lambda _: both.wait(), range(2))
    return as_before and (product(a, b) == expected).all() and np.allclose(a @ b, expected, atol=1e-3)

print(fork_beside(lambda: product(a, b), is_right, seconds=float(sys.argv[1])))
"""


@posix
@linux
def test_a_process_forked_while_others_compute_has_threads_of_its_own_and_blas_as_it_was():
    (forked,) = run(FORKS, 1)
    assert int(forked) > 2


FORKS_BESIDE_DEFINITIONS = """
import sys
import numpy as np
import npattn
from npattn.oracle import generic_values
from tests.fast.programs import fork_beside

module = npattn.PositionAttention.example()
params, inputs = (
    {name: a.astype(np.float32) for name, a in values.items()}
    for values in generic_values(module, batch=1, height=16, width=16)
)

def go():
    run = module(params, *inputs.values())
    run.backward(run.output)
    return True

go()
print(fork_beside(go, go, seconds=float(sys.argv[1]), num_threads=1, at_once=1, pause=0.01))
"""


@posix
@linux
def test_a_process_forked_while_a_map_too_small_for_threads_is_computed_goes_on():
    (forked,) = run(FORKS_BESIDE_DEFINITIONS, 1, OMP_NUM_THREADS="2")
    assert int(forked) > 2


@on_one_thread
@for_each(("positions", "channels"), [(289, 16), (144, 512)])
def test_attention_over_few_positions_has_the_same_bits_whatever_threads_blas_has(positions, channels):
    q, k, v = (normal(1, channels, positions, seed=seed) for seed in range(3))

    def results():
        o, backward = ops.dot_product_attention(q, k, v)
        return [o, *backward(o)]

    expected = results()
    for limit in (1, 3):
        with threadpool_limits(limit):
            for one, other in zip(results(), expected, strict=True):
                np.testing.assert_array_equal(one, other)


FORK_IN_WORK = """
import os, threading
from npattn.fast import threads

threads.num_threads = lambda: 2
both, caller = threading.Barrier(2, timeout=200), threading.get_ident()
parent = os.getpid()

def work(_):
    both.wait()
    if threading.get_ident() == caller:
        os.fork()
    else:
        threading.Event().wait(0.3)

try:
    threads.parallel_for(work, range(2))
    said = "done"
except RuntimeError as error:
    said = str(error)
if os.getpid() != parent:
    print(said, flush=True)
    os._exit(0)
os.wait()
print(said)
"""


@posix
def test_a_process_forked_by_work_is_told_that_others_blocks_are_missing():
    child, parent = " ".join(run(FORK_IN_WORK)).split(" alone ")
    assert child.startswith("work forked this process")
    assert parent == "done"


# Limits


@pytest.mark.parametrize("elsewhere", [False, True])
def test_limits_of_users_are_neither_lost_nor_overridden(elsewhere, two_threads):
    a, b = matrices(150, 200), matrices(200, 150, seed=1)
    expected, before, rounds, stop = product(a, b), blas_threads(), [], threading.Event()
    off = 0 if blas.multiplies_on_one_thread() else 1e-3

    def compute():
        while not stop.is_set():
            np.testing.assert_allclose(product(a, b), expected, rtol=0, atol=off)
            rounds.append(None)

    def limit():
        rng, until, limits = random.Random(1), time.monotonic() + 1, 0
        while time.monotonic() < until or limits < 20:
            outer, inner = rng.choices((1, 2, 3, 4), k=2)
            with threadpool_limits(outer):
                product(a, b)
                assert set(blas_threads()) == {outer}
                with threadpool_limits(inner):
                    time.sleep(rng.choice((0, 1e-4)))
                    assert set(blas_threads()) == {inner}
                    product(a, b)
                assert set(blas_threads()) == {outer}
            assert blas_threads() == before
            limits += 1

    with ThreadPoolExecutor(3) as executor:
        others = [executor.submit(compute) for _ in range(2)]
        try:
            executor.submit(limit).result(PATIENCE) if elsewhere else limit()
        finally:
            stop.set()
        for other in others:
            other.result(PATIENCE)
    assert len(rounds) > 20
    assert blas_threads() == before


def test_nothing_sets_the_threads_of_blas(two_threads, monkeypatch):
    def refuse(*_):
        raise AssertionError("set")

    for library in ThreadpoolController().lib_controllers:
        monkeypatch.setattr(type(library), "set_num_threads", refuse)
    assert product(matrices(150, 200), matrices(200, 150)).shape == (150, 150)


@pytest.fixture
def four_cores(monkeypatch):
    """A process that may use four cores and has set no limit, with BLAS on four threads."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "other_cores", set)
    monkeypatch.setattr(threads, "LIMIT", sys.maxsize)
    with threadpool_limits(4):
        yield


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        ({}, sys.maxsize),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2", "MKL_NUM_THREADS": "8"}, 4),
        ({"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "0", "MKL_NUM_THREADS": "many"}, sys.maxsize),
    ],
)
def test_limits_in_the_environment_are_kept(environment, limit, monkeypatch, four_cores):
    assert threads.read_limit(environment) == limit
    monkeypatch.setattr(threads, "LIMIT", limit)
    assert num_threads() == min(limit, 4)


@pytest.mark.parametrize("variable", threads.LIMITING_VARIABLES)
def test_every_variable_that_users_set_limits(variable):
    assert threads.read_limit({variable: "1"}) == 1


def test_the_environment_is_read_at_the_start():
    environment = {name: value for name, value in os.environ.items() if name not in threads.LIMITING_VARIABLES}
    environment["MKL_NUM_THREADS"] = "1"  # of which a BLAS that is not MKL takes no notice
    program = "from npattn.fast import threads; print(threads.LIMIT, threads.num_threads())"
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, timeout=PATIENCE
    )
    assert found.stdout.split() == [b"1", b"1"]


def test_limits_of_threadpoolctl_are_kept(four_cores):
    for limit in (1, 2, 3, 6):
        with threadpool_limits(limit):
            assert num_threads() == min(limit, 4)
    with threadpool_limits(1):
        done = []
        parallel_for(lambda _: done.append(threading.get_ident()) or time.sleep(0.001), range(6))
        assert set(done) == {threading.get_ident()}
    assert_two_threads_work_at_once()


@linux
def test_cores_that_are_denied_are_not_used(monkeypatch):
    monkeypatch.setattr(threads, "LIMIT", sys.maxsize)
    allowed = os.sched_getaffinity(0)
    with threadpool_limits(3):
        assert num_threads() == min(3, len(allowed))
        try:
            os.sched_setaffinity(0, {min(allowed)})
            assert num_threads() == 1
        finally:
            os.sched_setaffinity(0, allowed)


# Cores


def test_a_helper_moves_to_the_other_cores_before_it_works_and_the_caller_stays(two_threads, monkeypatch):
    pinned, seen, both = [], {}, threading.Barrier(2, timeout=PATIENCE)
    monkeypatch.setattr(machine, "other_cores", lambda: {3, 4})
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda who, cores: pinned.append((threading.get_ident(), who, cores)), raising=False
    )

    def work(_):
        both.wait()
        seen[threading.get_ident()] = list(pinned)

    parallel_for(work, range(2))
    seen.pop(threading.get_ident())
    ((helper, calls),) = seen.items()
    assert calls == [(helper, 0, {3, 4})]


@linux
def test_a_helper_works_where_it_is_if_the_system_denies_it_other_cores(two_threads, monkeypatch):
    monkeypatch.setattr(machine, "other_cores", lambda: {10**4})
    assert_two_threads_work_at_once()


@linux
def test_the_caller_may_run_wherever_it_could(two_threads):
    allowed = os.sched_getaffinity(0)
    assert_two_threads_work_at_once()
    assert os.sched_getaffinity(0) == allowed


# Memory of blocks


def test_blocks_one_after_the_other_use_the_same_memory_which_grows():
    taken = []

    def work(shape, one, other):
        taken.append((one(shape), other(shape)))

    compute = reusing_memory(work, np.ones(1, np.float32), 2)
    for shape in [(2, 3), (4,), (5, 2), (10,)]:
        compute(shape)
        for array in taken[-1]:
            assert (array.shape, array.dtype) == (shape, np.float32)
            assert array.flags.c_contiguous
        assert not np.shares_memory(*taken[-1])
    for first, second in [(0, 1), (2, 3)]:
        assert all(map(np.shares_memory, taken[first], taken[second]))


def test_blocks_at_the_same_time_have_memory_of_their_own(two_threads):
    both, taken = threading.Barrier(2, timeout=PATIENCE), []

    def work(value, memory):
        array = memory((1000,))
        array[:] = value
        both.wait()
        taken.append((array, bool((array == value).all())))
        both.wait()

    parallel_for(reusing_memory(work, np.ones(1), 1), [1.0, 2.0, 3.0, 4.0])
    assert all(kept for _, kept in taken)
    assert len({array.ctypes.data for array, _ in taken}) == 2  # used again


def test_a_block_that_fails_takes_its_memory_with_it():
    def work(value, memory):
        memory((3,))[:] = 1 / value

    compute = reusing_memory(work, np.ones(1), 1)
    with pytest.raises(ZeroDivisionError):
        compute(0)
    compute(1)
