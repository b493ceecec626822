import contextlib
import itertools
import os
import platform
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from npattn import ops
from npattn.module import as_tuple
from npattn.ops import products, sweeping
from tests.ops import primitives
from tests.ops.primitives import normal, patched, unparted
from tests.strategies import arrange, layouts, seeds, sizes

shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple)
linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind threads to cores")


@pytest.fixture
def parted():
    """Sweep the smallest maps in parts, on four threads."""
    with primitives.parted():
        yield


parts_all = pytest.mark.usefixtures("parted")


@pytest.fixture
def four_cores(monkeypatch):
    """A process that may use four cores and has set no limit, with BLAS on three threads; nothing is pinned."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(sweeping, "other_cores", set)
    monkeypatch.setattr(sweeping, "LIMIT", sys.maxsize)
    libraries = sweeping.blas().lib_controllers
    before = [library.num_threads for library in libraries]
    set_blas(libraries, [3] * len(libraries))
    yield
    set_blas(libraries, before)


def set_blas(libraries, counts):
    """Set BLAS's threads, and let any other thread do so next: threadpoolctl leaves it to the first that did."""
    for library, count in zip(libraries, counts, strict=True):
        clear = getattr(library, "clear_controlling_thread", lambda force: None)
        clear(force=True)
        library.set_num_threads(count)
        clear(force=True)


def blas_threads():
    return {library.num_threads for library in sweeping.blas().lib_controllers}


def refuse(*args, **kwargs):
    raise AssertionError("swept in parts")


class Other(np.ndarray):
    """Another kind of array."""


# Pieces


@given(shapes, st.integers(1, 200), st.data())
def test_pieces_cover_every_element_once_and_are_no_larger_than_asked(shape, size, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    visits = np.zeros(shape)
    indivisible = visits[:1].size // (shape[axis] if axis else 1)
    asked = min(size, visits.size // sweeping.PIECES)
    found = sweeping.pieces(visits, axis, size)
    for piece in found:
        assert len(piece) == axis + 1
        assert 0 < visits[piece].size <= max(asked, indivisible)
        assert all(part == slice(None) for part in piece[1:axis])
        visits[piece] += 1
    np.testing.assert_array_equal(visits, 1)
    assert 2 * visits[found[0]].size > asked  # and not needlessly small


@given(shapes, st.data())
def test_a_piece_of_a_map_meets_the_same_piece_of_what_is_spread_over_it(shape, data):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    kept = data.draw(st.tuples(*(st.booleans() for _ in shape)))
    a = normal(*(n if keep else 1 for n, keep in zip(shape, kept, strict=True)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    for piece in sweeping.pieces(x, axis, 3):
        some = a[sweeping.spread_piece(a, piece)]
        np.testing.assert_array_equal(np.broadcast_to(some, x[piece].shape), np.broadcast_to(a, shape)[piece])


@pytest.mark.parametrize(("size", "expected"), [(2**17 - 1, False), (2**17, True)])
def test_a_map_is_worth_parting_when_it_is_large_and_plain(size, expected):
    x = np.ones(size)
    assert sweeping.worth_parting(x) is expected
    assert sweeping.worth_parting(x, x[:1]) is expected
    assert not sweeping.worth_parting(x[:1], x)
    for other in (x.view(Other), x.astype(np.float32), x.astype(complex)):
        assert not sweeping.worth_parting(x, other)


# Sweeps


@parts_all
@given(shapes, st.data(), st.sampled_from([np.float32, np.float64]), st.tuples(layouts, layouts), seeds)
def test_elementwise_is_the_ufunc_whatever_is_spread(shape, data, dtype, laid_out, seed):
    kept = data.draw(st.tuples(*(st.booleans() for _ in shape)))
    x = arrange(normal(*shape, seed=seed).astype(dtype), laid_out[0])
    a = normal(*(n if keep else 1 for n, keep in zip(shape, kept, strict=True)), seed=seed + 1).astype(dtype)
    a = arrange(a, laid_out[1])
    y = sweeping.elementwise(np.multiply, x, a)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x * a)
    z = x.copy()
    assert sweeping.elementwise(np.add, z, a, out=z) is z
    np.testing.assert_array_equal(z, x + a)


@parts_all
@given(st.tuples(sizes, sizes, sizes, sizes), st.sampled_from([1, 2, 3, (2, 3), (1, 3)]), layouts, seeds)
def test_average_is_the_mean_in_every_layout(shape, axis, layout, seed):
    x = arrange(normal(*shape, seed=seed), layout)
    np.testing.assert_allclose(sweeping.average(x, axis), x.mean(axis=axis, keepdims=True), rtol=1e-13, atol=1e-15)


@parts_all
@given(st.tuples(sizes, st.integers(1, 40), sizes, st.integers(1, 40)), st.sampled_from([1, 2, 3, (2, 3)]), seeds)
def test_single_precision_averages_in_parts_are_within_8_ulps_of_the_largest(shape, axis, seed):
    x = normal(*shape, seed=seed).astype(np.float32)
    expected = x.astype(float).mean(axis=axis, keepdims=True)
    sizes_of_terms = np.abs(x).mean(axis=axis, keepdims=True).max()
    found = sweeping.average(x, axis)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 8 * np.finfo(np.float32).eps * sizes_of_terms


@pytest.mark.parametrize("shape", [(1, 64, 56, 56), (1, 64, 1, 4096), (1, 1, 1, 10**6), (1, 1, 10**6, 1)])
def test_an_average_of_many_keeps_its_digits(shape):
    x = np.random.RandomState(0).uniform(0, 1, shape).astype(np.float32)
    np.testing.assert_allclose(sweeping.average(x, (2, 3)), x.astype(float).mean(axis=(2, 3), keepdims=True), rtol=5e-7)


@pytest.mark.parametrize("length", [10**6, 4 * 10**6])
def test_a_long_row_is_averaged_in_pairs(length):
    x = np.random.RandomState(0).uniform(0, 1, (1, 1, 1, length)).astype(np.float32)
    np.testing.assert_allclose(sweeping.average(x, 3), x.astype(float).mean(axis=3, keepdims=True), rtol=5e-7)


def average_plus_maximum(x):
    (p, q), backward = ops.global_pools(x, ("avg", "max"))
    return p + q, lambda dp: backward((dp, dp))


SWEEPS = {
    "gate of channels": lambda x, a: ops.gate(x, a[:, :, 0, 0]),
    "gate of positions": lambda x, a: ops.gate(x, a[:, :1]),
    "gate of rows": lambda x, a: ops.gate(x, a[..., :1]),
    "gate of columns": lambda x, a: ops.gate(x, a[:, :, :1]),
    "gate of all images": lambda x, a: ops.gate(x, a[:1]),
    "add": lambda x, a: ops.add(x, a, x),
    "average of positions": lambda x, _: ops.global_average_pool(x),
    "average of channels": lambda x, _: ops.average_pool(x, axis=1),
    "average of columns": lambda x, _: ops.average_pool(x, axis=2),
    "maximum of positions": lambda x, _: ops.global_max_pool(x),
    "maximum of channels": lambda x, _: ops.max_pool(x, axis=1),
    "maximum of rows": lambda x, _: ops.max_pool(x, axis=3),
    "average plus maximum of positions": lambda x, _: average_plus_maximum(x),
}
PRODUCTS = {
    "product": lambda x, a: ops.matmul(x, a.swapaxes(-1, -2)),
    "convolution": lambda x, a: ops.conv2d(x, a[:2, :, :3, :3].copy(), padding=1),
    "convolution of far taps": lambda x, a: ops.conv2d(x, a[:2, :, :3, :3].copy(), padding=2, dilation=2),
    "strided convolution": lambda x, a: ops.conv2d(x, a[:5, :, :3, :3].copy(), stride=2),
    "attention": lambda x, a: ops.dot_product_attention(x, a, x),
}
sweeps = pytest.mark.parametrize("primitive", SWEEPS.values(), ids=SWEEPS)
all_primitives = pytest.mark.parametrize("primitive", (SWEEPS | PRODUCTS).values(), ids=SWEEPS | PRODUCTS)


@parts_all
@sweeps
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_the_number_of_threads(primitive, dtype):
    x, a = normal(6, 3, 5, 7).astype(dtype), normal(6, 3, 5, 7, seed=1).astype(dtype)
    found = []
    for count in (1, 2, 3, 8):
        with patched("threads", lambda count=count: count):
            value, backward = primitive(x, a)
            found.append([value, *as_tuple(backward(value))])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@parts_all
@all_primitives
@pytest.mark.parametrize("kind", [np.float16, np.longdouble, complex, Other])
def test_other_numbers_and_other_kinds_of_array_take_the_plain_way(primitive, kind):
    x, a = normal(6, 3, 5, 7), normal(6, 3, 5, 7, seed=1)
    x, a = (m.view(Other) if kind is Other else m.astype(kind) for m in (x, a))
    with patched("on_cores", refuse):
        value, backward = primitive(x, a)
        found = [value, *as_tuple(backward(value))]
    with unparted():
        value, backward = primitive(x, a)
        expected = [value, *as_tuple(backward(value))]
    assert type(found[0]) is (Other if kind is Other else np.ndarray)
    for one, other in zip(found, expected, strict=True):
        if other is not None:
            assert type(one) is type(other)
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)  # attention cuts by another rule


@parts_all
@pytest.mark.parametrize("primitive", [SWEEPS[name] for name in SWEEPS if name.startswith(("gate", "add"))])
def test_arrays_of_different_numbers_take_the_plain_way(primitive):
    x, a = normal(6, 3, 5, 7), normal(6, 3, 5, 7, seed=1).astype(np.float32)
    value, backward = primitive(x, a)
    assert value.dtype == float
    dy = normal(*value.shape, seed=2).astype(np.float32)
    with unparted():
        expected, back = primitive(x, a)
        gradients = as_tuple(back(dy))
    np.testing.assert_array_equal(value, expected)
    for one, other in zip(as_tuple(backward(dy)), gradients, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@parts_all
@all_primitives
def test_the_machines_own_numbers_are_swept_in_several_parts(primitive):
    counts = []

    def count(work, pieces, products=False):
        counts.append(len(pieces))
        for piece in pieces:
            work(piece)

    x, a = normal(6, 3, 5, 7), normal(6, 3, 5, 7, seed=1)
    with patched("on_cores", count):
        primitive(x, a)
    assert max(counts, default=0) > 1


@sweeps
def test_small_maps_take_the_plain_way(primitive):
    x = normal(2, 3, 4, 5)
    with patched("on_cores", refuse):
        value, backward = primitive(x, x)
        backward(value)


# On all cores


def test_large_maps_are_swept_on_several_threads(monkeypatch):
    monkeypatch.setattr(sweeping, "threads", lambda: 2)
    both = threading.Barrier(2, timeout=30)  # an error unless two are there at once

    def meet(x, out):
        both.wait()
        return np.negative(x, out=out)

    x = np.ones((2, 2**16))
    monkeypatch.setattr(sweeping, "PIECES", 2)
    np.testing.assert_array_equal(sweeping.elementwise(meet, x), -1)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_every_piece_is_worked_on_once_with_no_more_helpers_than_there_is_work(number, count, monkeypatch):
    monkeypatch.setattr(sweeping, "threads", lambda: count)
    hire, hired, done = sweeping.hire, [], []
    monkeypatch.setattr(sweeping, "hire", lambda task, helpers: hired.append(max(0, helpers)) or hire(task, helpers))
    sweeping.on_cores(done.append, range(number))
    assert sorted(done) == list(range(number))
    assert hired == [max(0, min(number, count) - 1)]


@parts_all
def test_the_callers_settings_hold_on_all_threads():
    x = np.zeros((8, 4))
    with np.errstate(divide="ignore"):
        sweeping.elementwise(np.divide, x + 1, x)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        sweeping.elementwise(np.divide, x + 1, x)


@pytest.mark.parametrize("setting", ["ignore", "raise"])
def test_a_helper_has_the_callers_settings(setting, monkeypatch):
    monkeypatch.setattr(sweeping, "threads", lambda: 2)
    both, found = threading.Barrier(2, timeout=30), []

    def look(_):
        both.wait()
        found.append(np.geterr()["under"])

    with np.errstate(under=setting):
        sweeping.on_cores(look, range(2))
    assert found == [setting] * 2


@parts_all
@pytest.mark.parametrize("bad", range(6))
@pytest.mark.parametrize("products", [False, True])
def test_an_exception_is_raised_once_all_have_stopped(bad, products):
    running = []

    def work(piece):
        running.append(piece)
        try:
            time.sleep(0.001)
            if piece == bad:
                raise ValueError(f"piece {piece}")
        finally:
            running.remove(piece)

    with pytest.raises(ValueError, match=f"piece {bad}"):
        sweeping.on_cores(work, range(6), products)
    assert not running


@pytest.mark.parametrize("of_helper", [False, True])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_exception_reaches_the_caller_from_whoever_met_it_and_stops_the_others(of_helper, kind, monkeypatch):
    monkeypatch.setattr(sweeping, "threads", lambda: 2)
    both, caller, raised, done = threading.Barrier(2, timeout=30), threading.get_ident(), threading.Event(), []

    def work(piece):
        done.append(piece)
        both.wait()
        if (threading.get_ident() != caller) == of_helper:
            raised.set()
            raise kind("met")
        raised.wait(30)
        time.sleep(0.05)  # until the others have been called off

    with pytest.raises(kind, match="met"):
        sweeping.on_cores(work, range(100))
    assert sorted(done) == [0, 1]


def test_work_within_work_comes_to_an_end(parted, monkeypatch):
    few = ThreadPoolExecutor(2)
    monkeypatch.setattr(sweeping, "pool", lambda: few)
    done = []

    def outer(i):
        sweeping.on_cores(lambda j: sweeping.on_cores(lambda k: done.append((i, j, k)), range(3), j == 1), range(3))

    before = blas_threads()
    sweeping.on_cores(outer, range(5), products=True)
    assert sorted(done) == [(i, j, k) for i in range(5) for j in range(3) for k in range(3)]
    assert blas_threads() == before
    few.shutdown()


@parts_all
def test_a_pool_that_takes_no_more_work_leaves_it_to_the_caller(monkeypatch):
    closed = ThreadPoolExecutor(2)
    closed.shutdown()
    monkeypatch.setattr(sweeping, "pool", lambda: closed)
    done = []
    sweeping.on_cores(lambda piece: done.append((piece, threading.get_ident())), range(5))
    assert done == [(piece, threading.get_ident()) for piece in range(5)]


def test_one_system_serves_many_threads_at_once():
    x, a = normal(4, 16, 64, 64), normal(4, 16, seed=1)
    expected = ops.gate(x, a)[1](x)

    def compute(_):
        return ops.gate(x, a)[1](x)

    with patched("threads", lambda: 2), ThreadPoolExecutor(16) as callers:
        for found in callers.map(compute, range(64)):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


FORK = """
import os, threading, time, numpy as np
from npattn.ops import sweeping
sweeping.threads = lambda: 2
x = np.ones((4, 2**16))
sweeping.elementwise(np.add, x, x)
time.sleep(0.1)  # until the pool is idle
child = os.fork()
if not child:
    both = threading.Barrier(2, timeout=10)  # an error unless two are there at once
    sweeping.on_cores(lambda _: both.wait(), range(2))
    os._exit(0 if (sweeping.elementwise(np.add, x, x) == 2).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_has_threads_of_its_own():
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, capture_output=True, timeout=60)
    assert found.stdout == b"0\n"


MEMORY = """
import resource, sys, numpy as np
from npattn.ops import sweeping
if sys.argv[1] == "keep":
    sweeping.on_cores(lambda piece: None, range(2))

def fresh():
    for _ in range(20):
        maps = [np.ones(2**20, np.float32) for _ in range(5)]
        del maps

fresh()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fresh()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_memory_of_freed_maps_is_kept_for_the_next_ones():
    faults = [
        int(subprocess.run([sys.executable, "-c", MEMORY, how], check=True, capture_output=True, timeout=60).stdout)
        for how in ("keep", "return")
    ]
    assert 10 * faults[0] < faults[1]


# How many threads


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
def test_limits_that_users_set_are_kept(environment, limit, monkeypatch, four_cores):
    assert sweeping.read_limit(environment) == limit
    monkeypatch.setattr(sweeping, "LIMIT", limit)
    assert sweeping.threads() == min(limit, 3)


@linux
def test_cores_that_are_denied_are_not_used(monkeypatch):
    monkeypatch.setattr(sweeping, "LIMIT", sys.maxsize)
    allowed = os.sched_getaffinity(0)
    with sweeping.blas().limit(limits=3):
        assert sweeping.threads() == min(3, len(allowed))
        try:
            os.sched_setaffinity(0, {min(allowed)})
            assert sweeping.threads() == 1
        finally:
            os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("products", [False, True])
def test_nothing_runs_on_another_thread_under_a_limit_of_one(products, four_cores):
    def workers(patience):
        """Give helpers time to come: who works."""
        found, caller, helped = set(), threading.get_ident(), threading.Event()

        def work(_):
            found.add(threading.get_ident())
            if threading.get_ident() == caller:
                helped.wait(patience)
            else:
                helped.set()

        sweeping.on_cores(work, range(6), products)
        return found

    assert sweeping.threads() == 3
    with threadpool_limits(1):
        assert sweeping.threads() == 1
        assert workers(0.01) == {threading.get_ident()}
    assert sweeping.threads() == 3
    assert len(workers(30)) > 1


def test_a_limit_between_one_and_the_number_of_cores_is_kept(four_cores):
    for limit in (1, 2, 3):
        with threadpool_limits(limit):
            assert sweeping.threads() == limit
    with threadpool_limits(64):
        assert sweeping.threads() == 4


# BLAS


@pytest.mark.parametrize("fails", [False, True])
def test_blas_has_one_thread_while_products_run_on_several_and_then_as_many_as_before(fails, four_cores):
    seen = []

    def work(piece):
        seen.append(blas_threads())
        if fails and piece == 3:
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose") if fails else contextlib.nullcontext():
        sweeping.on_cores(work, range(6), products=True)
    assert seen
    assert all(threads == {1} for threads in seen)
    assert blas_threads() == {3}


def test_sweeps_leave_blas_alone(four_cores):
    seen = []
    sweeping.on_cores(lambda _: seen.append(blas_threads()), range(6))
    assert seen == [{3}] * 6


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_blas_gets_back_what_it_had_in_whatever_order_those_who_keep_it_leave(order, four_cores):
    keepers = [sweeping.blas_on_one_thread() for _ in order]
    for keeper in keepers:
        keeper.__enter__()
        assert blas_threads() == {1}
    for i in order:
        if keepers[0] is not None:  # the first to come is there to the end of his own work
            assert blas_threads() == {1}
        keepers[i] = keepers[i].__exit__(None, None, None) or None
    assert blas_threads() == {3}


def test_products_of_many_callers_at_once_leave_blas_as_it_was(four_cores):
    callers, seen = 6, []
    together = threading.Barrier(callers, timeout=30)

    def call(caller):
        together.wait()
        for _ in range(3):
            sweeping.on_cores(lambda _: time.sleep(0.0005 * caller) or seen.append(blas_threads()), range(4), True)

    with patched("threads", lambda: 2), ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(callers)))
    assert len(seen) == callers * 3 * 4
    assert seen.count({1}) >= 4  # all of the first's
    assert blas_threads() == {3}


@contextlib.contextmanager
def product():
    """Be within a product that another thread makes."""
    entered, leave = threading.Event(), threading.Event()
    work = threading.Thread(
        target=sweeping.on_cores, args=(lambda _: entered.set() or leave.wait(30), range(2)), kwargs={"products": True}
    )
    work.start()
    entered.wait(30)
    yield
    leave.set()
    work.join()


@pytest.mark.parametrize("way", [sweeping.blas_on_one_thread, product], ids=["keepers", "products"])
def test_blas_gets_back_what_it_had_whichever_thread_is_the_last_to_leave(way, four_cores):
    first_in, second_in, first_out, ended = (threading.Event() for _ in range(4))
    seen = []

    def first():
        with way():
            first_in.set()
            second_in.wait(30)
        first_out.set()
        ended.wait(30)  # alive: threadpoolctl may leave BLAS to it

    def second():
        first_in.wait(30)
        with way():
            seen.append(blas_threads())
            second_in.set()
            first_out.wait(30)
        seen.append(blas_threads())
        ended.set()

    with ThreadPoolExecutor(2) as pool:
        for caller in [pool.submit(task) for task in (first, second)]:
            caller.result()
    assert seen == [{1}, {3}]


def test_products_keep_blas_to_one_thread_whichever_thread_made_some_before(four_cores):
    seen = []

    def call():
        sweeping.on_cores(lambda _: seen.append(blas_threads()), range(2), products=True)

    call()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()
    call()
    assert seen == [{1}] * 6
    assert blas_threads() == {3}


@pytest.mark.parametrize("products", [False, True])
def test_products_come_one_after_the_other_where_no_blas_is_found(products, monkeypatch, four_cores):
    monkeypatch.setattr(sweeping, "blas", lambda: SimpleNamespace(lib_controllers=[], limit=refuse))
    assert sweeping.threads() == 4
    caller, done, helped = threading.get_ident(), [], threading.Event()

    def work(piece):
        done.append((piece, threading.get_ident()))
        if threading.get_ident() == caller:
            helped.wait(0.01 if products else 30)
        else:
            helped.set()

    sweeping.on_cores(work, range(6), products)
    assert (done == [(piece, caller) for piece in range(6)]) is products
    assert sorted(piece for piece, _ in done) == list(range(6))


@parts_all
def test_products_tell_that_they_are_products(monkeypatch):
    told = []

    def watch(work, pieces, products=False):
        told.append(products)
        for piece in pieces:
            work(piece)

    with patched("on_cores", watch):
        for primitive in PRODUCTS.values():
            for step in ("forward", "backward"):
                told.clear()
                if step == "forward":
                    value, backward = primitive(normal(6, 3, 5, 7), normal(6, 3, 5, 7, seed=1))
                else:
                    backward(value)
                assert True in told
        for primitive in SWEEPS.values():
            told.clear()
            primitive(normal(6, 3, 5, 7), normal(6, 3, 5, 7, seed=1))
            assert True not in told
        assert not products.multiply(normal(2, 0), normal(0, 3)).any()


# Cores


@linux
def test_the_system_tells_on_which_core_a_thread_runs():
    if sweeping.current_core() is None:
        pytest.skip("the system does not tell")
    allowed = os.sched_getaffinity(0)
    try:
        for core in allowed:
            os.sched_setaffinity(0, {core})
            assert sweeping.current_core()() == core
            assert sweeping.other_cores() == set()
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("core", [0, 2, 5])
def test_helpers_may_run_on_all_cores_but_the_callers(core, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    monkeypatch.setattr(sweeping, "current_core", lambda: lambda: core)
    assert sweeping.other_cores() == {0, 2, 5} - {core}


def watch_two(monkeypatch):
    """Work on two pieces at the same time, one on a helper: who was pinned to what before that."""
    monkeypatch.setattr(sweeping, "threads", lambda: 2)
    both, pinned, seen = threading.Barrier(2, timeout=30), [], {}
    monkeypatch.setattr(
        os,
        "sched_setaffinity",
        lambda process, cores: pinned.append((threading.get_ident(), process, cores)),
        raising=False,
    )

    def work(_):
        both.wait()
        seen[threading.get_ident()] = list(pinned)

    sweeping.on_cores(work, range(2))
    seen.pop(threading.get_ident())
    ((helper, calls),) = seen.items()
    return helper, calls


def test_a_helper_moves_to_the_other_cores_before_it_works_and_the_caller_stays(monkeypatch):
    monkeypatch.setattr(sweeping, "other_cores", lambda: {3, 4})
    helper, calls = watch_two(monkeypatch)
    assert calls == [(helper, 0, {3, 4})]


def test_nothing_is_pinned_where_the_system_does_not_tell_the_core(monkeypatch):
    monkeypatch.setattr(sweeping, "current_core", lambda: None)
    assert sweeping.other_cores() == set()
    assert watch_two(monkeypatch)[1] == []


def test_nothing_is_pinned_where_threads_cannot_be(monkeypatch):
    monkeypatch.setattr(sweeping, "current_core", lambda: lambda: 0)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert sweeping.other_cores() == set()


@linux
def test_helpers_run_elsewhere_and_the_caller_may_run_wherever_it_could(monkeypatch):
    if sweeping.current_core() is None or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core, or the system does not tell which")
    monkeypatch.setattr(sweeping, "threads", lambda: 2)
    allowed, both, seen = os.sched_getaffinity(0), threading.Barrier(2, timeout=30), {}
    chosen, other_cores = [], sweeping.other_cores
    monkeypatch.setattr(sweeping, "other_cores", lambda: chosen.append(other_cores()) or chosen[-1])

    def work(_):
        both.wait()
        seen[threading.get_ident()] = os.sched_getaffinity(0)

    sweeping.on_cores(work, range(2))
    assert seen.pop(threading.get_ident()) == os.sched_getaffinity(0) == allowed
    assert list(seen.values()) == chosen
    assert len(chosen[0]) == len(allowed) - 1
