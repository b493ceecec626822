import argparse
import re

import pytest

from npattn.cli import make_parser
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


def test_defaults_are_those_that_help_tells():
    (commands,) = (one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    told = {
        (name, option.dest): (match[1], str(option.default))
        for name, command in commands.choices.items()
        for option in command._actions
        if option.default is not None and (match := re.search(r"default: ([^,)]+)", option.help or ""))
    }
    assert {name for name, option in told if option == "seed"} >= {"check", "golden", "show", "trace", "train"}
    for said, default in told.values():
        assert said == default
