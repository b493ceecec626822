import pytest

from npattn.checks import check_names, did_you_mean, nearest, require_choice, suggest


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ""),
        (["a"], "; did you mean 'a'?"),
        (["a", "b"], "; did you mean 'a' or 'b'?"),
        (["a", "b", "c"], "; did you mean 'a', 'b' or 'c'?"),
    ],
)
def test_what_is_suggested_reads_as_a_clause(names, expected):
    assert suggest(names) == expected


def test_the_nearest_spelling_is_found_in_whatever_case_and_as_it_is_written():
    choices = ["ChannelGate", "SpatialGate", "code"]
    assert nearest("CHANNELGATE", choices) == nearest("channelgat", choices) == ["ChannelGate"]
    assert did_you_mean("CODE", choices) == "; did you mean 'code'?"
    assert nearest("zzz", choices) == nearest("", choices) == []
    assert nearest("kode", choices, cutoff=0.9) == []


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
