import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn.cli.timing import format_duration


@given(st.floats(1e-5, 900))
def test_durations_keep_three_digits_and_fit_their_column(seconds):
    text = format_duration(seconds)
    number, unit = text.split()
    assert len(text) <= 9
    assert "e" not in number
    assert float(number) * {"s": 1, "ms": 1e-3}[unit] == pytest.approx(seconds, rel=5.1e-3)
