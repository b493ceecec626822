from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npattn.oracle.diagnosis.axes import name_axes
from npattn.oracle.diagnosis.places import describe_indices, describe_place
from npattn.oracle.golden_files.described import AXES, Described
from tests.naming import for_each
from tests.oracle.made_up import made_up
from tests.own_systems import OWN_SYSTEMS, Powers, RMSNorm

NAMES = "image", "head", "query", "key"
ROW, COLUMN = np.indices((8, 8))


@for_each(
    ("indices", "length", "text"),
    [
        ([3], 8, "key 3"),
        (range(84, 100), 100, "the last 16 keys"),
        (range(64, 128), 128, "the last 64 keys"),
        (range(64, 100), 100, "the last 36 keys (beyond blocks of 64)"),
        (range(1, 5), 5, "keys after the first"),
        (range(3), 9, "the first 3 keys"),
        (range(4, 8), 16, "keys 4 to 7 (group 1 of 4)"),
        (range(3, 6), 16, "keys 3 to 5"),
        (range(1, 9, 2), 9, "odd keys"),
        (range(0, 9, 2), 9, "even keys"),
        (range(2, 16, 4), 16, "every 4th of the keys, from 2"),
        ([0, 8], 9, "the first and the last key"),
        ([0, 1, 7, 8], 9, "the first and the last 2 keys"),
        ([0, 1, 2, 4, 5, 6, 7, 8], 9, None),
        ([2, 5, 6], 9, "keys 2, 5 and 6"),
        ([1, 2, 5, 6, 8], 12, None),
    ],
)
def test_indices_have_short_names(indices, length, text):
    assert describe_indices(np.array(indices), length, "key") == text


@for_each(
    ("pattern", "text"),
    [
        (ROW == COLUMN, "the diagonal of queries and keys"),
        (COLUMN > ROW, "above the diagonal of queries and keys"),
        (COLUMN < ROW, "below the diagonal of queries and keys"),
        (COLUMN == ROW + 1, "1 above the diagonal of queries and keys"),
        ((ROW + COLUMN) % 2 == 1, "odd sums of queries and keys, as on a chessboard"),
        (
            np.minimum(np.minimum(ROW, 7 - ROW), np.minimum(COLUMN, 7 - COLUMN)) < 2,
            "a border of 2 of the queries and keys",
        ),
    ],
)
def test_places_on_two_axes_have_names(pattern, text):
    wrong = np.zeros((2, 3, 8, 8), bool)
    wrong[:, 1] = pattern
    found, place = describe_place(wrong, NAMES)
    assert found == f"head 1, {text}"
    np.testing.assert_array_equal(place, wrong)


@given(st.data())
def test_a_place_holds_all_that_is_wrong_and_little_else(data):
    shape = (2, 4, 7, 9)
    wrong = np.zeros(shape, bool)
    wrong[tuple(slice(*sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in shape)] = True
    wrong &= np.random.RandomState(0).random_sample(shape) < data.draw(st.sampled_from([0.6, 1]))
    found = describe_place(wrong, NAMES)
    if found is not None:
        assert found[0]
        assert not (wrong & ~found[1]).any()
        assert wrong[found[1]].mean() >= 0.3


def test_nothing_is_said_of_what_is_wrong_everywhere_or_nowhere_or_here_and_there():
    scattered = np.random.RandomState(0).random_sample((2, 4, 7, 9)) < 0.2
    for wrong in (scattered, np.ones((3, 3), bool), np.zeros((3, 3), bool)):
        assert describe_place(wrong, NAMES) is None


def test_every_axis_of_a_system_that_is_no_more_than_described_has_a_name():
    for system in (Powers, *OWN_SYSTEMS):
        case = made_up(system.example())
        described = [replace(case, module=Described(system.__name__, (), axes)) for axes in ("", *AXES)]
        for name, expected in case.expected.items():
            for judged in (case, *described):
                assert len(name_axes(judged, name, expected.shape)) == expected.ndim
    made = made_up(Powers()), made_up(RMSNorm())
    vector, tokens = (replace(one, module=Described("Own", (), "maps")) for one in made)
    assert name_axes(vector, "v.grad", (40,)) == ("axis 0",)
    assert name_axes(tokens, "x.grad", (2, 20, 4)) == ("axis 0", "axis 1", "axis 2")
    assert name_axes(tokens, "output", (2, 20)) == ("axis 0", "axis 1")
