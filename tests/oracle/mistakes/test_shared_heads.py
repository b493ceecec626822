"""What a kernel of attention whose heads share keys and values may do on the way back alone is named."""

import math

import numpy as np
import pytest

from tests.oracle.mistakes.searching import diagnosed
from tests.oracle.mistakes.shared_heads import FIRST, LAST, D, case_of, in_turn, kernel, over_groups

WRONG = {
    "dk": ("bottom-right", {"sums": (in_turn, over_groups)}, "(1') repeat: gradient: added up over heads in turn"),
    "dv": ("bottom-right", {"sums": (over_groups, in_turn)}, "(2') repeat: gradient: added up over heads in turn"),
    "both": (
        "bottom-right",
        {"sums": (in_turn,) * 2},
        "every (1'), (2') repeat: gradient: added up over heads in turn",
    ),
    "2^(z - l log2 e)": (
        "bottom-right",
        {"weigh": lambda z, lse: np.exp2(z - lse / math.log(2))},
        "gradient: log₂ e left out of the logits where weights are made again",
    ),
    "2^(z - l)": (
        "bottom-right",
        {"weigh": lambda z, lse: np.exp2(z - lse)},
        "gradient: log₂ e left out of the logits and the logsumexp where weights are made again",
    ),
    "first": ("bottom-right", {"seen_again": FIRST}, "gradient: wrong alignment where weights are made again"),
    "last": ("top-left", {"seen_again": LAST}, "gradient: wrong alignment where weights are made again"),
    "scale twice": ("bottom-right", {"factors": (D**-0.5,) * 2}, "gradient: scale twice in dq and dk"),
    "no scale": ("bottom-right", {"factors": (D**0.5,) * 2}, "gradient: scale missing in dq and dk"),
    "scale twice in dq": ("bottom-right", {"factors": (D**-0.5, 1)}, "gradient: scale twice in dq"),
    "scale twice in dk": ("bottom-right", {"factors": (1, D**-0.5)}, "gradient: scale twice in dk"),
    "no scale in dk": ("bottom-right", {"factors": (1, D**0.5)}, "gradient: scale missing in dk"),
}


@pytest.mark.parametrize("causal", ["top-left", "bottom-right"])
def test_the_kernel_is_right_where_nothing_is_wrong(causal):
    assert case_of(causal).compare(kernel(case_of(causal))).passed


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_backward_alone_is_named_surely(what):
    causal, mistakes, name = WRONG[what]
    found = diagnosed(case_of(causal), kernel(case_of(causal), **mistakes))
    assert found.sure
    assert found.alike == 1
    assert name in found[0].name
