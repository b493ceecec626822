"""A case, its file, and a place for others."""

import pytest

import npattn
from npattn.oracle import golden


@pytest.fixture(scope="session")
def case():
    return golden(npattn.EfficientChannelAttention(channels=3, kernel_size=3), height=2, width=3)


@pytest.fixture(scope="session")
def good(case, tmp_path_factory):
    """The bytes of a golden file."""
    path = tmp_path_factory.mktemp("good") / "good.npz"
    case.save(path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    """A path that every example may write anew."""
    return tmp_path_factory.mktemp("scratch") / "case.npz"
