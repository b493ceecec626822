"""The pages of all systems in a real browser: every step, its equation, its pictures, on wide and on narrow screens."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn.cli.photo import photo_values
from npattn.cli.trace import examples
from npattn.tracing import trace, web
from tests.strategies import SYSTEMS
from tests.tracing.own import Chain, Tagged, Untagged
from tests.tracing.web.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
PROBE = Path(__file__).with_name("probe.js").read_text("utf-8")
LARGEST = 2_000_000
"""Bytes of a page."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser, tmp_path):
    """Open a page, in a window of some width."""

    def show(html, **options):
        path = tmp_path / "page.html"
        path.write_text(html, "utf-8")
        browser.open(path, **options)
        return browser

    return show


def whole(system):
    """The page of a system as the command makes it."""
    return web.web_page(examples(system.example(), [], None, seed=0))


@functools.cache
def small():
    """The page of a small map."""
    module = npattn.EfficientChannelAttention.example()
    params, inputs = photo_values(module, (4, 5), seed=0)
    steps = trace(module, params, *inputs.values())
    steps.backward(inputs["x"])
    return web.web_page({"On a corner": steps})


def complaints(browser, widths=(800, 375), but=()):
    found = []
    for width in widths:
        browser.resize(width)
        found += browser.run(f"({PROBE})({str(width < 800).lower()})")
    return [text for text in found + browser.complaints if not any(text.endswith(word) for word in but)]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.key)
def test_the_page_of_a_system_shows_every_step_and_hears_every_key(page, system):
    html = whole(system)
    assert complaints(page(html))[:5] == []
    assert len(html) <= LARGEST


@pytest.mark.parametrize("system", [Untagged(), Tagged(), Chain.example()], ids=str)
def test_pages_of_systems_of_ones_own_lack_nothing_but_equations(page, system):
    x = np.random.RandomState(0).standard_normal((1, 2, 5, 4))
    steps = trace(system, system.init(0, generic=True), x)
    steps.backward(x)
    assert complaints(page(web.web_page({"mine": steps})), but=["no equation"]) == []


@pytest.mark.parametrize(
    ("pattern", "broken", "words"),
    [
        ("</body>", '<script>console.error("oh")</script></body>', "oh"),
        ("</body>", "<script>null.x</script></body>", "TypeError"),
        ("</body>", '<img src="http://127.0.0.1:9/x.png" alt=""></body>', "asks for"),
        (r"<math([^>]*)>.*?</math>", r"<math\1></math>", "an empty equation"),
        (r'<div class="equation.*?</div>', "", "no equation"),
        ("</main>", '<p style="width: 810px">wide</p></main>', "an overflow"),
        ("</main>", '<p style="width: 380px">wide</p></main>', "375 pixels"),
        (r'<table class="numbers".*?</table>', "", "no picture of"),
        (r'data-numbers="[^"]*"', 'data-numbers=""', "no picture of"),
        ('ArrowRight: "next"', 'ArrowRight: "first"', "a key that does nothing"),
        ('End: "last"', 'End: "first"', "a key that does nothing: End"),
        (r'data-title="\(3\'\)"|data-title="\(3&#x27;\)"', 'data-title="(2\')"', "another step as its mirror image"),
        (r"<svg.*?</svg>", "<svg></svg>", "a circuit without the step"),
        ("z 1×32 rms", "z of many, many channels 1×32 rms", "no room for"),
        ('aria-label="Step"', "", "a control without a label"),
    ],
)
def test_what_is_broken_is_seen(page, pattern, broken, words):
    html = small()
    spoiled, count = re.subn(pattern, broken, html, count=1, flags=re.DOTALL)
    assert count == 1
    assert any(words in text for text in complaints(page(spoiled)))


def test_numbers_are_told_by_key_and_by_pointer(page):
    x = np.random.RandomState(0).standard_normal((1, 2, 5, 20))
    steps = trace(npattn.ChannelAttention(2), {"gamma": np.ones(1)}, x)
    steps.backward(x)
    browser = page(web.web_page({"mine": steps}))
    told = "document.activeElement.nextElementSibling.textContent"
    browser.run("document.querySelector('canvas').focus()")
    browser.press("ArrowDown", "ArrowRight", "ArrowRight")
    assert browser.run(told).replace("−", "-") == f"x[0, 1, 2] = {float(f'{x[0, 0, 1, 2]:.4g}')}"
    assert browser.run("document.getElementById('status').textContent").startswith("1 of")
    corner = "(({right, bottom}) => [right - 2, bottom - 2])(document.activeElement.getBoundingClientRect())"
    right, bottom = browser.run(corner)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=right, y=bottom)
    assert browser.run(told).replace("−", "-") == f"x[0, 4, 19] = {float(f'{x[0, 0, 4, 19]:.4g}')}"


def test_a_hand_steps_through_by_keyboard_alone(page):
    browser = page(small())
    status = "document.getElementById('status').textContent"
    browser.press("ArrowRight", "ArrowRight", "m")
    assert browser.run(status) == "10 of 12, backward: (2') dp, conv.weight.grad"
    browser.run("document.getElementById('slider').focus()")
    browser.press("Home", "ArrowRight")
    assert browser.run(status) == "2 of 12, forward: (1) p"
    browser.run("document.getElementById('next').focus()")
    browser.press("Tab")
    assert browser.run("document.activeElement.id") == "last"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page, scheme):
    browser = page(small(), prefers_color_scheme=scheme)
    for name, least in (("text", 7), ("faint", 4.5), ("value", 4.5), ("gradient", 4.5), ("accent", 4.5)):
        for ground in ("ground", "raised"):
            assert contrast(colour(browser, name), colour(browser, ground)) >= least, (name, ground)


def colour(browser, name):
    """A colour of the stylesheet, red, green and blue."""
    text = browser.run(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')").strip("# ")
    digits = text if len(text) == 6 else "".join(2 * digit for digit in text)
    return np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255


def contrast(one, other):
    """WCAG 2's contrast of two colours."""
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in (one, other)]
    dark, light = sorted(float(c @ [0.2126, 0.7152, 0.0722]) for c in linear)
    return (light + 0.05) / (dark + 0.05)


def test_on_paper_every_step_is_shown_and_no_control(page):
    browser = page(small())
    browser.call("Emulation.setEmulatedMedia", media="print")
    hidden = "[...document.querySelectorAll('.half, .circuit, .example')].filter((one) => !one.offsetHeight).length"
    assert browser.run(hidden) == 0
    assert browser.run("document.querySelector('nav').offsetHeight") == 0
    browser.call("Emulation.setEmulatedMedia", media="")
    assert browser.run(hidden) > 0
