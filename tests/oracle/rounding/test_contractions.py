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
