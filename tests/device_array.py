"""A strict stand-in for a GPU array: it refuses whatever CuPy would refuse, on a machine without a GPU."""

import functools
import inspect
import re
from types import EllipsisType, NoneType

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")
special = pytest.importorskip("cupyx.scipy.special")

DTYPES = "?bhilqBHILQefdFD"  # what CuPy stores: NumPy's numbers without longdouble
SCALARS = (bool, int, float, complex)
PLAIN = (*SCALARS, str, type, np.dtype, slice, EllipsisType, NoneType)
UFUNC_KEYWORDS = {"out", "dtype", "casting"}  # those of `cupy.ufunc`, which shows no signature


def refusal(reason):
    """Make a method that does nothing but refuse."""

    def method(self, *args, **kwargs):
        raise TypeError(f"DeviceArray: {reason}")

    return method


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that speaks NEP 13 and NEP 18 and nothing else, with CuPy's vocabulary."""

    __slots__ = ("_host",)

    def __init__(self, host):
        self._host = storable(np.array(host))

    def get(self):
        """Copy to the host."""
        return self._host.copy()

    __array__ = refusal("implicit conversion to a NumPy array is not allowed; .get() makes one")
    # CuPy has these, but each waits for the device in the middle of the mathematics.
    __bool__ = __int__ = __float__ = __complex__ = refusal("one number for the host makes it wait; np.where selects")
    item = tolist = tobytes = tofile = dump = dumps = refusal("reading values makes the host wait; .get() copies all")
    # CuPy has none: there `x @= y` binds x to a new array, and whoever else holds the old one never sees the product.
    __imatmul__ = refusal("CuPy has no @= that works in place; np.matmul(x, y, out=x) does")

    def __repr__(self):
        return f"DeviceArray({self._host!r})"

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        return to_device(self._host[to_host_index(index)])

    def __setitem__(self, index, value):
        self._host[to_host_index(index)] = operand(value)

    def __getattr__(self, name):
        # No name with underscores is passed on: __array_interface__ or __dlpack__ would hand out the host's memory.
        if name.startswith("_") or not hasattr(cupy.ndarray, name):
            raise AttributeError(f"cupy.ndarray has no attribute {name!r}")
        value = getattr(self._host, name)
        if callable(value):
            return functools.partial(call_method, value, name)
        if not isinstance(value, (np.ndarray, tuple, int, np.dtype, NoneType)):
            raise TypeError(f"DeviceArray: {name} tells of the host's memory, not of the device's")
        return to_device(value)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        # CuPy has the other methods for a few ufuncs only, and which ones shows when it is too late: on the GPU.
        if method != "__call__":
            raise TypeError(f"CuPy has no dependable {ufunc.__name__}.{method}; np.sum and its like serve every array")
        function = getattr(cupy, ufunc.__name__, None) or getattr(special, ufunc.__name__, None)
        if function is None:
            raise TypeError(f"CuPy has no {ufunc.__name__}")
        check_call(function, ufunc.__name__, inputs, kwargs)
        check_loop(function, ufunc.__name__, [operand(x) for x in inputs])
        return call(ufunc, inputs, kwargs)

    def __array_function__(self, func, types, args, kwargs):
        name = f"{func.__module__}.{func.__name__}"
        if not name.startswith("numpy."):
            return NotImplemented
        try:
            module = functools.reduce(getattr, func.__module__.split(".")[1:], cupy)
            function = getattr(module, func.__name__)
        except AttributeError:
            raise TypeError(f"CuPy has no {name}") from None
        if function is func:
            raise TypeError(f"CuPy has no {name} of its own")
        check_call(function, name, args, kwargs)
        return call(func, args, kwargs)


def call(function, args, kwargs):
    """Run NumPy's function on the arrays behind the device's, and wrap what it returns."""
    out = kwargs.get("out")
    if isinstance(out, tuple):
        if len(out) != 1:
            raise TypeError("CuPy takes exactly one array as out")
        (out,) = out
    result = function(*map(to_host, args), **{name: to_host(value) for name, value in kwargs.items()})
    return to_device(result) if out is None else out


def call_method(method, name, *args, **kwargs):
    """Run an array's method, if CuPy's takes these keywords: its docstring begins with the signature."""
    signature, *_ = getattr(cupy.ndarray, name).__doc__.splitlines()
    unknown = [keyword for keyword in kwargs if not re.search(rf"\b{keyword}\b", signature)]
    if unknown:
        raise TypeError(f"cupy.ndarray.{name} takes no {unknown[0]}")
    return call(method, args, kwargs)


def check_call(function, name, args, kwargs):
    """Refuse arguments that CuPy's function doesn't take."""
    signature = signature_of(function)
    if signature is None:
        unknown = sorted(kwargs.keys() - UFUNC_KEYWORDS)
        if unknown:
            raise TypeError(f"CuPy's {name} takes no {unknown[0]}")
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"CuPy's {name} can't be called so: {error}") from None


def check_loop(function, name, operands):
    """Refuse dtypes for which CuPy's ufunc has no loop; Python's numbers take the dtype of the arrays."""
    loops = [loop.partition("->")[0] for loop in getattr(function, "types", ())]
    loops = [loop for loop in loops if set(loop) <= set(np.typecodes["All"])]
    dtypes = [None if isinstance(x, SCALARS) and not isinstance(x, np.generic) else x.dtype for x in operands]
    fits = (all(d is None or np.can_cast(d, c) for d, c in zip(dtypes, loop, strict=True)) for loop in loops)
    if loops and not any(fits):
        raise TypeError(f"CuPy's {name} has no loop for {', '.join(str(d) for d in dtypes)}")


@functools.cache
def signature_of(function):
    """Return a CuPy function's signature, None where it shows none."""
    try:
        return inspect.signature(function)
    except ValueError:
        return None


def storable(value):
    """Refuse a NumPy array or scalar of a dtype that CuPy lacks."""
    if value.dtype.char not in DTYPES:
        raise TypeError(f"CuPy has no dtype {value.dtype}")
    return value


def to_device(result):
    """Wrap what NumPy returned, views as views of the same memory."""
    if isinstance(result, (np.ndarray, np.generic)):
        array = DeviceArray.__new__(DeviceArray)
        array._host = np.asarray(storable(result))
        return array
    if isinstance(result, (list, tuple)):
        return (list if isinstance(result, list) else tuple)(map(to_device, result))
    return result


def to_host(argument):
    """Unwrap an argument, however deeply nested, and refuse host arrays and all that might hold one."""
    if isinstance(argument, DeviceArray):
        return argument._host
    if isinstance(argument, np.generic):
        return storable(argument)
    if isinstance(argument, (list, tuple)):
        on_device = [isinstance(element, DeviceArray) for element in argument]
        if any(on_device) and not all(on_device):
            raise TypeError("a sequence of arrays mixes those on the device with others")
        return type(argument)(map(to_host, argument))
    if not isinstance(argument, PLAIN):
        raise TypeError(f"a {type(argument).__name__} can't be mixed with arrays on the device")
    return argument


def to_host_index(index):
    """Unwrap an index, whose tuple may mix arrays with slices."""
    return tuple(map(to_host, index)) if isinstance(index, tuple) else to_host(index)


def operand(value):
    """Unwrap one operand: an array on the device or a number, but no list."""
    if not isinstance(value, (DeviceArray, *SCALARS, np.generic)):
        raise TypeError(f"a {type(value).__name__} can't be an operand beside arrays on the device")
    return to_host(value)
