"""Arrays that know what they were made from keep it through whatever NumPy does."""

import numpy as np

from npattn.oracle.steps.flowing import FlowingArray, flow
from tests.naming import for_each

SQUARE = np.arange(9.0).reshape(3, 3)


def pair():
    return (flow(SQUARE + i, frozenset([f"{name}"])) for i, name in enumerate("ab"))


def written(a, b):
    y = np.zeros_like(a)
    y[1] = b[0]
    return y


def written_through_a_view(a, b):
    y = np.empty_like(a)
    row = y.T[0]
    row[...] = b[0]
    return y


def added_in_place(a, b):
    y = a.copy()
    y += b
    return y


def added_at(a, b):
    y = np.zeros_like(a)
    np.add.at(y, (np.array([0, 1]),), b[:2])
    return y


def into_out(a, b):
    y = np.empty_like(a)
    np.matmul(a, b, out=y)
    return y


def put_along(a, b):
    y = np.zeros_like(a)
    np.put_along_axis(y, a.argmax(axis=1, keepdims=True), b[:, :1], axis=1)
    return y


@for_each(
    ("compute", "marks"),
    [
        (lambda a, b: a + 1, "a"),
        (lambda a, b: a @ b, "ab"),
        (lambda a, b: 1 - b.T[1:], "b"),
        (lambda a, b: np.einsum("ij,jk->ik", a, b), "ab"),
        (lambda a, b: np.where(a > 4, b, 0), "ab"),
        (lambda a, b: np.where(a > 4, 1.0, 0.0), "a"),
        (lambda a, b: np.concatenate([a, b])[:3], "ab"),
        (lambda a, b: a[b.argmax(axis=0)], "ab"),
        (lambda a, b: np.take_along_axis(a, b.argsort(axis=0), axis=0), "ab"),
        (lambda a, b: a[0, 0] * np.ones(2), "a"),
        (lambda a, b: a.sum(), "a"),
        (lambda a, b: a.mean(axis=0, keepdims=True).reshape(3) - b.max(), "ab"),
        (lambda a, b: a.dot(b), "ab"),
        (np.dot, "ab"),
        (lambda a, b: a.take(b.argmax(axis=0), axis=0), "ab"),
        (lambda a, b: np.lib.stride_tricks.sliding_window_view(a, 2, axis=0).sum(axis=-1), "a"),
        (lambda a, b: np.split(np.stack([a, b]), 2)[0], "ab"),
        (lambda a, b: np.add.reduce(a, where=b > 3), "ab"),
        (lambda a, b: next(iter(a)) + float(2), "a"),
        (lambda a, b: np.zeros_like(a), ""),
        (lambda a, b: np.empty_like(a, shape=(2,)), ""),
        (written, "b"),
        (written_through_a_view, "b"),
        (added_at, "b"),
        (into_out, "ab"),
        (put_along, "ab"),
    ],
)
def test_a_result_is_made_from_what_was_computed_with(compute, marks):
    found = compute(*pair())
    assert isinstance(found, FlowingArray)
    assert found.marks == set(marks)
    np.testing.assert_array_equal(np.asarray(found) * 0, np.asarray(compute(SQUARE, SQUARE + 1)) * 0)


def test_what_is_written_stands_in_all_views_and_not_in_copies():
    a, b = pair()
    view, other, copied = a[1:], a.T, np.array(a, subok=True)
    view += b[1:]
    assert view.marks >= {"a", "b"}
    assert other.marks == a.marks == {"a", "b"}
    assert copied.marks == {"a"}
    assert b.marks == {"b"}


def test_a_copy_marks_what_comes_after_it_and_nothing_before():
    a, _ = pair()
    before = a + 1
    taken = a.copy()
    assert taken.mark not in taken.marks | before.marks
    assert taken.mark in (a + 1).marks
    assert added_in_place(*pair()).marks == {"a", "b"}


def test_values_are_those_of_plain_arrays():
    a, b = pair()
    np.testing.assert_array_equal(
        np.asarray(np.where(a > b.T, a @ b, -a)), np.where(SQUARE > (SQUARE + 1).T, SQUARE @ (SQUARE + 1), -SQUARE)
    )
