import ast
import copy

import numpy as np
import pytest

from npattn.oracle.mistakes.indexing import heads_of, index_variants, names_of_indices


def readings(text, **names):
    """What each wrong reading of an expression of indices gives, by its words."""
    node = ast.parse(text, mode="eval").body
    wrong = [(words, make(ast.parse(text, mode="eval").body)) for words, make in index_variants(node, {"i", "j"})]
    return {words: eval(ast.unparse(ast.fix_missing_locations(one)), {"np": np, **names}) for words, one in wrong}


i, j = np.ogrid[:6, :6]


@pytest.mark.parametrize(
    ("text", "words", "wrong"),
    [
        ("i < j", "one place less", i < j - 1),
        ("i >= j", "one place more", i >= j - 1),
        ("i >= j", "equality alone", i == j),
        ("(i >= j) & (i - j < 3)", "i >= j left out", i - j < 3),
        ("(i >= j) | (j < 3)", "j < 3 left out", i >= j),
        ("i - j", "one more", i - j + 1),
        ("i // 3 == j // 3", "what is more counted too", i // 3 >= j // 3),
        ("i // 3 >= j // 3", "blocks of one less", i // 2 >= j // 2),
        ("i // 3 >= j // 3", "blocks of twice as many", i // 6 >= j // 6),
        ("i // 3 >= j // 3", "blocks of one", i >= j),
        ("np.abs(i - j)", "abs left out, and the sign turned", j - i),
        ("~(i < j)", "~ left out", i < j),
        ("np.logical_and(i >= j, j > 2)", "i >= j left out", np.broadcast_to(j > 2, (6, 6))),
    ],
)
def test_arithmetic_with_indices_is_read_wrongly(text, words, wrong):
    found = readings(text, i=i, j=j)
    assert np.array_equal(np.broadcast_to(found[words], (6, 6)), wrong)


def test_of_comparisons_in_a_row_each_bound_may_move_or_be_left_out():
    def kept(found):
        return [n for n in range(-3, 6) if found(n)]

    for text, words, wrong in (
        ("0 <= i < 3", "0 <= i left out", [-3, -2, -1, 0, 1, 2]),
        ("0 <= i < 3", "i < 3 left out", [0, 1, 2, 3, 4, 5]),
        ("i > 0 and i < 3", "i > 0 left out", [-3, -2, -1, 0, 1, 2]),
    ):
        assert kept(lambda n, text=text, words=words: readings(text, i=n)[words]) == wrong


def test_a_slice_may_begin_or_end_one_place_off():
    found = readings("range(9)[i:j]", i=2, j=5)
    assert found == {}  # its own, not what it stands in
    node = ast.parse("a[i:j]", mode="eval").body.slice
    moved = {words: ast.unparse(make(copy.copy(node))) for words, make in index_variants(node, {"i", "j"})}
    assert moved == {
        "begins one place early": "i - 1:j",
        "begins one place late": "i + 1:j",
        "ends one place early": "i:j - 1",
        "ends one place late": "i:j + 1",
    }


def test_indices_are_known_by_where_they_come_from():
    text = """
def forward(self, params, x):
    rows, columns = np.indices((3, 3))
    n = x.shape[1]
    y, back = ops.shift(x, rows)
    far = [i > j for i in range(n) for j in range(i)]
    mask = np.fromfunction(lambda a, b: a >= b, (n, n))
    mask[0] = x
    if rows.size:
        z = x + 1
    for t, token in enumerate(x):
        pass
"""
    definition = ast.parse(text).body[0]
    assert names_of_indices(definition) == {"rows", "columns", "i", "j", "far", "a", "b", "mask", "t", "token"}
    assert [ast.unparse(head) for _, head in heads_of(definition)] == ["rows.size", "enumerate(x)"]
