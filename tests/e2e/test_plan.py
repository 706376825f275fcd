"""A plan stands on its node in ComfyUI's page, in both renderers."""

from pack.tests.e2e.test_editor import empty, keep, settle

CHAIN = """() => {
    const add = (kind, at) => {
        const node = LiteGraph.createNode(kind)
        node.pos = at
        app.canvas.graph.add(node)
        return node
    }
    const [model, pag, apg, plan] = [add('GuidanceDemoModel', [20, 80]), add('GuidancePAG', [20, 260]), add('GuidanceAPG', [340, 80]),
        add('GuidancePlan', [700, 80])]
    model.connect(0, pag, 0)
    pag.connect(0, apg, 0)
    apg.connect(0, plan, 0)
    app.queuePrompt(0)
}"""


def test_a_plan_is_read_on_its_node(page):
    empty(page)
    page.evaluate(CHAIN)
    told = page.locator(".guidance-told", has_text="rows in 20 calls")
    told.first.wait_for(timeout=60000)
    settle(page)
    keep(page, "plan")
    text = told.first.inner_text()
    assert "1. PAG: steps 1-20" in text and "steps 1-20: 3 rows in 1 call (prompt, negative, perturbed)" in text
    assert not page.errors
