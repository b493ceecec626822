import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npattn.fast.products import product_and_sum, sum_of_products
from npattn.ops.products import matmul, product
from tests.naming import for_each
from tests.ops.primitives import in_blocks, normal, patched, run_both, ulps, way_taken
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


@settings(max_examples=20)
@given(factors(), thresholds)
def test_any_product_is_that_of_numpy_and_lies_in_memory_row_by_row(pair, limits):
    a, b = pair
    expected = a @ b
    with in_blocks(2), patched("MIN_SERIAL", limits[0]), patched("MIN_MULTIPLICATIONS", limits[1]):
        c = product(a, b)
        blocked = way_taken(product, a, b) != "definition"
    assert c.shape == expected.shape
    np.testing.assert_allclose(c, expected, rtol=1e-12, atol=1e-13)
    assert c.flags.c_contiguous or not blocked


@for_each("inner", [1, 2])
def test_products_of_a_batch_without_images_are_none(inner):
    a, b = normal(98, inner), normal(0, 1, inner, 190)
    assert way_taken(product, a, b) != "definition"
    assert product(a, b).shape == (0, 1, 98, 190)


@settings(max_examples=20)
@given(factors(np.float32))
def test_single_precision_is_within_4_ulps_of_the_largest_at_once(pair):
    with in_blocks():
        assert ulps(product(*pair), pair[0] @ pair[1]) <= 4


@for_each(
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


@for_each(("columns", "blocks"), [(2**14 - 1, 1), (2**15 - 1, 1), (2**15, 2), (2**17, 8), (2**19, 8)])
def test_a_product_has_a_block_for_each_2_to_the_23_multiplications_and_at_most_one_for_each_core(columns, blocks):
    counts = []

    def watch(work, blocks, products=False):
        assert products
        counts.append(len(blocks))
        for block in blocks:
            work(block)

    a, b = np.ones((16, 32), np.float32), np.ones((32, columns), np.float32)
    with patched("parallel_for", watch), patched("MAX_PRODUCT_BLOCKS", 8):
        np.testing.assert_array_equal(product(a, b), 32)
    assert counts == [blocks]


@settings(max_examples=20)
@given(st.integers(0, 5), st.tuples(matrix_sizes, matrix_sizes, matrix_sizes), layouts, thresholds, seeds)
@example(9, (3, 2, 5), "contiguous", (1, 1), 0)  # transposed
@example(9, (5, 2, 3), "contiguous", (1, 1), 0)
def test_products_are_added_up_where_they_are_made(batch, sizes, layout, limits, seed):
    rows, inner, columns = sizes
    a = arrange(normal(batch, rows, inner, seed=seed), layout)
    b = arrange(normal(batch, columns, inner, seed=seed + 1), layout).swapaxes(1, 2)
    with (
        in_blocks(2),
        patched("MIN_SERIAL", limits[0]),
        patched("MIN_MULTIPLICATIONS", limits[1]),
        patched("MAX_PRODUCT_BLOCKS", 2),
    ):
        found = sum_of_products(a, b)
    assert found.shape == (rows, columns)
    np.testing.assert_allclose(found, (a @ b).sum(axis=0), rtol=1e-12, atol=1e-12)


@settings(max_examples=20)
@given(leads, st.tuples(matrix_sizes, matrix_sizes, matrix_sizes), st.sampled_from([1, 4, 512]), thresholds, seeds)
@example(((9,), (9,)), (3, 2, 5), 512, (1, 1), 0)  # summed by images, transposed
@example(((9,), (9,)), (5, 2, 3), 512, (1, 1), 0)
@example(((9,), (9,)), (5, 2, 3), 1, (1, 1), 0)  # by rows
@example(((3,), (3,)), (5, 2, 3), 1, (1, 1), 0)  # few images
def test_products_and_a_sum_of_others_are_the_same_from_one_loop(batches, sizes, fewest, limits, seed):
    rows, inner, columns = sizes
    a, b = normal(*batches[0], rows, inner, seed=seed), normal(*batches[1], inner, columns, seed=seed + 1)
    c, d = normal(*batches[1], rows, inner, seed=seed + 2), normal(*batches[1], inner, columns, seed=seed + 3)
    with (
        in_blocks(2),
        patched("MIN_SERIAL", limits[0]),
        patched("MIN_MULTIPLICATIONS", limits[1]),
        patched("MAX_PRODUCT_BLOCKS", 2),
        patched("MIN_SUMMED_ROWS", fewest),
    ):
        products, total = product_and_sum(a, b, c, d)
    np.testing.assert_allclose(products, a @ b, rtol=1e-12, atol=1e-12)
    summed = (c @ d).sum(axis=tuple(range(len(batches[1]))))
    assert total.shape == summed.shape
    np.testing.assert_allclose(total, summed, rtol=1e-12, atol=1e-12)


@for_each("turned", [False, True])
@settings(max_examples=20)
@given(st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)), layouts, seeds)
def test_a_row_times_each_matrix_or_each_matrix_times_a_column_is_what_matmul_is_by_definition(
    turned, sizes, layout, seed
):
    batch, inner, length = sizes
    vector, matrix = normal(batch, 1, inner, seed=seed), arrange(normal(batch, inner, length, seed=seed + 1), layout)
    pair, dc = (vector, matrix), normal(batch, 1, length, seed=seed + 2)
    if turned:
        pair, dc = (matrix.swapaxes(1, 2), vector.swapaxes(1, 2)), dc.swapaxes(1, 2)
    with in_blocks():
        assert way_taken(matmul, *pair) == "matmul_by_vector"
        assert batch == 1 or way_taken(matmul, pair[0][:1], pair[1]) != "matmul_by_vector"
    for found, expected in zip(*run_both(matmul, *pair, dy=dc), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
