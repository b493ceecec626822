import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from npattn.fast import blas
from tests.fast.programs import run
from tests.naming import for_each

on_one_thread = pytest.mark.skipif(not blas.multiplies_on_one_thread(), reason="BLAS has no product on one thread")

SHAPES = {  # batch, rows, inner, columns: every way to multiply, and both sides of every bound
    "empty": ((2,), 3, 0, 4),
    "nothing": ((0,), 3, 2, 4),
    "one number": ((), 1, 1, 1),
    "small": ((3,), 40, 50, 60),
    "small vector": ((), 1, 95, 97),
    "vector": ((), 1, 2048, 128),
    "column": ((2,), 300, 700, 1),
    "long dot": ((), 1, 20001, 1),
    "large vector": ((), 1, 1500, 1501),
    "outer": ((), 1500, 1, 1501),
    "medium rows": ((2,), 200, 49, 32),
    "medium columns": ((), 7, 101, 701),
    "few rows of many": ((), 3, 70001, 3),
    "a few more rows": ((), 8, 12000, 8),
    "not yet large": ((), 100, 100, 100),
    "just large": ((), 101, 100, 100),
    "large": ((2, 2), 130, 257, 131),
    "two rows": ((), 2, 40000, 17),
    "deep": ((), 128, 4096, 128),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
LAYOUTS = {
    "rows": lambda x: x,
    "columns": lambda x: np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2),
    "cut": lambda x: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(2, 3)])[..., 2:-3],
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "images behind": lambda x: np.moveaxis(np.stack([x, x], -1), -1, 0)[0],
    "images backwards": lambda x: x[::-1].copy()[::-1] if x.ndim > 2 else x,
    "repeated": lambda x: np.broadcast_to(x[..., :1, :], x.shape) if x.size else x,
}


def draw(shape, dtype, seed=0):
    batch, rows, inner, columns = shape
    random = np.random.RandomState(seed)
    a, b = random.standard_normal((*batch, rows, inner)), random.standard_normal((*batch, inner, columns))
    return a.astype(dtype), b.astype(dtype)


def product(a, b):
    return blas.multiply(a, b, np.full((*a.shape[:-1], b.shape[-1]), np.nan, a.dtype))


def judge(found, a, b):
    """Hold a product to the error that a sum of so many terms may have."""
    expected = a.astype(np.longdouble) @ b.astype(np.longdouble)
    scale = np.abs(a).astype(np.longdouble) @ np.abs(b).astype(np.longdouble)
    assert (np.abs(found - expected) <= 4 * np.sqrt(a.shape[-1] + 1) * np.finfo(a.dtype).eps * scale).all()


@shapes
@for_each("dtype", [np.float32, np.float64])
def test_a_product_is_the_product(shape, dtype):
    a, b = draw(shape, dtype)
    if a.size * b.shape[-1] < 2 * 10**6:
        judge(product(a, b), a, b)
    np.testing.assert_allclose(product(a, b), a.astype(float) @ b, rtol=0, atol=a.shape[-1] * np.finfo(dtype).eps * 9)


@pytest.mark.parametrize("shape", [SHAPES["medium rows"], SHAPES["just large"], SHAPES["large"], SHAPES["vector"]])
@pytest.mark.parametrize("first", LAYOUTS)
def test_a_product_does_not_mind_layouts(shape, first):
    left, right = draw(shape, np.float64)
    a = LAYOUTS[first](left)
    for second, lay_out in LAYOUTS.items():
        b = lay_out(right)
        out = (LAYOUTS["rows"] if second == "repeated" else lay_out)(np.full((*a.shape[:-1], b.shape[-1]), np.nan))
        assert blas.multiply(a, b, out) is out
        np.testing.assert_allclose(out, a @ b, rtol=0, atol=1e-12)


@on_one_thread
@shapes
@for_each("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_the_threads_of_blas(shape, dtype):
    a, b = draw(shape, dtype)
    found = []
    for count in (1, 2, 3, 4):
        with threadpool_limits(count):
            found.append(product(a, b))
    for others in found[1:]:
        np.testing.assert_array_equal(found[0], others)


@on_one_thread
@pytest.mark.parametrize("rows", [2, 20, 40, 101, 250])
def test_bits_of_a_matrix_times_its_own_transpose_do_not_depend_on_the_threads_of_blas(rows):
    a = draw(((), rows, 257, 1), np.float32)[0]
    found = []
    for count in (1, 2, 4):
        with threadpool_limits(count):
            found.append(product(a, a.T))
    judge(found[0], a, a.T)
    for others in found[1:]:
        np.testing.assert_array_equal(found[0], others)


@given(
    batch=st.lists(st.integers(1, 3), max_size=1),
    sizes=st.tuples(*[st.integers(1, 2000)] * 3),
    transposed=st.booleans(),
)
@example(batch=[], sizes=(8, 12000, 8), transposed=False)
@example(batch=[], sizes=(9, 12345, 9), transposed=False)
@example(batch=[], sizes=(20, 100, 20), transposed=True)
@example(batch=[], sizes=(100, 1000, 10), transposed=False)
def test_every_way_to_multiply_is_taken_within_its_bounds(batch, sizes, transposed):
    rows, inner, columns = sizes
    a, out = np.zeros((*batch, rows, inner)), np.empty((*batch, rows, rows if transposed else columns))
    b = a.swapaxes(-1, -2) if transposed else np.zeros((*batch, inner, columns))

    def numpy_takes_one_thread(a, b, out):
        few, many = sorted((a.shape[-2], b.shape[-1]))
        multiplications = few * many * a.shape[-1]
        assert multiplications <= (9215 if few == 1 else 2**18) or a.shape[-1] == 1
        assert few < many or a.shape[-1] == 1 or not np.may_share_memory(a, b)

    def batch_is_large_enough(a, b, out):
        assert a[..., :, 0].size * a.shape[-1] * b.shape[-1] > 10**6 * out[..., 0, 0].size
        assert min(*a.shape[-2:], *b.shape[-2:]) > 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "matmul", numpy_takes_one_thread)
        patch.setattr(np, "einsum", lambda *_, out: None)
        patch.setattr(blas, "gemm_of", lambda dtype: batch_is_large_enough)
        blas.multiply(a, b, out)


@on_one_thread
@pytest.mark.parametrize("shape", [SHAPES["deep"], SHAPES["medium rows"], SHAPES["vector"], ((), 250, 257, 250)])
def test_a_product_takes_the_calling_thread_alone(shape):
    a, b = draw(shape, np.float64)
    others = []
    with threadpool_limits(2):
        time.sleep(0.1)  # until BLAS's threads are at rest
        for _ in range(3):
            everywhere, here = time.process_time(), time.thread_time()
            until = here + 0.03
            while time.thread_time() < until:
                product(a, b)
            others.append((time.process_time() - everywhere) - (time.thread_time() - here))
    assert min(others) < 0.005


@for_each("kind", [np.float16, np.longdouble, complex, ">f4", int])
def test_other_numbers_are_left_to_numpy(kind):
    a, b = (np.round(9 * m).astype(kind) for m in draw(((2,), 60, 170, 100), float))
    np.testing.assert_array_equal(product(a, b) if kind is not int else blas.multiply(a, b, a @ b), a @ b)


def test_mixed_numbers_are_left_to_numpy():
    a, b = draw(SHAPES["just large"], np.float32)
    out = np.empty((101, 100))
    np.testing.assert_array_equal(blas.multiply(a, b.astype(float), out), a @ b.astype(float))
    assert out.dtype == float


def test_infinities_and_nan_go_where_they_belong():
    a, b = draw(SHAPES["large"], np.float32)
    a[0, 0, 5, 7], b[1, 0, 3, 2] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(product(a, b), a @ b, rtol=1e-4, atol=1e-4)


def test_a_result_that_may_not_be_written_to_is_refused():
    a, b = draw(SHAPES["just large"], np.float32)
    out = np.zeros((101, 100), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        blas.multiply(a, b, out)
    assert not out.any()


@for_each(
    ("a", "b", "out"),
    [
        ((200, 100), (101, 100), (200, 100)),
        ((200, 100), (100, 100), (200, 99)),
        ((200, 100), (100, 100), (201, 100)),
        ((3, 200, 100), (100, 100), (3, 200, 100)),
        ((200, 100), (100, 100), (3, 200, 100)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(a, b, out):
    with pytest.raises(ValueError, match=r"a, b and out must be .* got"):
        blas.multiply(np.ones(a), np.ones(b), np.ones(out))


def fake_controllers():
    return [
        SimpleNamespace(internal_api=api, filepath=path, dynlib=path, num_threads=count)
        for api, path, count in (("mkl", "mkl", 2), ("openblas", "scipy.libs/x", 1), ("openblas", "numpy.libs/x", 3))
    ]


def test_numpys_own_openblas_comes_first(monkeypatch):
    monkeypatch.setattr(blas, "controllers", fake_controllers)
    assert blas.openblas() == ["numpy.libs/x", "scipy.libs/x"]


def test_the_number_of_threads_is_that_of_the_library_that_has_most(monkeypatch):
    monkeypatch.setattr(blas, "controllers", fake_controllers)
    assert blas.num_threads(default=7) == 3
    monkeypatch.setattr(blas, "controllers", list)
    assert blas.num_threads(default=7) == 7


def test_without_openblas_products_are_numpys(monkeypatch):
    monkeypatch.setattr(blas, "gemm_of", lambda dtype: None)
    assert not blas.multiplies_on_one_thread()
    for shape in SHAPES.values():
        a, b = draw(shape, np.float32)
        np.testing.assert_array_equal(product(a, b), np.matmul(a, b, out=np.empty((*a.shape[:-1], b.shape[-1]), "f4")))


# Forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_no_process_is_forked_while_another_thread_multiplies(monkeypatch):
    entered, leave, seen = threading.Event(), threading.Event(), []

    def linger(a, b, out):
        entered.set()
        leave.wait(300)
        seen.append("multiplied")

    monkeypatch.setattr(blas, "choose_product", linger)
    matrix = np.ones((1, 1))
    worker = threading.Thread(target=blas.multiply, args=(matrix, matrix, matrix))
    worker.start()
    entered.wait(300)
    threading.Timer(0.05, leave.set).start()
    blas.wait_for_products()
    assert seen == ["multiplied"]
    second = threading.Thread(target=blas.multiply, args=(matrix, matrix, matrix))
    second.start()
    time.sleep(0.02)
    assert seen == ["multiplied"]  # nobody begins while a process is being forked
    blas.FORKING.pop()
    second.join(300)
    worker.join(300)
    assert seen == ["multiplied"] * 2
    assert not blas.MULTIPLYING


FORK = """
import sys
import numpy as np
from threadpoolctl import threadpool_limits
from npattn.fast import blas
from tests.fast.programs import fork_beside

random = np.random.RandomState(0)
a, b = random.standard_normal((2, 120, 120))

def product():
    return blas.multiply(a, b, np.empty_like(a))

expected = product()

def is_right():
    return all((product() == expected).all() for _ in range(3)) and np.allclose(a @ b, expected)

with threadpool_limits(2):
    print(fork_beside(product, is_right, seconds=float(sys.argv[1]), at_once=4))  # as a pool of processes is started
"""


@on_one_thread  # an older OpenBLAS starts threads for it, and hangs now and then when they are stopped by a fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_processes_forked_while_others_multiply_can_multiply():
    (forked,) = run(FORK, 1)
    assert int(forked) > 3


@shapes
@for_each("dtype", [np.float32, np.float64])
@for_each("layout", ["rows", "columns", "every other"])
def test_a_product_is_added_to_what_is_there(shape, dtype, layout):
    a, b = draw(shape, dtype)
    asked = []

    def memory(size):
        asked.append(size)
        return np.full(size, np.nan, dtype)

    for room in (None, memory):
        out = LAYOUTS[layout](np.full((*a.shape[:-1], b.shape[-1]), 3, dtype))
        assert blas.add_product(a, b, out, room) is out
        np.testing.assert_allclose(out - 3, product(a, b), rtol=0, atol=(a.shape[-1] + 3) * np.finfo(dtype).eps * 9)
    assert asked in ([], [out.shape])
