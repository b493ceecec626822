"""The stand-in for a GPU array is strict, else what runs on it would prove nothing about a GPU."""

import inspect
import math
import operator

import numpy as np
import pytest
import scipy.special

from npattn.module import as_tuple
from tests.device_array import DeviceArray, cupy, special
from tests.naming import for_each

HOST = np.array([[0.5, 0.25, 0.125], [0.75, 1.0, 0.0625]])
UFUNCS = {name: ufunc for name, ufunc in vars(np).items() if isinstance(ufunc, np.ufunc)}
ARRAY_FUNCTIONS = {
    f"{module.__name__}.{name}": function
    for module in (np, np.linalg, np.fft)
    for name, function in vars(module).items()
    if hasattr(function, "__wrapped__") and not name.startswith("_")
}


@pytest.fixture
def d():
    return DeviceArray(HOST)


def source(function):
    """Name a case by what it does."""
    if function.__name__ != "<lambda>":
        return function.__name__
    return inspect.getsource(function).strip().rstrip(",").partition(": ")[2]


def in_cupy(path):
    """Return the function that stands in CuPy where NumPy's stands in NumPy, None where there is none."""
    try:
        return operator.attrgetter(path.partition(".")[2])(cupy)
    except AttributeError:
        return None


def test_get_hands_out_a_copy_and_construction_takes_one():
    host = HOST.copy()
    d = DeviceArray(host)
    host[:] = 0
    d.get()[:] = 0
    assert np.array_equal(d.get(), HOST)


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        np.array,
        np.ascontiguousarray,
        memoryview,
        bytes,
        lambda d: np.array([d, d]),
        lambda d: np.asarray(d, dtype=float),
        lambda d: np.full(3, d[0, 0]),
        lambda d: HOST[d > 0],
        lambda d: HOST[d[0, 0].astype(int)],
        lambda d: operator.setitem(HOST.copy(), ..., d),
        lambda d: np.ndarray.__iadd__(HOST.copy(), d),
    ],
    ids=source,
)
def test_implicit_conversion_to_numpy_is_refused(d, convert):
    with pytest.raises(TypeError):
        convert(d)


@pytest.mark.parametrize("name", ["interface", "struct", "priority", "wrap", "finalize", "namespace"])
def test_no_protocol_but_the_two_for_dispatch_hands_out_host_memory(d, name):
    assert not hasattr(d, f"__array_{name}__")


@pytest.mark.parametrize("name", ["__cuda_array_interface__", "__dlpack__", "__buffer__", "__index__", "__contains__"])
def test_no_other_door_stands_open(d, name):
    assert not hasattr(d, name)


@pytest.mark.parametrize(
    "wait",
    [
        bool,
        int,
        float,
        complex,
        round,
        math.sqrt,
        range,
        DeviceArray.item,
        DeviceArray.tolist,
        DeviceArray.tobytes,
        lambda d: 1.0 in d,
        lambda d: [1, 2, 3][d],
        lambda d: max(d, 1.0),
        lambda d: 1 if d > 0 else 0,
    ],
    ids=source,
)
def test_what_makes_the_host_wait_for_the_device_is_refused(d, wait):
    for x in (d[0, 0], d[:1, :1], d):
        with pytest.raises(TypeError):
            wait(x)


def test_iteration_gives_arrays_on_the_device(d):
    assert len(d) == 2
    assert all(isinstance(row, DeviceArray) and isinstance(x, DeviceArray) for row in d for x in row)


@for_each(
    "mix",
    [
        lambda d, h: d + h,
        lambda d, h: h + d,
        lambda d, h: h == d,
        lambda d, h: d @ h.T,
        lambda d, h: h @ d.T,
        lambda d, h: d + h.tolist(),
        lambda d, h: h.tolist() + d,
        lambda d, h: d * np.array(2.0),
        lambda d, h: d * h.view(np.matrix),
        lambda d, h: d * np.ma.array(h),
        operator.iadd,
        lambda d, h: operator.iadd(h, d),
        lambda d, h: np.add(d, d, out=h),
        lambda d, h: np.add(h, h, out=d),
        lambda d, h: np.add(d, d, h),
        scipy.special.xlogy,
        lambda d, h: np.mean(d, axis=0, out=h[0]),
        lambda d, h: np.mean(h, axis=0, out=d[0]),
        lambda d, h: d.sum(axis=0, out=h[0]),
        lambda d, h: np.where(d > 0, h, 0),
        lambda d, h: np.where(h > 0, d, 0),
        lambda d, h: np.einsum("ij,ij", d, h),
        lambda d, h: np.stack([d, h]),
        lambda d, h: np.concatenate((h, d)),
        lambda d, h: np.concatenate([d, h.tolist()]),
        lambda d, h: np.stack([d[0, 0], 1.0]),
        np.copyto,
        lambda d, h: np.take(d, np.array([0])),
        lambda d, h: np.take_along_axis(d, np.zeros((1, 3), int), 0),
        lambda d, h: np.pad(d, np.ones((2, 2), int)),
        lambda d, h: d[np.array([0])],
        lambda d, h: d[h > 0],
        lambda d, h: d[:, np.array([0])],
        lambda d, h: operator.setitem(d, ..., h),
        lambda d, h: operator.setitem(d, 0, h[0].tolist()),
        lambda d, h: operator.setitem(d, h > 0, 1.0),
        lambda d, h: d.dot(h.T),
        lambda d, h: d.clip(h, None),
        lambda d, h: d.take(indices=np.array([0])),
    ],
)
def test_mixing_with_host_arrays_is_refused(d, mix):
    with pytest.raises(TypeError):
        mix(d, HOST.copy())
    assert np.array_equal(d.get(), HOST)


@pytest.mark.parametrize("scalar", [2, 0.5, True, 1j, np.float64(0.5), np.float32(0.5), np.int64(3), np.True_])
def test_numbers_of_python_and_numpy_mix_and_promote_as_on_the_host(d, scalar):
    single = d.astype(np.float32)
    for x, h in ((d, HOST), (single, HOST.astype(np.float32))):
        for op in (operator.add, operator.mul, operator.truediv):
            assert op(x, scalar).get().tobytes() == op(h, scalar).tobytes()
            assert op(scalar, x + 1).get().tobytes() == op(scalar, h + 1).tobytes()
            assert op(x, scalar).dtype == op(h, scalar).dtype


@pytest.mark.parametrize("name", sorted(name for name in UFUNCS if not hasattr(cupy, name)))
def test_every_numpy_ufunc_that_cupy_lacks_is_refused(d, name):
    with pytest.raises(TypeError, match="CuPy has no"):
        UFUNCS[name](*[d] * UFUNCS[name].nin)


def test_every_numpy_ufunc_that_cupy_has_gives_numpys_bits(d):
    run = 0
    for name, ufunc in UFUNCS.items():
        loops = getattr(getattr(cupy, name, None), "types", ())
        if any(loop.startswith("d" * ufunc.nin + "->") for loop in loops):
            with np.errstate(all="ignore"):  # arccosh, say, of numbers below 1
                found, expected = ufunc(*[d] * ufunc.nin), ufunc(*[HOST] * ufunc.nin)
            for y, h in zip(as_tuple(found), as_tuple(expected), strict=True):
                assert y.get().tobytes() == h.tobytes()
            run += 1
    assert run > 50


def test_every_array_function_that_cupy_lacks_is_refused(d):
    absent = {name: f for name, f in ARRAY_FUNCTIONS.items() if in_cupy(name) in (None, f)}
    for function in absent.values():
        with pytest.raises(TypeError, match="CuPy has no"):
            d.__array_function__(function, (DeviceArray,), (d,), {})
    assert {"numpy.insert", "numpy.linalg.vector_norm", "numpy.printoptions"} <= absent.keys()


@pytest.mark.parametrize(("name", "arguments"), [("vecdot", 2), ("matvec", 2), ("vecmat", 2), ("unstack", 1)])
def test_functions_that_numpy_2_added_and_cupy_14_lacks_are_refused(d, name, arguments):
    if hasattr(cupy, name) or not hasattr(np, name):
        pytest.skip(f"{name} is in this CuPy, or not yet in this NumPy")
    with pytest.raises(TypeError, match=f"CuPy has no .*{name}"):
        getattr(np, name)(*[d] * arguments)


def test_special_functions_are_looked_up_in_cupyx(d):
    assert not hasattr(cupy, "expit")
    assert scipy.special.expit(d).get().tobytes() == scipy.special.expit(HOST).tobytes()
    absent = {
        name: ufunc
        for name, ufunc in vars(scipy.special).items()
        if isinstance(ufunc, np.ufunc) and not (hasattr(special, name) or hasattr(cupy, name))
    }
    assert "airy" in absent
    for ufunc in absent.values():
        with pytest.raises(TypeError, match="CuPy has no"):
            ufunc(*[d] * ufunc.nin)


def test_dtypes_for_which_cupy_has_no_loop_are_refused(d):
    assert np.iscomplexobj(scipy.special.erf(HOST + 0j))
    with pytest.raises(TypeError, match="no loop"):
        scipy.special.erf(d + 0j)


@pytest.mark.parametrize(
    "keyword",
    [
        lambda d: np.mean(d, where=d > 0),
        lambda d: np.sum(d, initial=1.0),
        lambda d: np.max(d, initial=1.0),
        lambda d: np.add(d, d, where=d > 0),
        lambda d: np.exp(d, order="F"),
        lambda d: np.exp(d, subok=False),
        lambda d: scipy.special.expit(d, where=True),
        lambda d: np.sort(d, stable=True),
        lambda d: np.sinc(d, None),
        lambda d: d.mean(where=d > 0),
        lambda d: d.sum(initial=1.0),
        lambda d: d.sort(stable=True),
    ],
    ids=source,
)
def test_arguments_that_cupy_does_not_take_are_refused(d, keyword):
    with pytest.raises(TypeError):
        keyword(d)


@pytest.mark.parametrize(
    "method",
    [
        np.add.reduce,
        lambda d: np.maximum.reduce(d, axis=1),
        np.add.accumulate,
        lambda d: np.add.reduceat(d, [0, 1]),
        lambda d: np.multiply.outer(d, d),
        lambda d: np.add.at(d, 0, 1.0),
    ],
    ids=source,
)
def test_methods_of_ufuncs_are_refused(d, method):
    with pytest.raises(TypeError, match="CuPy has no dependable"):
        method(d)


@pytest.mark.skipif(np.dtype(np.longdouble) == np.float64, reason="longdouble is float64 here")
@pytest.mark.parametrize(
    "make",
    [
        lambda d: DeviceArray(HOST.astype(np.longdouble)),
        lambda d: d.astype(np.longdouble),
        lambda d: d.astype("clongdouble"),
        lambda d: np.add(d, d, dtype=np.longdouble),
        lambda d: np.sum(d, dtype=np.longdouble),
        lambda d: d.mean(dtype=np.longdouble),
        lambda d: np.zeros_like(d, dtype=np.longdouble),
        lambda d: d * np.longdouble(2),
        lambda d: np.where(d > 0, np.longdouble(0), d),
    ],
    ids=source,
)
def test_longdouble_is_refused(d, make):
    with pytest.raises(TypeError, match="no dtype"):
        make(d)


@for_each("dtype", ["O", "U3", "S3", "M8[s]", "m8[s]"])
def test_what_is_no_number_is_refused(dtype):
    with pytest.raises(TypeError, match="no dtype"):
        DeviceArray(np.zeros(3, dtype=dtype))


def test_an_array_has_only_what_cupys_has(d):
    extra = [name for name in dir(np.ndarray) if not (name.startswith("_") or hasattr(cupy.ndarray, name))]
    assert {"resize", "setflags", "ctypes"} <= set(extra)
    assert [name for name in extra if hasattr(d, name)] == []
    foreign = [name for name in dir(DeviceArray) if not (name.startswith("_") or hasattr(cupy.ndarray, name))]
    assert foreign == []


def test_every_operator_is_cupys_or_refused(d):
    extra = {name for name in dir(np.lib.mixins.NDArrayOperatorsMixin) if not hasattr(cupy.ndarray, name)}
    assert {name for name in extra if hasattr(np.ndarray, name)} <= {"__imatmul__"}
    square = d[:, :2].copy()
    with pytest.raises(TypeError, match="@="):
        square @= square


@pytest.mark.parametrize("name", ["flags", "data", "flat", "device"])
def test_attributes_that_tell_of_the_host_are_refused(d, name):
    with pytest.raises(TypeError, match="host"):
        getattr(d, name)


@pytest.mark.parametrize("name", ["shape", "dtype", "ndim", "size", "strides", "itemsize", "nbytes"])
def test_attributes_that_describe_the_array_are_the_hosts(d, name):
    assert getattr(d, name) == getattr(HOST, name)


@for_each(
    "f",
    [
        lambda x: x.T,
        lambda x: (x + 1j).real,
        lambda x: (x + 1j).imag,
        lambda x: x.reshape(3, 2),
        lambda x: x.reshape((-1,), order="F"),
        lambda x: x.sum(axis=(0, 1), keepdims=True),
        lambda x: x.sum(),
        lambda x: x.mean(1),
        lambda x: x.astype(np.float32),
        lambda x: x.transpose(1, 0),
        lambda x: x.argmax(axis=1),
        lambda x: x[x > 0.2],
        lambda x: x[x.argmax(axis=1), 0],
        lambda x: x[None, ..., ::-1],
        lambda x: x @ x.T,
        lambda x: 2 - x,
        lambda x: -(x**2),
        lambda x: np.float64(2) * x,
        np.mean,
        lambda x: np.where(x > 0.2, x, 0),
        lambda x: np.stack([x, x], axis=-1),
        lambda x: np.split(x, 3, axis=1)[1],
        lambda x: np.broadcast_arrays(x, x[:1])[1],
        lambda x: np.einsum("ij,kj->ik", x, x),
        lambda x: np.empty_like(x, shape=(0, 2)),
        lambda x: np.zeros(3, like=x),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, axis=1),
        lambda x: np.linalg.svd(x, compute_uv=False),
        lambda x: x.copy(),
    ],
)
def test_what_cupy_has_gives_the_hosts_bits_on_the_device(d, f):
    found, expected = f(d), f(HOST)
    assert isinstance(found, DeviceArray)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.get().tobytes() == expected.tobytes()


@pytest.mark.parametrize("op", [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow])
def test_in_place_operators_write_into_the_array_itself(d, op):
    view = d[0]
    assert op(d, 2.0) is d
    assert np.array_equal(view.get(), op(HOST.copy(), 2.0)[0])
    assert op(d, d + 1) is d


def test_writing_through_a_view_or_out_reaches_the_array(d):
    d.T[0] = 7
    assert np.array_equal(d.get()[:, 0], [7, 7])
    d[:, 1] = d[:, 2]
    assert np.array_equal(d.get()[:, 1], HOST[:, 2])
    assert np.exp(d, out=d) is d
    row = d[1]
    assert np.sum(d, axis=0, out=row) is row


def test_out_takes_one_array(d):
    with pytest.raises(TypeError, match="exactly one"):
        np.divmod(d, d, out=(d.copy(), d.copy()))
