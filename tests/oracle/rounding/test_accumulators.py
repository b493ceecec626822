"""Running sums and products err as those of an accumulator in float32, by whatever name they are asked for."""

import numpy as np

from npattn.oracle.formats import FORMATS, representable
from npattn.oracle.rounding import Rounding
from npattn.oracle.rounding.accumulators import add_errors
from npattn.oracle.rounding.cutting import is_small
from tests.naming import for_each

DRAWN = np.random.RandomState(0)
TERMS = np.float32(DRAWN.standard_normal((400, 200)))
FACTORS = np.float32(DRAWN.uniform(0.9, 1.1, (400, 200)))
MADE = {
    "cumsum": (lambda a: np.cumsum(a, axis=1), np.add, TERMS),
    "cumsum, as a method": (lambda a: a.cumsum(1), np.add, TERMS),
    "of all in a row": (lambda a: np.cumsum(a).reshape(a.shape), np.add, TERMS[:1]),
    "accumulate": (lambda a: np.add.accumulate(a, axis=1), np.add, TERMS),
    "cumprod": (lambda a: np.cumprod(a, axis=-1), np.multiply, FACTORS),
    "cumprod, as a method": (lambda a: a.cumprod(axis=1), np.multiply, FACTORS),
    "prod": (lambda a: a.prod(axis=1, keepdims=True) + 0 * a, np.multiply, FACTORS),
}


@for_each("name", list(MADE))
def test_running_sums_and_products_err_as_one_accumulator_in_float32_does(name):
    make, ufunc, terms = MADE[name]
    exact = make(terms.astype(np.float64))
    runs = [np.asarray(make(Rounding(FORMATS["float32"], [0, number]).array(terms))) for number in range(8)]
    squares = np.mean(np.square(np.array(runs) - exact), axis=(0, 1))
    kernel = np.mean(np.square(ufunc.accumulate(terms, axis=1).astype(float) - exact), axis=0)
    ratio = squares[-1] / kernel[-1]
    assert 0.5 < ratio < 8 or len(terms) == 1
    assert squares[-1] > 8 * 2.0**-48 / 12 * np.mean(exact[:, -1] ** 2)  # more than a rounding at the end leaves


def added_at(terms):
    """Add the columns to two of three numbers of each row in turn."""
    total = np.zeros_like(terms, shape=(len(terms), 3))
    np.add.at(total, (slice(None), np.arange(terms.shape[1]) % 2), terms)
    return total


def test_sums_at_indices_err_as_other_sums_do_and_are_numbers_of_the_format():
    exact = added_at(TERMS.astype(np.float64))
    errors = np.array(
        [np.asarray(added_at(Rounding(FORMATS["float32"], run).array(TERMS))) - exact for run in range(8)]
    )
    whole = [np.asarray(Rounding(FORMATS["float32"], run).array(TERMS[:, ::2]).sum(axis=1)) for run in range(8)]
    ratio = np.mean(errors[:, :, 0] ** 2) / np.mean((np.array(whole) - exact[:, 0]) ** 2)
    assert 0.5 < ratio < 2
    assert not errors[:, :, 2].any()
    narrow = np.asarray(added_at(Rounding(FORMATS["bfloat16"], 0).array(representable(TERMS, FORMATS["bfloat16"]))))
    np.testing.assert_array_equal(narrow, representable(narrow, FORMATS["bfloat16"]))


def test_in_a_narrow_format_running_sums_are_its_numbers():
    sums = np.asarray(np.cumsum(Rounding(FORMATS["bfloat16"], 0).array(representable(TERMS, FORMATS["bfloat16"]))))
    np.testing.assert_array_equal(sums, representable(sums, FORMATS["bfloat16"]))


def test_sums_err_alike_however_they_and_their_squares_lie_in_memory():
    sums = DRAWN.standard_normal((300, 500))
    assert not is_small(sums)

    def err(total, squares):
        add_errors(total, squares, 9, Rounding(FORMATS["float32"], [0, 1]))
        return total

    expected = err(sums.copy(), np.square(sums))
    assert (expected != sums).all()
    for orders in ("CF", "FC", "FF"):
        found = err(*(a.copy(order) for a, order in zip((sums, np.square(sums)), orders, strict=True)))
        np.testing.assert_array_equal(found, expected)
