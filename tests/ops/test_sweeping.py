import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import ops
from npattn.ops import sweeping
from tests.ops.primitives import normal
from tests.strategies import arrange, layouts, seeds, sizes


@pytest.fixture
def parted(monkeypatch):
    """Sweep the smallest maps image by image, on four threads."""
    monkeypatch.setattr(sweeping, "ENOUGH", 0)
    monkeypatch.setattr(sweeping, "threads", lambda: 4)


parts_all = pytest.mark.usefixtures("parted")


class Other(np.ndarray):
    """Another kind of array."""


@parts_all
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [(5, 3, 4, 2), (5, 3, 1, 1), (5, 1, 4, 2), (1, 3, 4, 2), (1, 1, 1, 1)])
def test_elementwise_is_the_ufunc(spread, dtype):
    x, a = normal(5, 3, 4, 2).astype(dtype), normal(*spread, seed=1).astype(dtype)
    y = sweeping.elementwise(np.multiply, x, a)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x * a)
    z = x.copy()
    assert sweeping.elementwise(np.add, z, a, out=z) is z
    np.testing.assert_array_equal(z, x + a)


@parts_all
def test_images_are_kept_apart_and_in_order():
    x, y = normal(7, 3, 4), normal(7, 3, 4, seed=1)
    found = sweeping.by_images(partial(np.einsum, "abc,abc->ab"), x, y)
    np.testing.assert_allclose(found, (x * y).sum(axis=2), rtol=1e-14)


@parts_all
@given(st.tuples(sizes, sizes, sizes, sizes), st.sampled_from([1, 2, 3, (2, 3), (1, 3)]), layouts, seeds)
def test_average_is_the_mean_in_every_layout(shape, axis, layout, seed):
    x = arrange(normal(*shape, seed=seed), layout)
    np.testing.assert_allclose(sweeping.average(x, axis), x.mean(axis=axis, keepdims=True), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("shape", [(1, 64, 56, 56), (1, 64, 1, 4096), (1, 1, 1, 10**6), (1, 1, 10**6, 1)])
def test_an_average_of_many_keeps_its_digits(shape):
    x = np.random.RandomState(0).uniform(0, 1, shape).astype(np.float32)
    np.testing.assert_allclose(sweeping.average(x, (2, 3)), x.astype(float).mean(axis=(2, 3), keepdims=True), rtol=5e-7)


@parts_all
@pytest.mark.parametrize(
    "primitive",
    [
        lambda x, a: ops.gate(x, a[:, :, 0, 0]),
        lambda x, a: ops.gate(x, a[:, :1]),
        lambda x, a: ops.gate(x, a[:1]),
        lambda x, _: ops.global_average_pool(x),
        lambda x, _: ops.global_max_pool(x),
        lambda x, _: ops.average_pool(x, axis=1),
    ],
)
def test_bits_do_not_depend_on_the_number_of_threads(primitive, monkeypatch):
    x, a = normal(6, 3, 5, 7).astype(np.float32), normal(6, 3, 5, 7, seed=1).astype(np.float32)
    found = []
    for count in (1, 2, 3, 8):
        monkeypatch.setattr(sweeping, "threads", lambda count=count: count)
        value, backward = primitive(x, a)
        gradients = backward(value)
        found.append([value, *(gradients if isinstance(gradients, tuple) else [gradients])])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@parts_all
@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, complex])
def test_other_numbers_take_the_plain_way(dtype, monkeypatch):
    monkeypatch.setattr(sweeping, "on_cores", None)
    x = normal(3, 2, 4, 5).astype(dtype)
    np.testing.assert_array_equal(sweeping.elementwise(np.multiply, x, x), x * x)
    np.testing.assert_array_equal(sweeping.average(x, (2, 3)), x.mean(axis=(2, 3), keepdims=True))
    y, _ = ops.gate(normal(3, 2, 4, 5), x)
    assert y.dtype == np.result_type(float, dtype)


@parts_all
def test_other_kinds_of_array_take_the_plain_way(monkeypatch):
    monkeypatch.setattr(sweeping, "on_cores", None)
    x = normal(3, 2, 4, 5).view(Other)
    for found in (
        sweeping.elementwise(np.multiply, x, x),
        sweeping.elementwise(np.multiply, np.asarray(x), x),
        sweeping.by_images(lambda x: x, x),
        sweeping.average(x, 1),
    ):
        assert type(found) is Other


def test_small_maps_and_single_images_take_the_plain_way(monkeypatch):
    monkeypatch.setattr(sweeping, "on_cores", None)
    for shape in ((2, 3, 4, 5), (1, 8, 256, 256)):
        x = normal(*shape)
        np.testing.assert_array_equal(sweeping.elementwise(np.multiply, x, x), x * x)


def test_large_maps_are_swept_on_several_threads(monkeypatch):
    monkeypatch.setattr(sweeping, "threads", lambda: 2)
    both = threading.Barrier(2, timeout=30)  # an error unless two are there at once

    def meet(x):
        both.wait()
        return x[:, :1]

    assert sweeping.by_images(meet, np.ones((2, 2**17))).shape == (2, 1)


def test_the_callers_settings_hold_on_all_threads(parted):
    x = np.zeros((8, 4))
    with np.errstate(divide="ignore"):
        sweeping.elementwise(np.divide, x + 1, x)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        sweeping.elementwise(np.divide, x + 1, x)


@pytest.mark.parametrize("bad", range(6))
def test_an_exception_is_raised_once_all_have_stopped(bad, parted):
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
        sweeping.on_cores(work, range(6))
    assert not running


def test_work_within_work_comes_to_an_end(parted, monkeypatch):
    few = ThreadPoolExecutor(2)
    monkeypatch.setattr(sweeping, "pool", lambda: few)
    done = []

    def outer(i):
        sweeping.on_cores(lambda j: sweeping.on_cores(lambda k: done.append((i, j, k)), range(3)), range(3))

    sweeping.on_cores(outer, range(5))
    assert sorted(done) == [(i, j, k) for i in range(5) for j in range(3) for k in range(3)]


def test_one_system_serves_many_threads_at_once():
    x, a = normal(4, 16, 64, 64), normal(4, 16, seed=1)
    expected = ops.gate(x, a)[1](x)

    def compute(_):
        return ops.gate(x, a)[1](x)

    with ThreadPoolExecutor(16) as callers:
        for found in callers.map(compute, range(64)):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


FORK = """
import os, numpy as np
from npattn.ops import sweeping
sweeping.threads = lambda: 2
x = np.ones((4, 2**16))
sweeping.elementwise(np.add, x, x)
child = os.fork()
if not child:
    os._exit(0 if (sweeping.elementwise(np.add, x, x) == 2).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_has_threads_of_its_own():
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, capture_output=True, timeout=60)
    assert found.stdout == b"0\n"


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
def test_limits_that_users_set_are_kept(environment, limit, monkeypatch):
    assert sweeping.read_limit(environment) == limit
    monkeypatch.setattr(sweeping, "LIMIT", 1)
    assert sweeping.threads() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind processes to cores")
def test_cores_that_are_denied_are_not_used():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert sweeping.threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)
