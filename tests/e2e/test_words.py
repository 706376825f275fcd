"""What users type finds our nodes, and a node shows the knobs that its mode uses: in ComfyUI's page, in both renderers."""

import pytest
from pack.tests.e2e.browser import ready
from pack.tests.e2e.test_editor import capture, empty, settle

# What is typed, the title that should answer, and how far down it may be: below the nodes of core that bear the word itself.
WORDS = [
    ("cfg", "CFG", 1), ("cfg schedule", "CFG", 1), ("variable cfg", "CFG", 1), ("dynamic cfg", "CFG", 1), ("cfg interval", "CFG", 1),
    ("guidance scale", "CFG", 2), ("skip uncond", "CFG", 1), ("interval", "CFG", 5), ("guidance", "CFG", 1),
    ("burnt", "Adaptive projected guidance (APG)", 3), ("oversaturated", "CFG rescale", 3), ("contrast", "CFG rescale", 3),
    ("saturation", "CFG rescale", 3), ("speed", "Adaptive guidance", 2), ("faster", "Adaptive guidance", 1),
    ("turbo", "CADS", 12), ("negative", "Negative prompt", 1), ("negative at cfg 1", "Negative in attention (NAG)", 2), ("pag", "Perturbed attention (PAG)", 1),
    ("apg", "Adaptive projected guidance (APG)", 2), ("rescale", "CFG rescale", 2), ("threshold", "Dynamic thresholding", 2),
    ("example model", "Guidance Demo Model", 1), ("demo", "Guidance Demo Model", 1), ("curve", "Guidance schedule", 3),
    ("autoguidance", "Autoguidance (weak model)", 1), ("variety", "CADS", 1), ("detail", "Frequency-decoupled guidance (FDG)", 4),
    ("structure", "Perturbed attention (PAG)", 1), ("dry run", "Guidance plan", 1), ("what will happen", "Guidance plan", 1),
]
# What looks for other people's nodes, and how many of ours may be among the first ten.
OTHERS = {"lora": 0, "sampler": 0, "scheduler": 0, "upscale": 0, "load": 0, "image": 0, "noise": 0, "prompt": 3, "turbo": 3,
          "contrast": 1, "sharp": 1}


@pytest.fixture
def search(page):
    """Results of the node search, as titles in their order."""
    empty(page)
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    box = page.locator("[role=search] input").first
    box.wait_for()
    if page.locator(".comfy-vue-node-search-container").count():
        page.keyboard.press("Escape")
        pytest.skip("pages before 1.47 find our nodes by the same words, but have an order of their own")

    def results(words):
        box.fill(words)  # it searches while one types
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")
        return [text.split("\n")[0] for text in page.locator("[data-testid=result-item]").all_inner_texts()]

    yield results
    page.keyboard.press("Escape")
    box.wait_for(state="hidden")


def test_words_that_users_type_find_the_node(search, page):
    found, low = {}, {}
    for words, title, limit in WORDS:
        titles = search(words)
        found[words] = titles.index(title) + 1 if title in titles else None
        if found[words] is None or found[words] > limit:
            low[words] = titles[:limit + 1]
    print(page.renderer, found)
    assert not low


def test_words_for_other_nodes_are_left_to_them(search, page):
    ours = set(page.evaluate("""Object.values(LiteGraph.registered_node_types)
        .filter(type => type.nodeData?.category?.startsWith('guidance')).map(type => type.nodeData.display_name)"""))
    found = {words: sum(title in ours for title in search(words)[:10]) for words in OTHERS}
    assert found == {words: min(found[words], most) for words, most in OTHERS.items()}


# ---- knobs

KNOB = ":is([data-testid=node-widget], .lg-node-widget)"  # pages before 1.47 have the class only

class Node:
    def __init__(self, page, kind, at=(150, 130)):
        self.page = page
        self.id = page.evaluate("""([kind, at]) => {
            const node = LiteGraph.createNode(kind)
            node.pos = at
            app.canvas.graph.add(node)
            return node.id
        }""", [kind, list(at)])
        settle(page)

    def js(self, code, more=None):
        return self.page.evaluate(f"""([id, more]) => {{ const node = app.canvas.graph.getNodeById(id)
            const find = name => node.widgets.find(w => w.name === name)
            {code} }}""", [self.id, more])

    def choose(self, name, value):
        self.js("const w = find(more[0]); w.value = more[1]; w.callback(more[1], app.canvas, node)", [name, value])
        settle(self.page)

    @property
    def shown(self):
        """The labels of the knobs that can be seen."""
        if self.page.renderer == "classic":
            return self.js("return node.widgets.filter(w => node.isWidgetVisible(w)).map(w => w.label ?? w.name)")
        rows = self.page.locator(f"[data-node-id='{self.id}'] {KNOB}")
        labels = self.js("return node.widgets.map(w => w.label ?? w.name)")
        texts = rows.all_inner_texts()
        return [max((label for label in labels if text.strip().startswith(label)), key=len) for text in texts]

    def shows(self, *labels):
        for _ in range(50):
            if self.shown == list(labels):
                return
            self.page.wait_for_timeout(50)
        assert self.shown == list(labels)


    def hides(self, name, hidden):
        """Of a linked knob, pages since 1.58 show the name only, and say so apart from what an extension hides."""
        self.page.wait_for_function("""([id, name, hidden]) => {
            const widget = app.canvas.graph.getNodeById(id)?.widgets.find(w => w.name === name)
            if (!widget) return false
            const here = LiteGraph.vueNodesMode ? widget.options.hidden : widget.hidden
            return (widget.visibility?.suppression.byExtension ?? here ?? false) === hidden
        }""", arg=[self.id, name, hidden], timeout=5000)


@pytest.fixture
def canvas(page):
    empty(page)
    page.errors.clear()
    yield page
    assert page.errors == []


PRESETS = {"linear up": ["off value"], "constant": [], "clamp-linear": ["off value", "floor"], "powered cosine": ["off value", "power"],
           "exponential": ["off value", "rate"], "beta": ["off value", "a (begins later)", "b (ends earlier)"],
           "interval": ["off value", "sigma_high", "sigma_low"]}


def test_a_preset_shows_its_own_knobs_and_keeps_the_others(canvas):
    node = Node(canvas, "GuidanceSchedulePreset")
    heights = {}
    for preset, labels in PRESETS.items():
        node.choose("preset", preset)
        node.shows("preset", "scale", *labels)
        heights[preset] = node.js("return node.size[1]")
        if canvas.renderer == "classic":  # where a link is dropped on a knob, no hidden one is in the way
            dots = dict(node.js("return node.inputs.map(input => [input.name, input.pos[1]])"))
            hidden = set(node.js("return node.widgets.filter(w => w.hidden).map(w => w.name)"))
            assert {dots[name] for name in hidden} == {dots["preset"]}
            assert len({dots[name] for name in dots.keys() - hidden}) == len(dots) - len(hidden)
    if canvas.renderer == "classic":
        assert heights["interval"] > heights["linear up"] > heights["constant"]
    everything = ["interval", 7.5, 1, 3, 4, 0.693, 2, 3, 5.42, 0.28]
    assert canvas.evaluate("app.graph.serialize().nodes[0].widgets_values") == everything
    assert list(canvas.evaluate("async () => (await app.graphToPrompt()).output")[str(node.id)]["inputs"].values()) == everything


def test_knobs_of_other_modes_are_hidden(canvas):
    window = ["start", "end", "unit of start and end"]
    node = Node(canvas, "GuidanceNegative")
    node.shows("mode", *window)
    node.choose("mode", "perp-neg")
    node.shows("mode", "weight", *window)
    node = Node(canvas, "GuidanceNull", (550, 130))
    node.shows("null prompt", *window)
    node.choose("null", "file")
    node.shows("null prompt", "embedding file", *window)
    node.choose("null", "independent")
    shown = [label for label in node.shown if "control" not in label]
    assert shown == ["null prompt", "seed", *window]
    node = Node(canvas, "GuidanceAdaptive", (950, 130))
    node.shows("measure", "threshold")
    node.choose("measure", "cosine")
    node.shows("measure", "threshold", "arm at sigma")


def test_a_saved_workflow_and_an_undo_show_what_their_mode_uses(canvas):
    node = Node(canvas, "GuidanceAdaptive")
    node.choose("measure", "cosine")
    node.js("find('arm').value = 0.5")
    node.choose("measure", "norm")
    kept = canvas.evaluate("app.graph.serialize()")
    assert kept["nodes"][0]["widgets_values"] == ["norm", 0.02, 0.5]
    kept["nodes"][0]["widgets_values"][0] = "cosine"
    canvas.evaluate("workflow => app.loadGraphData(workflow, true, false, app.extensionManager.workflow?.activeWorkflow)", kept)
    settle(canvas)
    node.shows("measure", "threshold", "arm at sigma")
    assert node.js("return find('arm').value") == 0.5
    capture(canvas)
    canvas.evaluate("app.canvas.emitBeforeChange()")
    node.choose("measure", "norm")
    canvas.evaluate("app.canvas.emitAfterChange()")
    node.shows("measure", "threshold")
    settle(canvas)
    canvas.keyboard.press("Control+z")
    node.shows("measure", "threshold", "arm at sigma")
    settle(canvas)
    node.choose("measure", "norm")
    node.shows("measure", "threshold")


def link(source, target, name):
    """From the first output of a node to a knob of another."""
    source.js("""const target = app.canvas.graph.getNodeById(more[0])
        node.connect(0, target, target.inputs.findIndex(input => input.name === more[1]))""", [target.id, name])
    settle(source.page)


def test_what_is_wired_stays_in_sight(canvas):
    node, text = Node(canvas, "GuidanceNegative"), Node(canvas, "PrimitiveString", (600, 130))
    node.hides("weight", True)
    link(text, node, "weight")
    node.hides("weight", False)
    capture(canvas)
    canvas.evaluate("app.canvas.emitBeforeChange()")
    node.js("node.disconnectInput(node.inputs.findIndex(input => input.name === 'weight'))")
    canvas.evaluate("app.canvas.emitAfterChange()")
    node.hides("weight", True)
    settle(canvas)
    canvas.keyboard.press("Control+z")
    node.hides("weight", False)


def test_the_demo_classifier_offers_pairs_that_exist(canvas):
    node = Node(canvas, "GuidanceDemoClassifier")
    assert "red" in node.js("return find('value').options.values")
    for attribute, first in (("shape", "circle"), ("size", "small"), ("background", "red")):
        before = node.js("return find('value').value")
        node.choose("attribute", attribute)
        offered = node.js("return find('value').options.values")
        value = node.js("return find('value').value")
        assert value == (before if before in offered else offered[0]), attribute
    inputs = canvas.evaluate("async () => (await app.graphToPrompt()).output")[str(node.id)]["inputs"]
    assert inputs["attribute"] == "background" and inputs["value"] in offered
    if canvas.renderer == "nodes2":
        node.choose("attribute", "shape")
        canvas.locator(f"[data-node-id='{node.id}'] {KNOB}").nth(1).locator("button, [role=combobox]").first.click()
        canvas.wait_for_timeout(400)
        options = canvas.locator("[role=option]").all_inner_texts()
        canvas.keyboard.press("Escape")
        assert options == node.js("return find('value').options.values")


def test_the_text_of_a_string_node_is_a_strength(canvas, server):
    """Linked in the page and run: the strength is a schedule."""
    texts = ["12, 12, 10, 8", "0:(7.5)", "0:7.5;\n0.5:6;\n1:1;", "0:7.5, 1:1 SMOOTH", "3"]
    node = Node(canvas, "GuidanceSchedulePreview", (700, 130))
    text, model = Node(canvas, "PrimitiveString"), Node(canvas, "GuidanceDemoModel", (150, 400))
    link(text, node, "schedule")
    link(model, node, "model")
    for schedule in texts:
        text.choose("value", schedule)
        prompt = canvas.evaluate("async () => (await app.graphToPrompt()).output")
        assert prompt[str(node.id)]["inputs"]["schedule"] == [str(text.id), 0]
        assert server.run(prompt)[str(node.id)]["images"], schedule


def test_in_chinese_names_help_and_pictures_are_there(server, browser):
    server.post("/api/settings", {"Comfy.Locale": "zh", "Comfy.VueNodes.Enabled": False, "Comfy.TutorialCompleted": True})
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    try:
        page = context.new_page()
        page.renderer = "classic"
        page.goto(server.address)
        ready(page)
        empty(page)
        node = Node(page, "GuidanceNAG")
        assert node.js("return node.title") == "注意力负面提示词（NAG）"
        assert {"引导强度", "开始", "结束"} <= set(node.shown)
        node.js("app.canvas.selectNodes([node])")
        page.locator("[data-testid=info-button]").first.click()
        page.locator(".node-help-content h1", has_text="注意力负面提示词").wait_for()
        page.wait_for_function("document.querySelector('.node-help-content img')?.naturalWidth > 0")
    finally:
        context.close()
        server.post("/api/settings", {"Comfy.Locale": "en"})
