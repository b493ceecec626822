import pytest

from npattn.checks import check_names, require_choice


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
