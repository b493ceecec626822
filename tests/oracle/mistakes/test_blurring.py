"""What a result says nothing of is no ground for a second mistake, nor for naming the first surely."""

import numpy as np
import pytest

from npattn.oracle.formats import FORMATS, representable
from tests.oracle.mistakes.searching import diagnosed
from tests.oracle.mistakes.shared_heads import M, N, case_of, in_turn, kernel


def bfloat16(a):
    return representable(a, FORMATS["bfloat16"])


def test_wrong_sums_over_heads_are_one_mistake_where_weights_are_as_good_as_0_and_1():
    case = case_of("bottom-right", "bfloat16", "large", 2)
    results = kernel(case, sums=(in_turn, in_turn), rounded=bfloat16)
    found = diagnosed(case, {name: bfloat16(a) for name, a in results.items()})
    assert found[0].name == "every (1'), (2') repeat: gradient: added up over heads in turn, not over groups"
    assert found[0].results == ("value.grad",)
    assert found.blurred == ("key.grad",)
    assert "key.grad says nothing of it: rounding errs by more there than is wrong" in str(found)


@pytest.mark.parametrize("seed", range(6))
def test_a_mask_one_key_late_is_one_mistake_where_weights_are_as_good_as_0_and_1(seed):
    """A key that should be hidden takes all the weight, and gradients of 0 are errors of rounding alone."""
    case = case_of("bottom-right", "bfloat16", "large", seed)
    results = kernel(case, seen=np.tri(M, N, N - M + 1) > 0, rounded=bfloat16)
    found = diagnosed(case, {name: bfloat16(a) for name, a in results.items()})
    assert [len(one.mistakes) for one in found] == [1]
    assert found[0].name == "(3) masked_attention: mask one key late, carried through backward"
    assert found.sure == found[0].all
    assert found.sure != bool(found.blurred)
