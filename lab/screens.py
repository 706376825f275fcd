"""`python lab screens`: what the readme and the template browser show, taken from ComfyUI's page in a browser.

A thumbnail is what its template makes; the readme's pictures are the first template, its editor and the demo's sheet. The
first and the last carry their workflows: dropped on the page they open.
"""
import json
import sys
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urljoin

import nodes
from PIL import Image, PngImagePlugin
from playwright.sync_api import sync_playwright

from ..nodes.sheet import BACK
from ..tests.e2e.browser import CHROMIUM, Server, ready
from .workflows import ALL, FOLDER

FIRST = "guidance_in_one_minute"
SIDE, QUALITY = 400, 80  # of a thumbnail: pixels, and percent
SHOWING = ("GuidanceGrid", "GuidanceProbePlot", "GuidanceSchedulePreview", "PreviewImage")  # whose pictures are thumbnails

# Without labels, which nobody could read, and about as many pictures across as down.
PLAIN = """() => { for (const sheet of app.graph.nodes.filter(node => node.type === 'GuidanceGrid')) {
    const named = name => sheet.widgets.find(widget => widget.name === name), labels = named('labels')
    if (!labels.value) continue // linked
    named('columns').value = Math.ceil(Math.sqrt(labels.value.split(',').length))
    labels.value = '' } }"""
# Runs the workflow; of the nodes that show pictures, the kind and where they are.
RUN = """() => new Promise((done, failed) => { const { api } = window.comfyAPI.api, shown = {}
    api.addEventListener('executed', ({ detail: { display_node, node, output } }) => {
        const { type } = app.graph.getNodeById(display_node ?? node) ?? {}
        if (output?.images?.length) (shown[type] ??= []).push('/view?' + new URLSearchParams(output.images[0])) })
    api.addEventListener('execution_success', () => done(shown), { once: true })
    api.addEventListener('execution_error', ({ detail }) => failed(new Error(detail.exception_message)))
    app.queuePrompt(0) })"""
# Puts the workflow where no button of the page is over it; its place, frames included.
PLACE = """scale => { const boxes = [...app.graph.nodes, ...app.graph.groups].map(each => each.boundingRect)
    const edges = boxes.map(([x, y, width, height]) => [x, y, x + width, y + height])
    const [left, top, right, lower] = [0, 1, 2, 3].map(i => Math[i < 2 ? 'min' : 'max'](...edges.map(edge => edge[i])))
    app.canvas.ds.scale = scale
    app.canvas.ds.offset = [140 / scale - left, 150 / scale - top]
    app.canvas.setDirty(true, true)
    return { x: 140, y: 150, width: (right - left) * scale, height: (lower - top) * scale } }"""


@contextmanager
def comfyui():
    """ComfyUI's page, in the classic renderer, which is the usual one."""
    with Server(Path(nodes.__file__).parent, sys.executable) as server, sync_playwright() as playwright:
        server.post("/api/settings", {"Comfy.VueNodes.Enabled": False, "Comfy.TutorialCompleted": True,
                                      "Comfy.Workflow.WarnUnsavedOnClose": False, "Comfy.Minimap.Visible": False})
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1720, "height": 1140})
        page.goto(server.address)
        ready(page)
        yield page
        browser.close()


def show(page, name):
    template = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    page.evaluate("""template => app.loadGraphData(template, true, true, app.extensionManager.workflow.activeWorkflow,
                                                   { openSource: 'template' })""", template)
    page.mouse.move(1000, 1120)  # where nothing is
    wait(page)


def wait(page):
    """Until what was changed is on the screen."""
    page.evaluate("() => new Promise(done => setTimeout(done, 1000))")


def taken(page, clip):
    return Image.open(BytesIO(page.screenshot(clip=clip))).convert("RGB")


def made(page):
    """Runs the workflow; the picture that says most of it, or all that it previews."""
    shown = page.evaluate(RUN)
    kind = next(kind for kind in SHOWING if kind in shown)
    places = shown[kind] if kind == "PreviewImage" else shown[kind][:1]
    return [Image.open(BytesIO(page.request.get(urljoin(page.url, place)).body())).convert("RGB") for place in places]


def square(pictures):
    """Pictures one below the other, as a thumbnail."""
    height = SIDE // len(pictures)
    whole = Image.new("RGB", (SIDE, SIDE), BACK)
    for i, picture in enumerate(pictures):
        share = min(SIDE / picture.width, height / picture.height)
        small = picture.resize((round(picture.width * share), round(picture.height * share)), Image.Resampling.LANCZOS)
        whole.paste(small, ((SIDE - small.width) // 2, i * height + (height - small.height) // 2))
    return whole


def thumbnail(page, name):
    show(page, name)
    if name != FIRST:
        page.evaluate(PLAIN)
    pictures = made(page)
    if name == FIRST:
        pictures.insert(0, taken(page, page.locator(".guidance-schedule .guidance-plot").bounding_box()))
    square(pictures).save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)


def save(image, name, template=None):
    """In 256 colours, and with a template's workflow inside, which the page opens."""
    text = PngImagePlugin.PngInfo()
    if template:
        text.add_text("workflow", json.dumps(json.loads((FOLDER / f"{template}.json").read_text(encoding="utf-8"))))
    small = image if image.mode == "P" else image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    small.save(FOLDER / f"{name}.png", pnginfo=text, optimize=True)


def readme(page):
    show(page, FIRST)
    page.evaluate(RUN)
    clip = page.evaluate(PLACE, 0.8)
    wait(page)
    save(taken(page, clip), "wiring", FIRST)
    page.evaluate("""() => { const [node] = app.graph.nodes.filter(node => node.type === 'GuidanceSchedule')
        app.canvas.ds.scale = 1.6
        app.canvas.ds.offset = [100 - node.pos[0], 140 - node.pos[1]]
        app.canvas.setDirty(true, true) }""")
    wait(page)
    page.locator(".guidance-schedule .point").nth(1).click()
    page.mouse.move(1000, 1120)  # where nothing is
    wait(page)
    box = page.locator(".guidance-schedule").bounding_box()
    left, top = box["x"] - 12, box["y"] - 182  # with the title of its node
    save(taken(page, {"x": left, "y": top, "width": box["width"] + 24, "height": box["height"] + 192}), "editor")
    save(Image.open(FOLDER / "demo.png"), "demo", ALL)


def make():
    with comfyui() as page:
        readme(page)
        for path in sorted(FOLDER.glob("*.json")):
            thumbnail(page, path.stem)
    for path in sorted([*FOLDER.glob("*.jpg"), *FOLDER.glob("*.png")]):
        print(f"{path}: {path.stat().st_size / 1000:.0f} KB")
