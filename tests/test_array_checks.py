import numpy as np
import pytest

import npattn
from npattn.array_checks import check_array, check_gradient
from tests.naming import for_each


@for_each(
    ("value", "told"),
    [
        (np.ndarray, "is the class numpy.ndarray; expected an array"),
        (np.matrix, "is the class numpy.matrix; expected an array"),
        (np.ones((2, 3)).view(np.matrix), "is a numpy.matrix, whose * is a matrix product; expected a plain array"),
    ],
)
def test_what_only_looks_like_an_array_is_refused_as_input_parameter_and_gradient(value, told):
    module = npattn.CATALOGUE["eca"].example()
    params, x = module.init(), np.ones((1, 32, 3, 3))
    calls = {
        "a": lambda: check_array("call", "a", value, "b", np.ones(2)),
        f"{module}: x": lambda: module(params, value),
        f"{module}: parameter 'conv.weight'": lambda: module({"conv.weight": value}, x),
        f"{module}: dy": lambda: module(params, x).backward(value),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError) as caught:
            call()
        assert f"{name} {told}" in str(caught.value)


class Near(np.ndarray):
    """An array of another kind."""


class Far(np.ndarray):
    """One of a third."""


def test_an_array_goes_with_those_of_its_kind_and_with_what_its_kind_is_derived_from():
    plain, near, far = np.ones(2), np.ones(2).view(Near), np.ones(2).view(Far)
    for value, like in ((plain, np.ones(3)), (plain, near), (near, plain)):
        check_array("call", "a", value, "b", like)
    with pytest.raises(TypeError, match=r"^call: a is a .*Near but b is a .*Far; expected all on one device, in one"):
        check_array("call", "a", near, "b", far)


@for_each("dtype", [bool, np.uint8, ">i4", "<i4"])
def test_where_integers_count_those_of_any_byte_order_do(dtype):
    check_array("call", "mask", np.ones(2, dtype), "x", np.ones(2, np.float32), counts=True)
    with pytest.raises(TypeError, match=r"^call: mask has dtype .*; expected floating point"):
        check_array("call", "mask", np.ones(2, dtype), "x", np.ones(2, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_the_gradient_of_a_number_is_any_real_number_in_the_dtype_of_that(dtype):
    for number in (2, 2.0, np.float64(2), np.longdouble(2), np.uint8(2), np.float16(2)):
        gradient = check_gradient("call", "dp", number, "p", dtype(1))
        assert gradient == 2
        assert gradient.dtype == dtype


@for_each(
    ("gradient", "error", "told"),
    [
        ("2", TypeError, "dp='2' is a str; expected a number"),
        (None, TypeError, "dp=None is a NoneType; expected a number"),
        ([2.0], TypeError, "dp=[2.0] is a list; expected a number"),
        (True, TypeError, "dp=True is a bool; expected a number"),
        (2j, TypeError, "dp=2j is a complex; expected a number"),
        (np.complex128(2), TypeError, "dp has dtype complex128 but p has float64"),
        (np.bool_(1), TypeError, "dp has dtype bool; expected floating point"),
        (np.ones(3), ValueError, "dp has shape (3,); expected p's, ()"),
        (np.float32(2)[None], TypeError, "dp has dtype float32 but p has float64"),
    ],
)
def test_what_is_no_gradient_of_a_number_is_refused(gradient, error, told):
    with pytest.raises(error) as caught:
        check_gradient("call", "dp", gradient, "p", np.float64(1))
    assert str(caught.value).startswith(f"call: {told}")
