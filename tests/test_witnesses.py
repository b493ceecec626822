"""The same in PyTorch: what a page's few lines of it print is what stands below them."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parent.parent / "derivations").glob("*.md"))
SECTION = re.compile(r"^## The same in PyTorch\n(.*?)(?=^## |\Z)", flags=re.MULTILINE | re.DOTALL)
WITNESS = re.compile(r"^```python\n(import torch\n.*?)^```\n\n```text\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def witnesses():
    """Every page that has one: name, code, and what it is said to print."""
    for path in PAGES:
        for section in SECTION.findall(path.read_text(encoding="utf-8")):
            (code, shown), *more = WITNESS.findall(section)
            assert not more
            yield path.stem, code, shown


def printed(code):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, "<page>", "exec"), {})
    return output.getvalue()


@pytest.mark.parametrize(("code", "shown"), [pytest.param(*rest, id=name) for name, *rest in witnesses()])
def test_pytorch_prints_what_stands_on_the_page(code, shown):
    pytest.importorskip("torch")
    assert printed(code).split() == shown.split()


def test_pages_have_witnesses():
    assert {"first_gradient", "squeeze_excitation"} <= {name for name, *_ in witnesses()}
