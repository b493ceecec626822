"""A few recipes whose cases are made in no time."""

import shutil

import pytest

from npattn.oracle import cases, suite, worker_processes


@pytest.fixture(scope="session")
def recipes():
    return cases("eca", ["float16"], kinds=["ties", "zeros", "empty"])


@pytest.fixture(scope="session")
def kept_here(recipes, tmp_path_factory):
    """A folder with what this process makes of the recipes, to be left as it is."""
    folder = tmp_path_factory.mktemp("here")
    suite(recipes, folder)
    return folder


@pytest.fixture
def made(kept_here, tmp_path):
    """A folder with what this process makes of the recipes."""
    return shutil.copytree(kept_here, tmp_path / "made")


@pytest.fixture(scope="module")
def processes():
    """Two processes, which take longer to start than all that they are to make."""
    with worker_processes(2) as pool:
        yield pool
