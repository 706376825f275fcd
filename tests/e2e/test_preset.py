"""Guidance for this model tells its settings and turns into nodes, Texts for negatives writes a subject's text: in both renderers."""

from pack.nodes.negative_texts import TEXTS
from pack.tests.e2e.test_editor import empty, keep, settle

CHAIN = """() => {
    const add = (kind, at) => {
        const node = LiteGraph.createNode(kind)
        node.pos = at
        app.canvas.graph.add(node)
        return node
    }
    const [model, preset, plan] = [add('GuidanceDemoModel', [20, 80]), add('GuidanceModelPreset', [320, 80]), add('GuidancePlan', [800, 80])]
    const choose = (name, value) => { preset.widgets.find(widget => widget.name === name).value = value }
    choose('variant', 'SDXL base')
    choose('style', 'faithful')
    model.connect(0, preset, 0)
    preset.connect(0, plan, 0)
    app.queuePrompt(0)
}"""
ITEMS = """() => app.extensions.find(({ name }) => name === 'guidance.preset').getNodeMenuItems(
    app.canvas.graph._nodes.find(node => node.comfyClass === 'GuidanceModelPreset'))"""
WIRE = """() => {
    const found = []
    let node = app.canvas.graph._nodes.find(node => node.comfyClass === 'GuidancePlan')
    while ((node = node.getInputNode(0))) found.push([node.comfyClass, ...node.widgets.slice(0, 2).map(widget => widget.value)])
    return found
}"""


def test_a_preset_is_read_on_its_node_and_turns_into_nodes(page):
    empty(page)
    page.evaluate(CHAIN)
    told = page.locator(".guidance-told", has_text="Sadat et al. 2025")
    told.first.wait_for(timeout=60000)
    settle(page)
    assert "1. CFG: scale 10 [2]\n2. Frequency-decoupled guidance (FDG): low 0.44, high 1 [2]" in told.first.inner_text()
    page.evaluate(f"({ITEMS})().map(item => item.callback())")
    settle(page)
    keep(page, "preset")
    wire = page.evaluate(WIRE)
    assert [node[:3] for node in wire[:2]] == [["GuidanceFDG", 0.44, 1], ["GuidanceCFG", "10", 0]]
    assert wire[2][0] == "GuidanceDemoModel"
    page.evaluate("app.canvas.graph._nodes.find(node => node.comfyClass === 'GuidanceModelPreset').widgets[1].value = 'fast'")
    assert page.evaluate(f"({ITEMS})().length") == 0
    assert not page.errors


SUBJECT = """subject => {
    const [choice, text] = app.canvas.graph._nodes[0].widgets
    choice.value = subject
    choice.callback(subject, app.canvas, app.canvas.graph._nodes[0])
    return text.value
}"""


def test_a_subject_writes_its_text_but_not_over_what_was_typed(page):
    empty(page)
    page.evaluate("() => { app.canvas.graph.add(LiteGraph.createNode('GuidanceNegativeTexts')) }")
    settle(page)
    assert page.evaluate(SUBJECT, "anime") == TEXTS["anime"]
    assert page.evaluate(SUBJECT, "photo: product") == TEXTS["photo: product"]
    page.evaluate("app.canvas.graph._nodes[0].widgets[1].value = 'a hat'")
    assert page.evaluate(SUBJECT, "anime") == "a hat"
    assert not page.errors
