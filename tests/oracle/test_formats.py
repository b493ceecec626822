import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn.oracle.formats import FLOAT64, FORMATS, find_format, representable, ulp
from tests.naming import for_each

every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
numbers = st.floats(width=64, allow_nan=False, allow_infinity=False) | st.floats(-1e6, 1e6) | st.floats(-1e-4, 1e-4)
TORCH = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float32": "float32",
    "float8_e4m3": "float8_e4m3fn",
    "float8_e5m2": "float8_e5m2",
}


@pytest.mark.parametrize("name", TORCH)
@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_numbers_are_those_of_pytorch(name, values):
    torch = pytest.importorskip("torch")
    values = np.array(values)
    format = FORMATS[name]
    if format.saturates:
        values = values[np.abs(values) <= format.largest]
    expected = torch.tensor(values, dtype=torch.float32).to(getattr(torch, TORCH[name])).double().numpy()
    np.testing.assert_array_equal(representable(values, format), expected)


@pytest.mark.parametrize("name", ["float16", "float32"])
@given(values=st.lists(numbers, min_size=1))
def test_numbers_and_their_distances_are_numpys(name, values):
    values = np.array(values)
    with np.errstate(over="ignore"):
        expected = values.astype(name)
    found = representable(values, FORMATS[name])
    np.testing.assert_array_equal(found, expected)
    below = np.abs(expected) < FORMATS[name].largest
    np.testing.assert_array_equal(ulp(found, FORMATS[name])[below], np.spacing(np.abs(expected[below])))


@every_format
@given(values=st.lists(numbers, min_size=1))
def test_rounding_is_idempotent_odd_and_to_the_nearest(format, values):
    values = np.array(values)
    rounded = representable(values, format)
    np.testing.assert_array_equal(representable(rounded, format), rounded)
    np.testing.assert_array_equal(representable(-values, format), -rounded)
    # Beyond the largest operand half a distance leads to infinity, as in every format.
    inside = np.abs(values) <= min(format.largest, (2 - 2.0 ** (1 - format.operand_precision)) * 2.0**127)
    distance = ulp(values, format, format.operand_precision)
    assert (np.abs(rounded[inside] - values[inside]) <= distance[inside] / 2).all()


@every_format
def test_the_largest_number_is_one_and_what_lies_beyond_it_saturates_or_overflows(format):
    largest = np.array([format.largest, -format.largest])
    np.testing.assert_array_equal(
        representable(largest, FORMATS["float32"] if format.name == "tf32" else format), largest
    )
    beyond = representable(4 * np.float64(largest), format)
    np.testing.assert_array_equal(beyond, largest if format.saturates else np.inf * largest)


@every_format
def test_the_smallest_number_is_the_distance_at_zero(format):
    assert ulp(np.zeros(1), format)[0] == format.smallest
    assert representable(np.array([format.smallest]), format if format.name != "tf32" else FORMATS["float32"])[0] > 0
    assert representable(np.array([format.smallest / 4]), format)[0] == 0


def test_nan_and_infinity_stay_what_they_are():
    for format in FORMATS.values():
        assert np.isnan(representable(np.array([np.nan]), format)).all()
        kept = representable(np.array([np.inf, -np.inf]), format)
        np.testing.assert_array_equal(np.isinf(kept), not format.saturates)


def test_float64_rounds_nothing():
    values = np.random.RandomState(0).standard_normal(100)
    np.testing.assert_array_equal(representable(values, FLOAT64), values)


ALIASES = {
    "float32": ["fp32", "f32", "single", "Float32", "torch.float32", "FP32", np.single, np.dtype(">f4")],
    "tf32": ["TF32", "tfloat32", "tensorfloat-32"],
    "bfloat16": ["bf16", "BF16", "torch.bfloat16", "jnp.bfloat16", "bfloat"],
    "float16": ["fp16", "f16", "half", "HALF", "<f2", np.half, np.dtype("float16"), np.dtype(">f2")],
    "float8_e4m3": ["e4m3", "E4M3", "float8_e4m3fn", "fp8_e4m3", "fp8e4m3", "FLOAT8E4M3FN", "torch.float8_e4m3fn"],
    "float8_e5m2": ["e5m2", "fp8_e5m2", "fp8-e5m2", "FLOAT8E5M2", "torch.float8_e5m2"],
}
"""Other names of each format."""


def foreign(name, kind="printed"):
    """A dtype as another library has it: a class of that name, or an instance that has or prints it."""
    if kind == "class":
        return type(name, (), {})
    text = {"name": name} if kind == "named" else {"__str__": lambda self: f"library.{name}"}
    return type("DType", (), text)()


@every_format
def test_a_format_is_found_by_all_its_names(format):
    assert find_format(format.name, "golden") is format
    assert find_format(format.name.upper(), "golden") is format
    assert find_format(format, "golden") is format
    for alias in ALIASES[format.name]:
        assert find_format(alias, "golden") is format


@for_each("name", ["bfloat16", "float16", "float32", "float8_e4m3fn", "float8_e5m2"])
def test_a_format_is_found_by_the_dtype_of_any_library(name):
    expected = FORMATS[name.removesuffix("fn")]
    for dtype in (foreign(name, "class"), foreign(name, "printed"), foreign(name, "named")):
        assert find_format(dtype, "golden") is expected


@pytest.mark.parametrize("name", TORCH)
def test_a_format_is_found_by_pytorchs_dtype(name):
    torch = pytest.importorskip("torch")
    assert find_format(getattr(torch, TORCH[name]), "golden") is FORMATS[name]


@for_each(
    ("given", "words"),
    [
        ("float15", "dtype='float15'; did you mean 'float16'?"),
        ("blfoat16", "dtype='blfoat16'; did you mean 'bfloat16'?"),
        ("fp8", "dtype='fp8'; did you mean 'float8_e4m3' or 'float8_e5m2'?"),
        ("float8", "did you mean 'float8_e4m3' or 'float8_e5m2'?"),
        ("f8", "did you mean 'float8_e4m3' or 'float8_e5m2'?"),
        ("float", "it is float32 in PyTorch and float64 in NumPy; did you mean 'float32'?"),
        ("double", "the exact results are in float64 already"),
        ("float64", "the exact results are in float64 already"),
        ("fp64", "the exact results are in float64 already"),
        (float, "dtype='float64'; the exact results are in float64 already"),
        (np.float64, "dtype='float64'; the exact results are in float64 already"),
        (np.longdouble, "the exact results are in float64 already"),
        (FLOAT64, "the exact results are in float64 already"),
        ("int8", "dtype='int8'; it is no floating-point format"),
        (np.uint8, "dtype='uint8'; it is no floating-point format"),
        (int, "dtype='int'; it is no floating-point format"),
        (np.dtype("complex64"), "it is no floating-point format"),
        ("float8_e4m3fnuz", "FNUZ formats are others, with another exponent bias and no negative zero"),
        (foreign("float8_e5m2fnuz"), "FNUZ formats are others"),
        ("fp8e4b8", "FNUZ formats are others"),
        (foreign("float8_e4m3", "class"), "infinities and ends at 240; did you mean 'float8_e4m3fn'?"),
        (foreign("float8_e8m0fnu"), "it is another format, which the oracle doesn't know"),
        ("float8_e3m4", "it is another format"),
        ("mxfp4", "it is another format"),
        ("zzz", "dtype='zzz' (expected"),
        ("", "dtype='' (expected"),
        ("a\nb", "dtype='a\\nb' (expected"),
        (dict, "dtype='dict' (expected"),
    ],
)
def test_unknown_formats_are_refused_with_what_may_be_meant(given, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        find_format(given, "golden")
    message = str(caught.value)
    assert message.startswith("golden: dtype=")
    assert message.endswith(f"(expected {' or '.join(map(repr, FORMATS))})")
    assert "\n" not in message


@for_each("given", [None, 16, 1.5, True, b"float16", ["float16"], np.ones(2, "f2"), np.float16(1), object()])
def test_what_is_no_dtype_is_told_by_its_type(given):
    with pytest.raises(TypeError, match=r"^golden: dtype=.* is an? .*; expected a name or dtype: 'float32' or 'tf32'"):
        find_format(given, "golden")
