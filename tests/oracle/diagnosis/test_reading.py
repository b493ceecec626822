import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn.oracle import golden
from npattn.oracle.diagnosis import read_result
from tests.oracle.diagnosis.distorting import (
    ALL,
    COARSE,
    DISTORTIONS,
    PRECISE,
    filled,
    made_up,
    make_case,
    rounded,
)

seeds = st.integers(0, 2**32 - 2)


def read(case, values, seed=0):
    """What is said of an output, which is checked to be wrong."""
    got = rounded(case, values, seed)
    assert not case.compare({"output": got}).passed
    return read_result(case, "output", got)


@pytest.mark.parametrize("text", DISTORTIONS)
@settings(max_examples=2)
@given(made_up(PRECISE), seeds)
def test_every_distortion_is_named(text, made, seed):
    case = make_case(*made)
    found = read(case, DISTORTIONS[text](case.expected["output"], case), seed)
    assert any(words in found for words in text.split("|")), found


@settings(max_examples=10)
@given(st.sampled_from(list(DISTORTIONS)), made_up(COARSE), seeds)
def test_in_a_coarse_format_it_is_named_or_nothing_is_said(text, made, seed):
    case = make_case(*made)
    got = rounded(case, DISTORTIONS[text](case.expected["output"], case), seed)
    found = read_result(case, "output", got)
    assert not found or any(words in found for words in text.split("|")), found


@settings(max_examples=6)
@given(made_up(PRECISE + COARSE), seeds)
def test_nothing_is_said_of_a_correct_result(made, seed):
    case = make_case(*made)
    got = rounded(case, case.expected["output"], seed)
    assert case.compare({"output": got}).passed
    assert not read_result(case, "output", got)


@settings(max_examples=6)
@given(made_up(PRECISE + COARSE), seeds, st.floats(1, 1e4), st.booleans())
def test_nothing_is_said_of_a_result_that_is_wrong_at_random(made, seed, units, relative):
    case = make_case(*made)
    random = np.random.RandomState(seed)
    y, unit = case.expected["output"], case.budget["output"]
    error = random.standard_normal(y.shape)
    got = y * (1 + units * 1e-2 * error) if relative else y + units * error * unit
    assert not read_result(case, "output", got)
    assert not read_result(case, "output", random.permutation(y.ravel()).reshape(y.shape))


@settings(max_examples=6)
@given(made_up(PRECISE), seeds, st.floats(0.02, 0.6))
def test_nothing_is_said_of_scattered_errors(made, seed, share):
    case = make_case(*made)
    random = np.random.RandomState(seed)
    y = case.expected["output"]
    wrong = random.random_sample(y.shape) < share
    if wrong.sum() > 10:
        assert not read_result(case, "output", np.where(wrong, random.standard_normal(y.shape), y))


def test_a_constant_result_proves_no_permutation_and_no_factor():
    case = make_case((2, 4, 5, 6), "float32")
    for name in case.expected:
        case.expected[name][...] = 0.3
    y = case.expected["output"]
    assert not read_result(case, "output", 0.8 * y)
    case.expected["output"][...] = np.random.RandomState(0).standard_normal((1, 4, 1, 1))
    assert "channels" in read_result(case, "output", y[:, [2, 0, 3, 1]])
    assert "column" not in read_result(case, "output", y[:, ::-1])


def test_what_is_not_judged_says_nothing():
    case = make_case((2, 4, 5, 6), "float16")
    y = case.expected["output"]
    got = 0.8 * y
    got[0, 0], case.budget["output"][0, 0] = np.nan, np.inf
    assert read_result(case, "output", got) == "0.8 times expected"
    case.budget["output"][...] = np.inf
    assert not read_result(case, "output", got)


def test_slices_that_are_0_are_not_found_right():
    """A factor, of which each element has its own, leaves 0 as it is: that says nothing of where it is."""
    case = make_case((2, 4, 5, 6), "float32")
    y = case.expected["output"]
    y[:, 2] = 0
    error = np.random.RandomState(0).uniform(0.2, 0.8, y.shape)
    assert not read_result(case, "output", y * error)
    y[:, 2] = 1
    assert "channel" in read_result(case, "output", np.where(y == 1, y, y * error))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("name", "masked", "block"),
    [
        ("query.grad", (48, 41, "top-left"), (slice(-16, None), 0, "the last 16 queries")),
        ("query.grad", (48, 41, "top-left"), (slice(8, 16), 3.3, "queries 8 to 15")),
        ("query.grad", (48, 41, "bottom-right"), (slice(-16, None), 0, "the last 16 queries")),
        ("query.grad", (24, 41, "top-left"), (slice(8, 16), 0, "queries 8 to 15")),
        ("key.grad", (48, 41, "top-left"), (slice(16), 0, "the first 16 keys")),
        ("key.grad", (24, 81, "top-left"), (slice(16), 0, "the first 16 keys")),
        ("key.grad", (24, 41, "bottom-right"), (slice(16), 0, "the first 16 keys")),
    ],
)
def test_a_block_of_a_masked_gradient_is_told_beside_gradients_that_are_0(name, masked, block, dtype):
    (queries, keys, causal), (where, number, text) = masked, block
    module = npattn.ScaledDotProductAttention(heads=4, key_heads=2, head_dim=16, causal=causal)
    case = golden(module, batch=2, height=queries, width=keys, dtype=dtype, certify=False)
    got = filled(case.expected[name], number, ALL, ALL, where)
    found = read_result(case, name, got)
    assert found.startswith(f"wrong in {text}"), found
    assert found.endswith(f" alone, where it is {number}; all else is right")


def test_what_several_readings_say_alike_is_said_once():
    case = make_case((2, 3, 5, 6), "float32")
    y = case.expected["output"]
    assert read_result(case, "output", y[::-1]) == "reversed along its images"
    assert read_result(case, "output", 2 * y) == "2 times expected (B)"


def test_a_factor_is_told_in_float32_that_five_digits_do_not_write():
    case = make_case((2, 4, 5, 5), "float32", 0)
    assert read_result(case, "output", case.expected["output"] * (161 / 189)) == "0.85185 times expected"
