import functools

import numpy as np
import pytest

from npattn.oracle import generic_values, golden, gradcheck
from tests.benchmarks.kernels import nearest
from tests.benchmarks.masked import MASKINGS, MaskedAttention

every_masking = pytest.mark.parametrize("masking", MASKINGS)
every_pattern = pytest.mark.parametrize("pattern", ["causal", "padding"])


@every_masking
@every_pattern
@pytest.mark.parametrize("by_hand", [False, True])
def test_gradients_are_right_and_hidden_positions_have_no_part_in_the_output(masking, pattern, by_hand):
    module = MaskedAttention(4, masking, pattern, by_hand)
    params, inputs = generic_values(module, batch=1, height=2, width=3)
    assert gradcheck(module, params, inputs).passed
    other = inputs["x"].copy()
    other[..., -1, -1] += 1  # the last position is hidden from all others either way
    before, after = (module(params, x).output.reshape(4, 6) for x in (inputs["x"], other))
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])


@functools.cache
def make_case(masking, pattern, dtype):
    """The case of a way to mask; that of selection, all others are compared with."""
    return golden(MaskedAttention(16, masking, pattern), batch=1, height=4, width=5, dtype=dtype)


@every_masking
@every_pattern
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_mask_leaves_every_budget_finite_and_as_a_selections(masking, pattern, dtype):
    case, selected = (make_case(how, pattern, dtype) for how in (masking, "select"))
    for name, budget in case.budget.items():
        assert np.isfinite(budget).all(), name
        assert 0.4 < np.median(budget / selected.budget[name]) < 2.5, name
    assert case.compare(nearest(case)).passed
    for name in ("key.weight.grad", "value.weight.grad", "x.grad", "output"):
        for garbage in (np.full_like(case.expected[name], 1e6), 1.2 * case.expected[name]):
            assert not case.compare({name: garbage}).passed, name


def test_large_inputs_are_as_large_whatever_the_mask_adds():
    largest = {
        masking: np.abs(golden(MaskedAttention(16, masking), values="large", height=4, width=5).inputs["x"]).max()
        for masking in MASKINGS
    }
    assert len(set(largest.values())) == 1
