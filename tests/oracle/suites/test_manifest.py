import json

import pytest

from npattn.oracle import ArchiveError, suite
from npattn.oracle.suites import read_manifest


@pytest.fixture
def altered(made):
    """Write a manifest again, altered, and return its folder."""
    path = made / "manifest.json"

    def alter(change):
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))
        return made

    return alter


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.clear(), "its format is not"),
        (lambda m: m.update(format="other"), "its format is not"),
        (lambda m: m.update(version=2), "version 2; npattn .* reads version 1"),
        (lambda m: m.update(cases=3), "cases holds"),
        (lambda m: m["cases"][0].pop("sha256"), "cases holds"),
        (lambda m: m["cases"][0].update(file="../x.npz"), "cases holds"),
        (lambda m: m["cases"][0].update(file="x.exe"), "cases holds"),
        (lambda m: m["cases"][0].update(sha256=5), "cases holds"),
        (lambda m: m["cases"].append(m["cases"][0]), "lists a file twice"),
    ],
)
def test_other_manifests_are_refused_in_one_line(altered, recipes, change, words):
    folder = altered(change)
    with pytest.raises(ArchiveError, match=words) as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(ArchiveError, match=words):
        suite(recipes, folder)


def test_a_manifest_that_is_cut_off_is_refused(made):
    path = made / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match="cut off or altered"):
        read_manifest(made)
