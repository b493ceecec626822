import numpy as np

from npattn import ops
from npattn.oracle.mistakes.arrays import in_bfloat16
from npattn.oracle.mistakes.rules import rules_of


def rule(primitive, name):
    return next(one for one in rules_of(primitive) if one.name == name)


def test_a_gradient_may_be_made_with_an_argument_in_the_place_of_another():
    random = np.random.RandomState(0)
    q, k, v = random.standard_normal((3, 2, 4, 5))
    do = random.standard_normal((2, 4, 5))
    one = rule(ops.linear_attention, "gradient: of v made with q in the place of k")
    assert one.when(q, k, v)
    right, back = ops.linear_attention(q, k, v)
    y, back_wrong = one.apply(ops.linear_attention, q, k, v)
    assert np.array_equal(y, right)
    (dq, dk, dv), wrong = back(do), back_wrong(do)
    assert np.array_equal(wrong[0], dq)
    assert np.array_equal(wrong[1], dk)
    assert np.allclose(wrong[2], do @ q.swapaxes(1, 2) @ q)
    assert not np.allclose(wrong[2], dv)


def test_an_argument_of_another_shape_can_not_take_the_place_of_one():
    q, v = np.ones((2, 4, 5)), np.ones((2, 3, 5))
    assert not rule(ops.linear_attention, "gradient: of q made with v in the place of k").when(q, q, v)


def test_a_value_may_be_written_in_bfloat16():
    x = np.random.RandomState(0).standard_normal((2, 3))
    y, back = rule(ops.sigmoid, "value in bfloat16").apply(ops.sigmoid, x)
    assert np.array_equal(y, in_bfloat16(ops.sigmoid(x)[0]))
    assert np.array_equal(back(x), ops.sigmoid(x)[1](x))


def test_gradients_are_overwritten_only_where_there_are_others():
    first = rule(ops.accumulate, "gradient: of this step lost where others are added")
    one, other = np.ones(2), np.full(2, 3.0)
    assert not first.when(None, one)
    assert first.when(one, other)


def test_what_is_summed_over_an_axis_may_be_over_another():
    z, ds = np.random.RandomState(0).standard_normal((2, 2, 3, 3))
    s, back = rule(ops.softmax, "over axis 1").apply(ops.softmax, z)
    right, back_right = ops.softmax(z, axis=1)
    assert np.allclose(s, right)
    assert np.allclose(back(ds), back_right(ds))


def test_a_mean_and_its_gradient_may_be_off_by_the_count_either_way():
    x, dp = np.random.RandomState(0).standard_normal((2, 3, 4, 5)), np.ones((2, 3))
    pool = ops.global_average_pool
    values = {words: rule(pool, words).apply(pool, x)[0] for words in ("sum for mean", "mean for sum")}
    assert np.allclose(values["sum for mean"], x.sum(axis=(2, 3)))
    assert np.allclose(values["mean for sum"], x.mean(axis=(2, 3)) / 20)
    for words, gradient in (("summed, not averaged", 1.0), ("averaged, not summed", 1 / 400)):
        _, back = rule(pool, f"gradient: of x {words}").apply(pool, x)
        assert np.allclose(back(dp), gradient)
