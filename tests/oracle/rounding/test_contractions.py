"""Sums of products are NumPy's, however their axes are named, and round."""

import numpy as np
import pytest

from npattn.oracle.formats import FORMATS, representable
from npattn.oracle.rounding import Rounding

CALLS = [
    lambda a, b: np.einsum("bmc,bnc->bmn", a, b, optimize=True),
    lambda a, b: np.einsum("bmc, bnc -> mnb", a, b),
    lambda a, b: np.einsum("...mc,...nc->...mn", a, b),
    lambda a, b: np.einsum("...mc,nc->...mn", a, b[0]),
    lambda a, b: np.einsum("mc,nc", a[0], b[0]),
    lambda a, b: np.einsum("...c->...", a),
    lambda a, b: np.dot(a, b[0].T),
    lambda a, b: np.dot(a, b.swapaxes(1, 2)),
    lambda a, b: a.dot(b[0].T),
    lambda a, b: np.dot(a, 1.25),
    lambda a, b: np.tensordot(a, b, ([2], [2])),
    lambda a, b: np.tensordot(a, b[0].T, 1),
]


@pytest.mark.parametrize("call", CALLS)
def test_products_are_numpys_rounded(call):
    draw = np.random.RandomState(0).standard_normal
    a, b = (representable(draw(shape), FORMATS["float16"]) for shape in ((2, 3, 4), (2, 5, 4)))
    rounding = Rounding(FORMATS["float16"], [0, 1])
    expected, found = call(a, b), np.asarray(call(rounding.array(a), rounding.array(b)))
    np.testing.assert_allclose(found, expected, rtol=2**-9, atol=2**-9)
    np.testing.assert_array_equal(found, representable(found.astype(float), FORMATS["float16"]))


@pytest.mark.parametrize("call", [lambda a: np.einsum("...c->...", a), lambda a: np.einsum("bmc,bmc->b", a, a)])
def test_what_is_only_added_up_is_not_shortened_as_operands_of_a_product_are(call):
    """In TF32 a product of matrices errs by 1e-3; a mean or a variance is made in float32."""
    a = np.random.RandomState(0).standard_normal((2, 3, 400)).astype(np.float32)
    exact = call(a.astype(float))
    errors = [np.asarray(call(Rounding(FORMATS["tf32"], [0, n]).array(a))) - exact for n in range(4)]
    assert 0 < (np.abs(errors) / call(np.abs(a))).max() < 3e-6
    product = np.einsum("bmc,bnc->bmn", *(2 * [Rounding(FORMATS["tf32"], [0, 1]).array(a)]))
    assert np.abs(np.asarray(product) - np.einsum("bmc,bnc->bmn", *(2 * [a.astype(float)]))).max() > 1e-3
