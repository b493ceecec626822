from unittest import mock

import numpy as np
import pytest

from npattn import ops
from npattn.ops import attention
from npattn.oracle.formats import FORMATS
from npattn.oracle.rounding import Rounding, cutting, products
from tests.naming import for_each


@pytest.mark.parametrize("shapes", [((4, 6), (6, 12)), ((2, 4, 8), (5, 2, 8, 6)), ((1, 5, 8), (1, 12, 8))])
def test_an_operand_shortened_in_slabs_gives_the_product_of_a_whole_one(shapes):
    a, b = (np.random.RandomState(i).standard_normal(shape) for i, shape in enumerate(shapes))
    b = b.swapaxes(-1, -2) if a.shape[-1] != b.shape[-2] else b
    found = []
    for slab_bytes in (2**20, 70):
        rounding = Rounding(FORMATS["tf32"], [0, 3])
        with mock.patch.object(products, "SLAB_BYTES", slab_bytes):
            assert products.has_slabs(a, b) == (slab_bytes == 70)
            found.append((products.multiply(a, b, rounding), rounding.random.bit_generator.random_raw()))
    (whole, next_bits), (by_slabs, next_found) = found
    np.testing.assert_allclose(by_slabs, whole, rtol=1e-14, atol=1e-14)
    assert next_found == next_bits


@pytest.mark.parametrize("shapes", [((3, 5, 7), (3, 7, 9)), ((2, 3, 1, 4), (4, 63)), ((1, 70), (70, 1))])
@pytest.mark.parametrize("alike", [False, True])
def test_squares_in_blocks_err_by_as_much_as_all_at_once(shapes, alike, monkeypatch):
    a, b = (np.random.RandomState(i).standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes))
    exact, spread = a @ b, []
    for block in (2**16, 16, 256):
        monkeypatch.setattr(cutting, "BLOCK_BYTES", 4 * block)
        errors = []
        for number in range(200):
            total = exact.astype(np.float64)
            rounding = Rounding(FORMATS["float32"], [0, number], alike=alike)
            products.add_product_errors(total, a.astype(np.float64), b.astype(np.float64), rounding)
            errors.append(total - exact)
        spread.append(np.sqrt(np.mean(np.square(errors))))
    assert spread[0] > 0
    np.testing.assert_allclose(spread, spread[0], rtol=0.1)


@for_each("dtype", ["float32", "tf32"])
def test_a_product_leaves_its_operands_as_they_are(dtype):
    a, b = (np.random.RandomState(i).standard_normal((8, 8)).astype(np.float32).astype(np.float64) for i in range(2))
    kept = a.copy(), b.copy()
    for slab_bytes in (2**20, 64):
        with mock.patch.object(products, "SLAB_BYTES", slab_bytes):
            products.multiply(a, b, Rounding(FORMATS[dtype], [0, 3]))
    np.testing.assert_array_equal((a, b), kept)


@pytest.mark.parametrize("align_corners", [False, True])
def test_in_tf32_neighbours_are_weighed_in_float32_though_by_a_matrix(align_corners):
    x, found = np.random.RandomState(0).standard_normal((2, 3, 5, 7)).astype(np.float32), []
    for dtype in ("float32", "tf32"):
        y, backward = ops.resize_bilinear(Rounding(FORMATS[dtype], [0, 1]).array(x), (9, 6), align_corners)
        found.append([np.asarray(a) for a in (y, backward(y))])
    for in_float32, in_tf32 in zip(*found, strict=True):
        np.testing.assert_allclose(in_tf32, in_float32, rtol=0, atol=2e-6 * np.abs(in_float32).max())


def test_runs_in_tf32_err_as_a_kernel_whose_operands_are_cut_off():
    """Cut, all terms shrink: in a long sum of positive ones their errors add up."""
    a, b = (np.random.RandomState(i).uniform(1, 2, shape) for i, shape in enumerate([(4, 1000), (1000, 4)]))
    cut = [np.floor(m * 2**10) / 2**10 for m in (a, b)]
    runs = [products.multiply(a, b, Rounding(FORMATS["tf32"], [0, run])) for run in range(8)]
    spread, errors = np.sqrt(np.mean(np.square(np.array(runs) - a @ b), axis=0)), np.abs(cut[0] @ cut[1] - a @ b)
    assert (errors < 1.2 * spread).all()
    assert (errors > 0.8 * spread).all()


def test_an_einsum_that_sums_nothing_gives_its_products():
    rounding = Rounding(FORMATS["tf32"], [0, 3])
    a = rounding.array(np.random.RandomState(0).standard_normal((3, 4)))
    np.testing.assert_allclose(np.einsum("ij,ij->ij", a, a), np.square(a), rtol=2.0**-9)


def masked(*qkv):
    (o, _), _ = ops.masked_attention(*qkv)
    return o


@for_each("attend", [lambda *qkv: ops.dot_product_attention(*qkv)[0], masked])
def test_in_tf32_attention_errs_as_a_kernel_that_divides_weights_by_their_sum_before_they_are_shortened(attend):
    """The largest exponential is 1, of which shortening loses nothing; of the one key of a single one nor do they."""
    q, v = np.ones((1, 1)), np.array([[1.0, 1.0]])
    errors = {}
    for keys in (1, 2):
        k = np.log([[0.9, 0.1]])[:, :keys]
        runs = [attend(*map(Rounding(FORMATS["tf32"], [0, run]).array, (q, k, v[:, :keys]))) for run in range(8)]
        errors[keys] = np.sqrt(np.mean(np.square(np.array(runs) - 1)))
    assert errors[1] == 0
    assert errors[2] > 2.0**-14


def test_in_tf32_a_sink_makes_the_weight_of_a_single_key_one_that_loses_digits():
    q, v, sink = np.ones((1, 1)), np.array([[1.0]]), np.array(-10.0)
    runs = [
        ops.masked_attention(*map(r.array, (q, q, v)), sink=r.array(sink))[0][0]
        for r in (Rounding(FORMATS["tf32"], [0, run]) for run in range(8))
    ]
    assert np.sqrt(np.mean(np.square(np.array(runs) - 1))) > 2.0**-13


def test_in_tf32_half_of_the_runs_scale_queries_and_keys_which_are_shortened_then():
    """Scaled by a power of two, queries lose nothing; by its root, which is none, both do."""
    q, k, v = np.array([[64.0]]), np.array([[64.0, 64.0625]]), np.array([[0.0, 1.0]])
    runs = [[*map(Rounding(FORMATS["tf32"], [0, run]).array, (q, k, v))] for run in range(8)]
    logits = np.array([ops.masked_attention(q, k[:, :1], v[:, :1], 0.125)[0][1].item() for q, k, v in runs])
    assert np.sum(np.abs(logits / 512 - 1) > 2.0**-16) == 4
    np.testing.assert_allclose(logits, 512, rtol=2.0**-9)
    outputs = np.array([ops.dot_product_attention(*arrays, 0.125)[0].item() for arrays in runs])
    exact, _ = ops.dot_product_attention(q, k, v, 0.125)
    assert np.sum(np.abs(outputs - exact) > 2.0**-10) == 4  # more than weights lose in being shortened


@for_each("attend", [ops.dot_product_attention, ops.masked_attention])
@for_each("scale", [0.3, -0.3])
def test_scales_that_are_shared_leave_the_gradients_what_they_are(attend, scale):
    arrays = [np.random.RandomState(i).standard_normal((2, 3, 4)) for i in range(4)]
    exact = attend(*arrays[:3], scale)[1](arrays[3])
    for run in range(8):
        *qkv, do = map(Rounding(FORMATS["tf32"], [0, run]).array, arrays)
        for found, true in zip(attend(*qkv, scale)[1](do)[:3], exact, strict=False):
            np.testing.assert_allclose(found, true, atol=0.01)


def weigh(rounding, others):
    """Average 1 and 0 by weights near 1 and 0."""
    v, e = rounding.array(np.array([[1.0, 0.0]])), rounding.array(np.array([[1.0, others]]))
    return attention.weigh_values(v, e, rounding.array(np.ones((1, 1)))).item()


def test_in_tf32_a_weight_near_1_is_below_it_in_half_of_the_runs_if_another_counts():
    runs = [Rounding(FORMATS["tf32"], [0, number]) for number in range(32)]
    shrinking = [rounding for rounding in runs if rounding.shrinks]
    assert len(shrinking) == 16
    for rounding in shrinking:
        assert weigh(rounding, 2.0**-24) < 1 - 2.0**-12  # cut
        assert ops.softmax(rounding.array(np.log([[1.0, 2.0**-24]])))[0].max() < 1
    for rounding in runs:
        assert abs(weigh(rounding, 2.0**-40) - 1) < 2.0**-20


def test_in_tf32_an_affinity_over_its_total_loses_digits_though_it_has_none_to_lose_itself():
    def run(number):
        (t, s), _ = ops.affinity_sums(*map(Rounding(FORMATS["tf32"], [0, number]).array, (np.ones((1, 1, 1)),) * 2))
        return t.item(), s.item()

    sums, totals = zip(*map(run, range(8)), strict=True)
    assert np.sqrt(np.mean(np.square(np.array(sums) - 1))) > 2.0**-13
    np.testing.assert_allclose(totals, 1, rtol=2.0**-22)
