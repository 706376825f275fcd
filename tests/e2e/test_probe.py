"""The probe's node while a run goes on: its curves grow, in both renderers, and the plot shows the whole of it."""

import os
from pathlib import Path

import pytest
from pack.tests.e2e.test_editor import WORKFLOW, empty, run, settle

PROBED = {
    **{id: WORKFLOW[id] for id in ("1", "2", "3", "4")},
    "20": ("GuidancePAG", {"model": ["1", 0], "scale": 2.0, "layers": "middle", "rescale": 0.0}),
    "21": ("GuidanceProbe", {"model": ["20", 0]}),
    "22": ("GuidanceRescale", {"model": ["21", 0], "strength": 0.7, "space": "output"}),
    "23": ("KSampler", {**WORKFLOW["7"][1], "model": ["22", 0], "cfg": 5.0}),
    "24": ("GuidanceProbePlot", {"probe": ["21", 1], "latent": ["23", 0]}),
}


@pytest.mark.newer_page
def test_the_curves_grow_while_the_run_goes_on(page):
    empty(page)
    page.errors.clear()
    page.evaluate("""() => { window.grown = []
        window.comfyAPI.api.api.addEventListener('guidance.probe', () => grown.push(document.querySelectorAll('.guidance-probe .applied[d^=M]').length)) }""")
    seed = int.from_bytes(os.urandom(3), "big")  # a new one, or the host answers from its memory
    heard = run(page, {**PROBED, "23": ("KSampler", {**PROBED["23"][1], "seed": seed})})
    assert heard["error"] is None
    grown = page.evaluate("grown")
    assert len(grown) == 20 and max(grown[:-1]) > 0  # a message a step, and something drawn before the end
    page.evaluate("""() => { app.canvas.ds.scale = 1; app.canvas.ds.offset = [0, 0]
        const at = { GuidanceProbe: [40, 60], GuidanceProbePlot: [440, 60] }
        app.graph._nodes.forEach((node, i) => { node.pos = at[node.comfyClass] ?? [860 + 20 * i, 900] })
        app.canvas.setDirty(true, true) }""")
    settle(page)
    page.wait_for_function("""() => { const box = JSON.stringify(document.querySelector('.guidance-probe').getBoundingClientRect())
        const same = box === window.box; window.box = box; return same && JSON.parse(box).width > 0 }""", polling=100)
    words, dots = page.evaluate("""() => { const root = document.querySelector('.guidance-probe')
        return [[...root.querySelectorAll('span')].map(span => span.textContent),
                [...root.querySelectorAll('.applied')].map(path => path.getAttribute('d').split('M').length - 1)] }""")
    assert words == ["length (cond's = 1)", "cosine to cond", "cosine to the last one", "CFG", "PAG"]  # nothing behind the probe
    assert dots == [20, 20, 19, 20, 20]
    if folder := os.environ.get("GUIDANCE_SCREENSHOTS"):
        page.mouse.move(700, 850)
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder, f"probe-{page.renderer}.png"))
    box = page.locator(".guidance-probe svg").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, 240)  # as everywhere else on the canvas
    page.wait_for_function("() => app.canvas.ds.scale < 0.99")
    assert page.errors == []
    assert page.evaluate("() => app.graph._nodes.find(node => node.comfyClass === 'GuidanceProbe').serialize().widgets_values ?? []") == []
