from unittest import mock

import numpy as np
import pytest

import npattn
from npattn import ops
from npattn.module import as_tuple
from npattn.ops.context import replacing
from npattn.oracle import golden, sampling
from npattn.oracle.dividing import divide
from npattn.oracle.extended import extend
from npattn.oracle.sampling import MIN_QUERIES, SAMPLE, sample_queries

QUERIES, KEYS = MIN_QUERIES + 13, 40
more_than_float64 = pytest.mark.skipif(
    np.finfo(np.longdouble).eps == np.finfo(np.float64).eps, reason="longdouble is float64 here"
)


def normal(*shape, seed=0):
    return extend(np.random.RandomState(seed).standard_normal(shape))


QKV = normal(2, 3, 5, QUERIES), normal(2, 3, 5, KEYS, seed=1), normal(2, 3, 4, KEYS, seed=2)
SEEN = (normal(2, 1, QUERIES, KEYS, seed=3) > 0).astype(np.longdouble)
SEEN[0, 0, ::3] = 0  # queries that see no key
OPTIONS = {
    "plain": None,
    "masked, with nothing": {},
    "causal": {"band": (None, 0)},
    "window": {"band": (-3, 2)},
    "bias": {"bias": normal(1, 3, QUERIES, KEYS, seed=4)},
    "sink and softcap": {"sink": normal(3, seed=5), "softcap": 2.0},
    "lengths": {"lengths": extend(np.array([[7.0], [0.0]]))},
    "mask": {"mask": extend(SEEN)},
    "all": {
        "band": (None, 20),
        "bias": normal(1, 3, QUERIES, KEYS, seed=4),
        "sink": normal(3, seed=5),
        "softcap": 3.0,
        "lengths": extend(np.array([[30.0], [11.0]])),
        "mask": extend(SEEN),
    },
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def results(options):
    """Outputs and gradients, the rows of queries last."""
    primitive = ops.dot_product_attention if options is None else ops.masked_attention
    outputs, back = primitive(*QKV, 0.4, **options or {})
    outputs = as_tuple(outputs)
    upstream = [normal(*y.shape, seed=6) for y in outputs]
    dq, dk, dv, *rest = back(*upstream)
    dbias, dsink = rest or (None, None)
    of_queries = [*outputs, dq, *([] if dbias is None else [dbias.swapaxes(-1, -2)])]
    return of_queries, [dk, dv, *([] if dsink is None else [dsink])]


@every_option
def test_the_sample_is_that_of_the_whole_in_longdouble_and_the_rest_near_it(options):
    exact, exact_sums = results(options)
    with replacing(sample_queries):
        found, sums = results(options)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == np.longdouble
        np.testing.assert_allclose(a[..., SAMPLE], b[..., SAMPLE], rtol=1e-17, atol=1e-17)
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
    for a, b in zip(sums, exact_sums, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@more_than_float64
@every_option
def test_sample_and_rest_are_the_whole(options):
    exact, exact_sums = results(options)
    with replacing(sample_queries), mock.patch.object(sampling, "single", lambda a: a):
        found, sums = results(options)
    for a, b in zip(found + sums, exact + exact_sums, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15, atol=1e-17)


def test_few_queries_and_other_primitives_are_computed_as_they_are():
    few = [a[..., : MIN_QUERIES - 1] for a in QKV]
    assert sample_queries(ops.dot_product_attention, tuple(few), {}) is NotImplemented
    assert sample_queries(ops.relu, QKV[:1], {}) is NotImplemented


@pytest.mark.parametrize(
    "module", [npattn.PositionAttention(8), npattn.MultiHeadSelfAttention(8, 2, causal=True)], ids=["pam", "mhsa"]
)
def test_a_sampled_certificate_counts_nearly_as_many_digits_and_changes_nothing_else(module):
    whole, sampled = (golden(module, height=12, width=13, certify=certify) for certify in (True, "sample"))
    for name, budget in whole.budget.items():
        np.testing.assert_array_equal(sampled.budget[name], budget)
        np.testing.assert_array_equal(sampled.expected[name], whole.expected[name])
        assert sampled.digits[name] > 12 or sampled.digits[name] > whole.digits[name] - 1


@more_than_float64
@pytest.mark.parametrize("query", [SAMPLE.start, SAMPLE.start + 1])
def test_a_sampled_certificate_sees_what_is_wrong_of_single_queries(query):
    def wrong(called, arguments, options):
        if called is not ops.dot_product_attention or type(arguments[0]) is not np.ndarray:
            return NotImplemented
        o, backward = called(*arguments, **options)
        o[..., query] += 1e-6
        return o, backward

    with replacing(wrong):
        case = golden(npattn.PositionAttention(8), height=12, width=13, certify="sample")
    assert case.digits["output"] < 9


@pytest.mark.parametrize(("certify", "error"), [("samples", ValueError), (1, TypeError), (None, TypeError)])
def test_other_words_are_refused(certify, error):
    with pytest.raises(error, match=r"golden: certify=.*expected True, False, or 'sample'"):
        golden(npattn.EfficientChannelAttention(4), certify=certify)


@pytest.mark.parametrize("way", [sample_queries, divide])
def test_arrays_that_are_given_by_name_are_left_to_the_definition(way):
    expected, _ = ops.dot_product_attention.definition(*QKV)
    with replacing(way):
        found, _ = ops.dot_product_attention(**dict(zip("qkv", QKV, strict=True)))
    np.testing.assert_array_equal(found, expected)
