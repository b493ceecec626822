"""The command, run in this process."""

import pytest

from npattn import cli, oracle
from tests.cli.running import SMALL


@pytest.fixture
def command(capsys):
    """Run the command: exit status, what it wrote to stdout, what it wrote to stderr."""

    def run(*arguments, **options):
        try:
            status = cli.main(arguments, **options)
        except SystemExit as leaving:
            status = leaving.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def small(command, folder):
    """A golden file, and the results it expects."""
    assert command("golden", "eca", "channels=3", *SMALL)[0] == 0
    case = oracle.load("eca-float16.npz")
    return case, {name: y.copy() for name, y in case.expected.items()}
