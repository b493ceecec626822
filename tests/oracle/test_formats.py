import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn.oracle.formats import FLOAT64, FORMATS, find_format, representable, ulp

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
    inside = np.abs(values) <= format.largest
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


@pytest.mark.parametrize(
    ("given", "name"), [("float16", "float16"), (np.float32, "float32"), (np.dtype("float16"), "float16")]
)
def test_a_format_is_found_by_its_name_or_dtype(given, name):
    assert find_format(given, "golden") is FORMATS[name]


@pytest.mark.parametrize("name", TORCH.keys() - {"float8_e4m3"})
def test_a_format_is_found_by_pytorchs_dtype(name):
    torch = pytest.importorskip("torch")
    assert find_format(getattr(torch, name), "golden") is FORMATS[name]


@pytest.mark.parametrize(
    ("given", "message"),
    [("float15", "did you mean 'float16'"), ("double", "expected 'float32'"), (np.float64, "dtype='float64'")],
)
def test_unknown_formats_are_refused_with_those_that_are_known(given, message):
    with pytest.raises(ValueError, match=message):
        find_format(given, "golden")
