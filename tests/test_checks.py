import pytest

import npattn
from npattn.checks import check_names, require_addressable, require_choice, require_equal_shares
from tests.naming import for_each


def test_a_choice_in_capitals_is_told_as_it_is_written():
    with pytest.raises(
        ValueError, match=r"^call: variant='CODE'; did you mean 'code'\? \(expected 'paper' or 'code'\)$"
    ):
        require_choice("call", ("paper", "code"), variant="CODE")


def test_an_unknown_input_is_told_the_missing_one_before_any_other():
    with pytest.raises(ValueError, match=r"^call: unknown input 'mapz'; did you mean 'maps'\? \(expected map, maps\)$"):
        check_names("call", {"map": 1, "mapz": 2}, {"map": (1,), "maps": (1,)}, "input")
    with pytest.raises(ValueError, match=r"^call: missing input 'maps' of shape \(1,\)$"):
        check_names("call", {"map": 1}, {"map": (1,), "maps": (1,)}, "input")


def test_arrays_that_no_memory_holds_are_refused_and_those_that_one_may_hold_are_not():
    require_addressable("call", {"x": (2**59 - 1,), "none": (0, 10**30)})
    with pytest.raises(ValueError, match=r"^call: x would be of shape \(1, 576460752303423488\), more numbers"):
        require_addressable("call", {"none": (0,), "x": (1, 2**59)})
    with pytest.raises(ValueError, match=r"^SqueezeExcitation\.init: fc1\.weight would be of shape"):
        npattn.SqueezeExcitation(10**12).init()


@for_each(("parts", "total", "fitting"), [(3, 16, "15 or 18"), (5, 9, "5 or 10"), (16, 4, "16")])
def test_a_number_of_parts_that_does_not_divide_is_told_the_nearest_totals_that_it_divides(parts, total, fitting):
    with pytest.raises(ValueError, match=f"^call: heads={parts}; .* with {parts} heads, {fitting} channels would do$"):
        require_equal_shares("call", "heads", parts, "channels", total)
    require_equal_shares("call", "heads", parts, "channels", 2 * parts)
