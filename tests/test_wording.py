import pytest

from npattn.wording import did_you_mean, nearest, suggest


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
