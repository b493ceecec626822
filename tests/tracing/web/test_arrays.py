"""Arrays as pictures: what suits which size."""

import base64
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npattn.tracing.web.arrays import figure
from tests.naming import for_each


def kinds(value, positions=(0, 0)):
    drawn = figure("x", value, positions)
    return [
        *re.findall(r'data-kind="(\w+)"', drawn),
        *["table"] * drawn.count("<table"),
        *["scalar"] * ("scalar" in drawn),
    ]


@for_each(
    ("shape", "positions", "expected"),
    [
        ((), (0, 0), ["scalar"]),
        ((1, 2, 2, 2), (2, 2), ["table"] * 2),
        ((1, 32), (2, 2), ["bars"]),
        ((4, 32, 1, 1), (2, 2), ["map"]),
        ((1, 2, 20, 30), (20, 30), ["map"] * 2),
        ((1, 32, 20, 30), (20, 30), ["map"] * 3 + ["histogram"]),
        ((1, 1, 600), (20, 30), ["map"]),
        ((1, 1, 600), (1, 600), ["histogram"]),
        ((1, 500, 500), (20, 30), ["histogram"]),
        ((0, 3), (2, 2), []),
    ],
)
def test_every_size_has_its_picture(shape, positions, expected):
    assert kinds(np.ones(shape), positions) == expected


def test_numbers_of_a_picture_are_those_of_the_array():
    x = np.random.RandomState(0).standard_normal((1, 3, 9, 10))
    found = [base64.b64decode(text) for text in re.findall(r'data-numbers="([^"]*)"', figure("x", x, (9, 10)))]
    for channel, data in zip(x[0], found, strict=True):
        np.testing.assert_array_equal(np.frombuffer(data, "<f4").reshape(9, 10), channel.astype("<f4"))


@given(st.lists(st.floats(width=32), min_size=1, max_size=300), st.sampled_from([(-1,), (1, -1), (-1, 1)]))
def test_no_number_is_too_strange_to_be_drawn(numbers, shape):
    drawn = figure("<x>", np.reshape(numbers, shape), (0, 0))
    assert "<x>" not in drawn
    assert kinds(np.reshape(numbers, shape))
    shares = [int(share) for share in re.findall(r"--share:(\d+)%", drawn)]
    assert all(0 <= share <= 100 for share in shares)


def test_what_is_written_as_nothing_has_no_colour():
    drawn = figure("x", np.array([1e-17, -2e-16]), (0, 0))
    assert re.findall(r"--share:(\d+)%", drawn) == ["0", "0"]


def test_long_names_go_on_in_another_line_after_a_dot():
    assert "a.<wbr>b&lt;.<wbr>weight</output>" in figure("a.b<.weight", np.zeros((4, 32)), (0, 0))
