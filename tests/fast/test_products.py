import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn.fast.products import product_blocks
from npattn.ops.products import product
from tests.ops.primitives import in_blocks, normal, patched, ulps, way_taken
from tests.strategies import arrange, layouts, seeds

leads = st.sampled_from(
    [((), ()), ((3,), (3,)), ((9,), (9,)), ((2, 3), (2, 3)), ((), (3,)), ((2, 1), (3,)), ((1,), ()), ((4, 1), (4, 5))]
)
thresholds = st.sampled_from([(1, 1), (1, 2**60), (2**60, 2**60), (20, 60), (2**13, 2**22)])
matrix_sizes = st.one_of(st.just(1), st.integers(0, 3), st.integers(1, 20))


@st.composite
def factors(draw, dtype=np.float64):
    """Two stacks of matrices that can be multiplied, the matrices or the whole stacks turned around in memory."""
    (of_a, of_b), seed = draw(leads), draw(seeds)
    rows, inner, columns = draw(st.tuples(matrix_sizes, matrix_sizes, matrix_sizes))
    found = []
    for i, shape in enumerate([(*of_a, rows, inner), (*of_b, inner, columns)]):
        a = normal(*shape, seed=seed + i).astype(dtype)
        turned = draw(st.booleans())
        found.append(np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2) if turned else arrange(a, draw(layouts)))
    return found


@given(factors(), thresholds)
def test_any_product_is_that_of_numpy_and_lies_in_memory_row_by_row(pair, limits):
    a, b = pair
    expected = a @ b
    with in_blocks(2), patched("MIN_ONE_CORE", limits[0]), patched("MIN_MULTIPLICATIONS", limits[1]):
        c = product(a, b)
        blocked = way_taken(product, a, b) == "product_in_blocks"
    assert c.shape == expected.shape
    np.testing.assert_allclose(c, expected, rtol=1e-12, atol=1e-13)
    assert c.flags.c_contiguous or not blocked


@settings(max_examples=50)
@given(factors(np.float32))
def test_single_precision_is_within_4_ulps_of_the_largest_at_once(pair):
    with in_blocks():
        assert ulps(product(*pair), pair[0] @ pair[1]) <= 4


@given(st.sampled_from([(), (3,), (9,), (2, 3), (1,), (4, 5)]), matrix_sizes, st.integers(1, 9), matrix_sizes)
def test_blocks_of_a_product_cover_every_number_once(lead, rows, inner, columns):
    visits = np.zeros((*lead, rows, columns))
    with in_blocks():
        for at, i, j in product_blocks(lead, rows, inner, columns):
            visits[at][..., i, j] += 1
    np.testing.assert_array_equal(visits, 1)


@pytest.mark.parametrize(
    ("lead", "matrix", "count"),
    [
        ((), (8, 3, 4), 4),  # rows
        ((), (3, 3, 8), 4),  # columns
        ((8,), (2, 3, 4), 4),  # products
        ((2, 6), (2, 3, 4), 3),
        ((2,), (8, 3, 4), 4),  # both
        ((3,), (8, 3, 4), 6),
    ],
)
def test_a_large_product_is_cut_into_equal_shares(lead, matrix, count):
    every = int(np.prod(lead)) * int(np.prod(matrix))
    rows, _, columns = matrix
    for limit in (every - 1, every, every + 1):
        with patched("MIN_MULTIPLICATIONS", limit):
            found = product_blocks(lead, *matrix)
        assert len(found) == (count if limit <= every else 1)
        c = np.empty((*lead, rows, columns))
        assert len({c[at][..., i, j].size for at, i, j in found}) == 1


@pytest.mark.parametrize(
    ("shapes", "blocked"),
    [
        (((9, 32), (32, 31)), False),
        (((9, 32), (32, 32)), True),  # 9216 multiplications
        (((9, 32), (32, 33)), True),
        (((455, 9, 32), (455, 32, 32)), True),
        (((1024, 8, 32), (1024, 32, 16)), True),  # 2²² in all, 4096 in each
        (((1023, 8, 32), (1023, 32, 16)), False),
    ],
)
def test_products_are_made_in_blocks_where_blas_would_use_several_cores_or_should(shapes, blocked):
    a, b = (np.ones(shape, np.float32) for shape in shapes)
    assert (way_taken(product, a, b) == "product_in_blocks") is blocked


def test_what_is_not_worth_cutting_is_one_block_and_no_more():
    counts = []

    def watch(work, blocks, products=False):
        assert products
        counts.append(len(blocks))
        for block in blocks:
            work(block)

    with patched("parallel_for", watch):
        for columns in (2**13 - 1, 2**13):  # 2²² multiplications
            product(np.ones((16, 32), np.float32), np.ones((32, columns), np.float32))
    assert counts == [1, 4]
