"""What a kernel of attention whose heads share keys and values may do on the way back alone is named."""

import math

import numpy as np
import pytest

from npattn.oracle import mistakes
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.diagnosing import by_rule
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.planting import EVERY
from tests.benchmarks import kernels
from tests.oracle.mistakes.searching import diagnosed
from tests.oracle.mistakes.shared_heads import FIRST, LAST, B, D, G, M, R, case_of, in_turn, kernel, over_groups


def run(module, *given):
    return named_results(module, Given(*given))


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


def test_another_corner_is_one_mistake_whether_the_mask_is_wrong_or_the_hyperparameter():
    found = diagnosed(case_of("bottom-right"), kernel(case_of("bottom-right"), seen=FIRST))
    assert [one.name for one in found] == ["(3) masked_attention: wrong alignment, carried through backward"]
    assert found.sure
    assert "; here the same: causal='top-left' for" in str(found)
    assert "may tell" not in str(found)


@pytest.mark.parametrize(
    ("name", "site"), [("masked_attention: base 2", 0), ("repeat: heads in turn", EVERY), ("repeat: heads in turn", 1)]
)
def test_mistakes_that_are_one_where_nothing_else_is_asked_for_are_told_once(name, site):
    """Base 2 in the bias and the sink too, where there are none; channels of a group, which are heads here."""
    case = case_of("bottom-right")
    (mistake,) = (one for one in MISTAKES if (str(one), one.way) == (name, "carried"))
    wrong = mistakes.faulty(run, mistake, site)(case.module, *kernels.given(case))
    found = diagnosed(case, {name: a for name, a in wrong.items() if name not in case.maps})
    assert found.sure
    assert found.alike == 1
    assert found[0].mistakes == (mistake,)


def test_no_wrong_reading_is_tried_of_what_no_kernel_has():
    """Options are handed on, and gradients that there are not are None, in this system's code alone."""
    search = Search(case_of("bottom-right"), {"output": np.zeros((B, G * R, M, D))})
    names = [one.name for one in by_rule(search)]
    assert not any(words in name for name in names for words in ("attention_options", "(None,)", "Pass("))
    assert any("`ops.repeat(value, shared, axis=1)`" in name for name in names)
