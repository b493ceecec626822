import importlib.metadata

import npattn
from npattn.version import UNKNOWN, find_version


def test_the_version_is_that_of_the_installed_distribution(monkeypatch):
    monkeypatch.setattr("npattn.version.version", lambda name: {"npattn": "7.8"}[name])
    assert npattn.__version__ == find_version() == "7.8"


def test_a_folder_without_a_distribution_has_a_version_that_says_so(monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata.Distribution, "from_name", nothing)
    assert npattn.__version__ == find_version() == UNKNOWN
