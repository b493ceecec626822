import ast

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
