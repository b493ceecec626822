import pytest

from tests.cli.running import assert_one_complaint


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "", "1e3", "1000000000", "0x10", "1_000", "5\n"])
@pytest.mark.parametrize("name", ["check", "show", "golden"])
def test_bad_seed_is_refused_with_what_was_given(command, name, text):
    assert_one_complaint(
        command(name, "eca", f"--seed={text}"),
        f"npattn {name}: argument --seed: ",
        f"{text!r} is no seed",
        "expected a whole number from 0 to 999999999",
    )
