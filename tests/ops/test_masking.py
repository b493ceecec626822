import numpy as np
import pytest

from npattn import ops
from npattn.ops import attention
from tests.memory import peak_of_both
from tests.naming import for_each
from tests.ops.primitives import normal
from tests.ops.test_attention import arrays, positions_alone


@pytest.mark.parametrize("name", ["bias", "mask"])
@pytest.mark.parametrize("shape", [(5, 1), (1, 6), (2, 6, 5), (6,)])
def test_what_belongs_to_pairs_has_an_element_for_each(name, shape):
    q, k, v, _ = arrays()
    with pytest.raises(ValueError, match=rf"masked_attention: {name} has shape .*; expected its last axes"):
        ops.masked_attention(q, k, v, **{name: np.ones(shape)})


@pytest.mark.parametrize("lead", [(), (2, 2)])
@pytest.mark.parametrize("queries", [2, 256])
def test_masked_attention_that_hides_nothing_is_dot_product_attention(lead, queries, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK_QUERIES", queries)
    q, k, v, do = arrays(lead)
    (o, log_sum), backward = ops.masked_attention(q, k, v, 0.5)
    expected, back = ops.dot_product_attention(q, k, v, 0.5)
    np.testing.assert_allclose(o, expected, rtol=1e-14)
    z = 0.5 * q.swapaxes(-1, -2) @ k
    np.testing.assert_allclose(log_sum, np.log(np.exp(z).sum(axis=-1)), rtol=1e-14)
    *found, dbias, dsink = backward(do)
    assert dbias is dsink is None
    for ours, theirs in zip(found, back(do), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_bias_of_minus_infinity_hides_as_a_mask_does():
    q, k, v, do = arrays()
    added = np.where(np.arange(30).reshape(5, 6) % 3 == 0, -np.inf, 0.5)
    added[2] = -np.inf
    (o, log_sum), backward = ops.masked_attention(q, k, v, bias=added)
    mask = np.isfinite(added).astype(float)
    (expected, theirs), back = ops.masked_attention(q, k, v, bias=np.where(np.isfinite(added), added, 0), mask=mask)
    np.testing.assert_array_equal(o, expected)
    np.testing.assert_array_equal(log_sum, theirs)
    for one, other in zip(backward(do)[:4], back(do)[:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)


@for_each("band", [(None, None), (-2, 1), (None, 0), (1, None), (0, 0)])
@for_each("length", [None, 4])
def test_a_band_and_a_length_hide_as_a_mask_does(band, length, small_blocks):
    q, k, v, do = arrays()
    least, most = (-9 if band[0] is None else band[0]), (9 if band[1] is None else band[1])
    mask = np.array([[least <= n - m <= most and n < (length or 6) for n in range(6)] for m in range(5)], float)
    lengths = None if length is None else np.array(float(length))
    (o, log_sum), backward = ops.masked_attention(q, k, v, band=band, lengths=lengths)
    (expected, theirs), back = ops.masked_attention(q, k, v, mask=mask)
    np.testing.assert_array_equal(o, expected)
    np.testing.assert_array_equal(log_sum, theirs)
    for one, other in zip(backward(do)[:3], back(do)[:3], strict=True):
        np.testing.assert_array_equal(one, other)


@for_each(
    ("logit", "sink", "average", "log_sum"),
    [(1e3, 0.0, 2, 1e3 + np.log(2)), (0.0, 1e3, 0, 1e3), (-1e3, -1e3, 4 / 3, np.log(3) - 1e3)],
)
def test_neither_logits_nor_a_sink_overflow(logit, sink, average, log_sum):
    q, k, v = np.full((1, 1, 1), logit), np.ones((1, 1, 2)), np.array([[[1.0, 3.0]]])
    (o, found), backward = ops.masked_attention(q, k, v, sink=np.array([sink]))
    np.testing.assert_allclose([o.item(), found.item()], [average, log_sum], rtol=1e-14)
    assert all(np.isfinite(gradient).all() for gradient in backward(o) if gradient is not None)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_no_queries_attend_to_nothing_with_a_mask_too(lead):
    q, k, v, do = arrays(lead, (3, 4, 0, 5))
    (o, log_sum), backward = ops.masked_attention(q, k, v, bias=np.zeros((0, 5)), band=(None, 0))
    assert (o.shape, log_sum.shape) == (do.shape, (*lead, 0))
    dq, dk, dv, dbias, _ = backward(do, np.zeros_like(log_sum))
    assert (dq.shape, dbias.shape) == (q.shape, (0, 5))
    assert not dk.any()
    assert not dv.any()


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble, np.complex128])
def test_masked_attention_keeps_the_dtype_of_other_numbers(dtype, small_blocks):
    *qkv, do = arrays((2,))
    others = {"bias": normal(5, 6), "sink": normal(2), "lengths": np.array([4.0, 6.0]), "mask": np.ones((5, 6))}
    others["mask"][:, 0] = others["mask"][1] = 0
    (expected, theirs), back = ops.masked_attention(*qkv, softcap=2.0, band=(-3, 2), **others)
    others = {name: a.astype(dtype) for name, a in others.items()}
    (o, log_sum), backward = ops.masked_attention(*(a.astype(dtype) for a in qkv), softcap=2.0, band=(-3, 2), **others)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    pairs = zip((o, log_sum, *backward(do.astype(dtype))), (expected, theirs, *back(do)), strict=True)
    for found, reference in pairs:
        assert found.dtype == dtype
        np.testing.assert_allclose(found.real, reference, rtol=tolerance, atol=tolerance)
        assert not np.iscomplexobj(found) or not found.imag.any()


def averaged(*qkv):
    (o, _), backward = ops.masked_attention.definition(*qkv)
    return o, backward


@pytest.mark.parametrize("attend", [averaged, ops.dot_product_attention.definition], ids=["masked", "plain"])
def test_what_a_block_of_queries_needs_is_gone_before_the_next(attend):
    q, k, v = positions_alone(1024, e=4)
    one, four = (peak_of_both(attend, q[..., : blocks * attention.BLOCK_QUERIES], k, v) for blocks in (1, 4))
    assert four < one + attention.BLOCK_QUERIES * 1024 * 8 / 4


@pytest.mark.parametrize("least", [None, -2])
@pytest.mark.parametrize("most", [None, 1])
def test_memory_of_a_band_grows_as_the_positions(least, most):
    def in_a_band(*qkv):
        (o, _), backward = ops.masked_attention.definition(*qkv, band=(least, most))
        return o, backward

    small, large = (peak_of_both(in_a_band, *positions_alone(count, e=4)) for count in (1024, 2048))
    assert large < 2.5 * small
