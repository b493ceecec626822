import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import ops
from npattn.ops import products
from tests.ops.primitives import in_blocks, normal, patched, run_both, ulps, worst_error
from tests.strategies import arrange, layouts, seeds, sizes


def test_product_and_gram_gradients_agree_with_the_complex_step():
    with in_blocks():
        assert worst_error(ops.matmul, normal(2, 3, 4), normal(2, 4, 5, seed=1)) < 1e-14
        assert worst_error(ops.gram, normal(2, 3, 4)) < 1e-14


@given(sizes, sizes, sizes, seeds)
def test_gram_matrix_is_the_product_with_the_transpose_used_twice(batch, rows, length, seed):
    a, dg = normal(batch, rows, length, seed=seed), normal(batch, rows, rows, seed=seed + 1)
    g, back_gram = ops.gram(a)
    product, back_product = ops.matmul(a, a.swapaxes(1, 2))
    np.testing.assert_allclose(g, product, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(g, g.swapaxes(1, 2))
    left, right = back_product(dg)
    np.testing.assert_allclose(back_gram(dg), left + right.swapaxes(1, 2), rtol=1e-11, atol=1e-12)


def test_antisymmetric_gradient_of_a_gram_matrix_moves_nothing():
    dg = normal(4, 4)
    np.testing.assert_array_equal(ops.gram(normal(4, 7, seed=1))[1](dg - dg.T), 0)


# Any product, above and below the sizes from which it is made in parts

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


@given(factors(), thresholds, st.sampled_from([1, 2, 3, 8]), st.sampled_from([None, "contiguous", "strided", "turned"]))
def test_any_product_is_that_of_numpy(pair, limits, count, target):
    a, b = pair
    expected = a @ b
    out = None
    if target is not None:  # filled with NaN, so that nothing can be left out
        shape = expected.shape[::-1] if target == "turned" else expected.shape
        out = np.full((*shape[:-1], shape[-1] * (2 if target == "strided" else 1)), np.nan)
        out = out.T if target == "turned" else out[..., ::2] if target == "strided" else out
    with in_blocks(count), patched("MIN_ONE_CORE", limits[0]), patched("MIN_MULTIPLICATIONS", limits[1]):
        c = products.multiply(a, b, out=out)
    if target is not None:
        assert c is out
    assert c.shape == expected.shape
    np.testing.assert_allclose(c, expected, rtol=1e-12, atol=1e-13)
    if target == "strided":
        assert np.isnan(c.base[..., 1::2]).all()


@given(factors(), st.sampled_from([(1, 1), (1, 2**60)]), st.sampled_from([1, 2, 3, 8]))
def test_a_product_lies_in_memory_row_by_row_however_its_factors_lie(pair, limits, count):
    with in_blocks(count), patched("MIN_ONE_CORE", limits[0]), patched("MIN_MULTIPLICATIONS", limits[1]):
        assert products.multiply(*pair).flags.c_contiguous
        matrices = [a[(0,) * (a.ndim - 2)] for a in pair]
    assert products.multiply(*matrices).flags.c_contiguous  # small ones, too


@given(factors(np.float32))
def test_single_precision_products_in_parts_are_within_4_ulps_of_the_largest_at_once(pair):
    a, b = pair
    for found, expected in zip(*run_both(lambda a, b: (products.multiply(a, b), lambda dy: dy), a, b), strict=True):
        assert ulps(found, expected) <= 4


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, complex])
@pytest.mark.parametrize("given_out", [False, True])
def test_other_numbers_are_multiplied_the_plain_way(dtype, given_out):
    a, b = (normal(3, 4, 4, seed=i).astype(dtype) for i in (0, 1))
    out = np.empty_like(a) if given_out else None
    with in_blocks(), patched("parallel_for", None):
        c = products.multiply(a, b, out=out)
    assert c.dtype == dtype
    assert given_out is (c is out)
    np.testing.assert_array_equal(c, a @ b)


def test_factors_of_different_numbers_are_multiplied_the_plain_way():
    a, b = normal(3, 4, 4), normal(3, 4, 4, seed=1).astype(np.float32)
    with in_blocks(), patched("parallel_for", None):
        np.testing.assert_array_equal(products.multiply(a, b), a @ b)


def parts_of(a, b, count, few=1, many=1):
    """List what is multiplied in a part: how often each number of the product is written, for every part."""
    found = []

    def watch(work, pieces, products=False):
        assert products
        for piece in pieces:
            c[...] = np.nan
            work(piece)
            found.append(~np.isnan(c))

    c = np.empty((a @ b).shape)
    with (
        in_blocks(count),
        patched("MIN_ONE_CORE", few),
        patched("MIN_MULTIPLICATIONS", many),
        patched("parallel_for", watch),
    ):
        products.multiply(a, b, out=c)
    return found


@given(factors(), st.sampled_from([1, 2, 3, 8]))
def test_parts_of_a_product_cover_every_number_once(pair, count):
    a, b = pair
    if a.size and b.size:
        np.testing.assert_array_equal(np.sum(parts_of(a, b, count), axis=0), 1)


@pytest.mark.parametrize(
    ("lead", "matrix", "count", "parts"),
    [
        ((), (8, 3, 4), 4, 4),  # rows
        ((), (3, 3, 8), 4, 4),  # columns
        ((8,), (2, 3, 4), 4, 4),  # products
        ((2, 6), (2, 3, 4), 3, 3),
        ((2,), (8, 3, 4), 4, 4),  # both
        ((2,), (8, 3, 4), 3, 4),
        ((), (8, 3, 4), 1, 1),
    ],
)
def test_a_large_product_has_a_part_for_every_thread(lead, matrix, count, parts):
    rows, inner, columns = matrix
    a, b = normal(*lead, rows, inner), normal(*lead, inner, columns)
    found = parts_of(a, b, count)
    assert len(found) == parts
    assert len({int(part.sum()) for part in found}) == 1  # equal shares
    multiplications = int(np.prod(lead)) * rows * inner * columns
    assert len(parts_of(a, b, count, many=multiplications)) == parts
    assert len(parts_of(a, b, count, many=multiplications + 1)) == 1
    each = rows * inner * columns
    assert len(parts_of(a, b, count, few=each, many=multiplications + 1)) == 1
    assert parts_of(a, b, count, few=each + 1, many=multiplications + 1) == []
    assert len(parts_of(a, b, count, few=each + 1, many=multiplications)) == parts
