import re
from pathlib import Path

import pytest

import npattn
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.planting import sites
from tests.benchmarks import judge, kernels

PAGES = Path(npattn.__file__).parents[1] / "derivations"
SYSTEMS_OF = {"batch_norm": ["coordinate"], "dot_product_attention": ["pam", "mhsa"]}
"""Systems in which the mistakes of a primitive's page are to be found."""
KNOWN = {str(one): one for one in MISTAKES}


def systems():
    """Keys of systems by the name of their page."""
    found = dict(SYSTEMS_OF)
    for key, system in npattn.CATALOGUE.items():
        found.setdefault(Path(system.derivation).stem, []).append(key)
    return found


def named_on(page):
    """Names in code spans of the page's common mistakes that are those of mistakes in some primitive."""
    _, _, rest = (PAGES / f"{page}.md").read_text("utf-8").partition("## Common mistakes")
    section = rest.partition("\n## ")[0]
    section = re.sub(r"```.*?```", "", section, flags=re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", section)]
    primitives = {one.primitive or "pass" for one in MISTAKES}
    return [span for span in spans if span.partition(": ")[0] in primitives and ": " in span]


@pytest.mark.parametrize("page", sorted(path.stem for path in PAGES.glob("*.md")))
def test_common_mistakes_of_every_page_are_known(page):
    assert set(named_on(page)) <= KNOWN.keys()


@pytest.mark.parametrize("page", systems())
def test_common_mistakes_of_a_page_are_known_and_can_be_made_in_its_system(page):
    names = named_on(page)
    assert len(names) >= 2, page
    assert set(names) <= KNOWN.keys()
    left = set(names)
    for key in systems()[page]:
        for module in judge.modules_of(key):
            waiting = [one for one in MISTAKES if str(one) in left]
            values = judge.some_values(module, batch=2, height=4, width=5)
            left -= {str(one) for one in sites(kernels.run_reference, waiting, module, *values)}
    assert not left, page
