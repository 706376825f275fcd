"""The first minute of somebody new, in both renderers: a template opens, its curve is dragged, and one picture changes."""

import json
from io import BytesIO
from urllib.parse import urljoin

import pytest
from pack.tests.e2e.browser import dev, ready
from pack.tests.e2e.test_editor import ROOT, Editor, empty, keep, settle
from PIL import Image, ImageChops

FIRST = "guidance_in_one_minute"
HEAR = """() => { window.sheets = []
    comfyAPI.api.api.addEventListener('executed', ({ detail: { node, output } }) => {
        if (app.graph.getNodeById(node).type === 'GuidanceGrid') sheets.push('/view?' + new URLSearchParams(output.images[0])) }) }"""


def press_run(page, count):
    """The halves of the sheet that comes of it, which is the count-th one."""
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.wait_for_function("count => sheets.length === count", arg=count, timeout=60000)
    sheet = Image.open(BytesIO(page.request.get(urljoin(page.url, page.evaluate("sheets.at(-1)"))).body())).convert("RGB")
    middle = sheet.width // 2
    return [sheet.crop((left, 0, left + middle, sheet.height)) for left in (0, middle)]


def test_the_first_template_opens_and_its_curve_changes_one_of_two_pictures(page, server):
    page.errors.clear()
    saved = json.loads((ROOT / "example_workflows" / f"{FIRST}.json").read_text())
    page.set_viewport_size({"width": 1600, "height": 900})
    page.goto(f"{server.address}/?template={FIRST}&source={dev.PACK}")  # what `dev.py serve` prints
    ready(page)
    page.wait_for_function("count => app.graph.nodes.length === count", arg=len(saved["nodes"]))
    settle(page)
    assert page.evaluate("app.canvas.ds.scale") == pytest.approx(saved["extra"]["ds"]["scale"], rel=0.02)
    editor = Editor(page, next(node["id"] for node in saved["nodes"] if node["type"] == "GuidanceSchedule"))
    editor.until("return editor.isConnected && editor.querySelectorAll('.point').length === 3")
    page.evaluate(HEAR)
    before = press_run(page, 1)
    editor.drag(1, 0, 40)
    after = press_run(page, 2)
    assert [ImageChops.difference(one, two).getbbox() is None for one, two in zip(before, after)] == [True, False]
    keep(page, "first")
    assert page.errors == []


def test_the_template_browser_shows_a_thumbnail(page):
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(dev.PACK, exact=True).first.click()
    card = page.get_by_test_id(f"template-workflow-{FIRST}")
    card.scroll_into_view_if_needed()
    page.wait_for_function("card => [...card.querySelectorAll('img')].some(image => image.naturalWidth === 400)", arg=card.element_handle())
    keep(page, "templates")
    page.keyboard.press("Escape")


@pytest.mark.parametrize("picture, template", [("wiring", FIRST), ("demo", "what_each_strategy_does")])
def test_a_picture_of_the_readme_opens_as_its_workflow(page, picture, template):
    empty(page)
    page.evaluate("""async place => { const file = new File([await (await fetch(place)).blob()], 'picture.png', { type: 'image/png' })
        await app.handleFile(file) }""", f"/api/workflow_templates/{dev.PACK}/{picture}.png")
    saved = json.loads((ROOT / "example_workflows" / f"{template}.json").read_text())
    kinds = "() => app.graph.nodes.map(node => node.type).sort()"
    page.wait_for_function(f"count => ({kinds})().length === count", arg=len(saved["nodes"]))
    assert page.evaluate(kinds) == sorted(node["type"] for node in saved["nodes"])
