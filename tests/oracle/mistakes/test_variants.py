import ast
import math

import numpy as np

from npattn.oracle.mistakes.variants import variants


def readings(text, **names):
    """What each wrong reading of an expression gives, by its words."""
    node = ast.parse(text, mode="eval").body
    wrong = {words: ast.unparse(ast.fix_missing_locations(make(node))) for words, make in variants(node, names)}
    return {words: eval(one, {**names}) for words, one in wrong.items()}


def test_a_reshape_may_lay_out_two_axes_in_the_other_order():
    z = np.arange(48).reshape(2, 24)
    found = readings("z.reshape(2, 2, 3, 4)", z=z)
    for i, sizes in ((1, (2, 3, 2, 4)), (2, (2, 2, 4, 3))):
        wrong = found[f"axes {i} and {i + 1} exchanged in memory"]
        assert wrong.shape == (2, 2, 3, 4)
        assert np.array_equal(wrong, z.reshape(sizes).swapaxes(i, i + 1))


def test_a_reshape_into_axes_of_unknown_number_is_left_alone():
    assert not any("in memory" in words for words in readings("z.reshape(*z.shape[:1], 2, 3)", z=np.ones((2, 6))))


def test_a_sum_may_be_divided_by_one_fewer_or_one_more():
    found = readings("1 / len(maps)", maps=[1, 2, 3])
    assert (found["divided by one fewer"], found["divided by one more"]) == (0.5, 0.25)


def test_of_a_sum_of_products_an_operand_may_be_transposed_or_both_exchanged():
    s, v = np.random.RandomState(0).standard_normal((2, 3, 3))
    found = readings("np.einsum('mn,cn->cm', s, v)", np=np, s=s, v=v)
    assert set(found) == {"operands exchanged", "s transposed", "v transposed"}
    assert np.allclose(found["s transposed"], v @ s)
    assert np.allclose(found["v transposed"], v.T @ s.T)
    assert np.allclose(found["operands exchanged"], s @ v.T)


def test_the_diagonal_of_a_triangle_may_be_one_off():
    found = readings("np.tril(a, k=1)", np=np, a=np.ones((4, 4)))
    assert np.array_equal(found["diagonal one further on"], np.tri(4, k=2))
    assert np.array_equal(found["diagonal one further back"], np.tri(4))


def test_a_root_may_be_left_out_and_a_power_have_the_other_sign():
    assert readings("math.sqrt(c)", math=math, c=4)["sqrt left out"] == 4
    found = readings("c**-0.5", c=4)
    assert (found["root left out"], found["sign of the power turned"], found["power left out"]) == (0.25, 2.0, 4)
    assert "root left out" not in readings("c**2", c=4)


def test_a_comparison_may_count_equality_or_not():
    assert readings("a >= 2", a=2) == {"equality left out": False}
    assert readings("a < 2", a=2) == {"equality counted": True}
    assert readings("1 < a < 3", a=2) == readings("a == 2", a=2) == {}
