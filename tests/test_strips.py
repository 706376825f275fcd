"""The pictures of help pages: one for each strategy, of the settings that `python dev.py lab strips` has now, and all in use.

Whether a plot is still what the command draws is not looked at: letters differ from machine to machine.
"""

import re

import pytest

pytest.importorskip("comfy")

from pack.lab import figures, strips  # noqa: E402
from pack.nodes import NODES, STRATEGIES  # noqa: E402
from PIL import Image  # noqa: E402

PAGES = strips.FOLDER.parent
SHOWN = strips.shown()
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")
LARGEST, ALL = 15 * 1024, 700 * 1024  # bytes
HOW = "`python dev.py lab strips` draws it"


def pictures(page):
    """{address: what is said of it to those who cannot see it} of a page."""
    return {address: text for text, address in PICTURE.findall(page.read_text(encoding="utf-8"))}


def test_what_has_no_strip_is_a_strategy_and_says_why():
    assert strips.STRIPS.keys() | strips.LEFT_OUT.keys() <= {cls.node_id for cls in STRATEGIES}
    assert not strips.STRIPS.keys() & strips.LEFT_OUT.keys()


@pytest.mark.parametrize("cls", SHOWN, ids=lambda cls: cls.node_id)
def test_a_page_shows_its_strategy_as_it_is_drawn_now(cls):
    name = f"pictures/{cls.node_id}.png"
    assert name in pictures(PAGES / f"{cls.node_id}.md"), "the page does not show it"
    path = PAGES / name
    assert path.is_file(), HOW
    with Image.open(path) as image:
        assert image.size == strips.SIZE, HOW
        assert image.text[strips.KEY] == strips.settings(SHOWN[cls]), HOW
        assert len(image.convert("RGB").getcolors(image.width * image.height)) > 16


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_page_shows_its_plot(name):
    assert f"pictures/{name}.png" in pictures(PAGES / f"{name}.md"), "the page does not show it"
    with Image.open(strips.FOLDER / f"{name}.png") as image:
        assert image.width == strips.SIZE[0], HOW


def test_every_picture_is_small_shown_and_described():
    sizes = [path.stat().st_size for path in strips.FOLDER.iterdir()]
    assert max(sizes) < LARGEST and sum(sizes) < ALL
    shown = {}
    for page in PAGES.rglob("*.md"):
        shown |= pictures(page)
    assert set(shown) == {f"pictures/{path.name}" for path in strips.FOLDER.iterdir()}
    assert all(len(text) > 10 for text in shown.values())


def test_a_strip_shows_what_the_strategy_does():
    """And nothing else: with a strategy that is off, the rows are alike."""
    cls = next(cls for cls in NODES if cls.node_id == "GuidanceRescale")
    strip = strips.Strip(prompts=strips.PROMPTS[:1])
    plain, rows = strips.sample(strip)
    assert rows == 2 * strips.STEPS
    assert plain == strips.sample(strip._replace(inputs={"strength": 0.0}), cls)[0]
    assert plain != strips.sample(strip, cls)[0]
    made = strips.drawn([plain * 4, plain * 4], ("without", "with"))
    assert made.size == strips.SIZE
