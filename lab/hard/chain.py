"""One prompt with everything: all strategies behind each other, and behind them trouble."""

FEWER = {"GuidanceAdaptive", "GuidanceAlternate", "GuidanceBudget"}  # leave out most of what the others do
TEXTS = {"GuidanceTextEncode": {"text": "a big red circle on blue, (green:-1)"}}
STEPS = 12


def everything(menu, kind="none", at=0):
    """What /prompt takes: a run of the bundled model with every strategy at its defaults, looked at by HardLook. kind, at:
    of HardTrouble; with another `at` it is another prompt to the host, which so runs the sampler again."""
    nodes = {}

    def add(name, **inputs):
        number = str(len(nodes) + 1)
        nodes[number] = {"class_type": name, "inputs": inputs}
        return number

    model, weak = (add("GuidanceDemoModel", prediction=prediction) for prediction in ("v", "eps"))
    text, negative = ([add("CLIPTextEncode", clip=[model, 1], text=text), 0] for text in ("a big red circle on blue", "a ring"))
    judge = add("GuidanceDemoClassifier", attribute="color", value="red")
    links = {"MODEL": [weak, 0], "CLIP": [model, 1], "CONDITIONING": negative, "GUIDANCE_CLASSIFIER": [judge, 0]}
    wire = [model, 0]
    for name in menu.strategies:
        if name not in FEWER and not menu.info[name]["output_node"]:
            wire = [add(name, **{**defaults(menu, name, links), **TEXTS.get(name, {}), "model": wire}), 0]
    wire = [add("HardTrouble", model=wire, kind=kind, at=at), 0]
    latent = add("EmptyLatentImage", width=32, height=32, batch_size=1)
    sampler = add("KSampler", model=wire, positive=text, negative=negative, latent_image=[latent, 0], seed=1, steps=STEPS,
                  cfg=5.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    add("HardLook", latent=[sampler, 0])
    return nodes


def defaults(menu, name, links):
    """The inputs of a node at their defaults, and what it takes by links."""
    given = {}
    for input, (required, type, options) in menu.inputs(name).items():
        if "default" in options:
            given[input] = options["default"]
        elif required and type in links:
            given[input] = links[type]
    return given
