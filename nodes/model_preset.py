"""What is published for the model at hand, as a chain of the pack's nodes and as text."""

from comfy_api.latest import io, ui

from .answer import Renorm
from .attention import NAG
from .direction import APG, FDG, MamboG
from .elsewhere import RectCFGPlusPlus
from .families import PUBLISHED, STYLES, candidates, families
from .inputs import MODEL, check, checked
from .perturbed import S2, SLG
from .scale import CFG, CFGPlusPlus, Distilled, StreamCFG

AUTO = "auto"
CHAINED = {cls.node_id: cls for cls in (CFG, StreamCFG, Distilled, NAG, CFGPlusPlus, SLG, APG, FDG, Renorm, MamboG,
                                        RectCFGPlusPlus, S2)}
SETS_SCALE = (CFG.node_id, StreamCFG.node_id, CFGPlusPlus.node_id)
SAMPLER = ("steps", "sampler", "scheduler", "cfg", "shift")


class ModelPreset(io.ComfyNode):
    inputs = [
        io.Combo.Input("variant", options=[AUTO, *families()], default=AUTO, tooltip="Which model it is. auto goes by its "
                       "class and size; whether a model is distilled its weights do not tell, so choose it here."),
        io.Combo.Input("style", options=STYLES, default=PUBLISHED, tooltip="as published: what ComfyUI's template does. "
                       "faithful: closer to the prompt. natural: calmer or more lifelike. fast: fewer predictions. Only what "
                       "has a source for this model is offered."),
    ]
    links = [io.Conditioning.Input("negative", optional=True, tooltip="What should not be in the picture, for distilled models "
                                   "in the style faithful: at cfg 1 the sampler's own negative is ignored.")]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceModelPreset",
            display_name="Guidance for this model",
            category="guidance",
            description="Sets up guidance for the model at hand: recognises its family, puts on it the nodes that are "
                        "published for it, and says which, and what the sampler should get, each number with its source. Adds "
                        "nothing of its own: the nodes are those of the menu.",
            search_aliases=["preset", "model preset", "recommended settings", "best cfg", "which cfg", "sampler settings",
                            "defaults for model", "auto guidance settings"],
            inputs=[MODEL, *cls.inputs, *cls.links],
            outputs=[io.Model.Output(), io.String.Output(display_name="settings")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, negative=None, **knobs):
        model, negative = check(MODEL, model), check(cls.links[0], negative)
        variant, style = checked(cls.inputs, knobs).values()
        config = getattr(model.model, "model_config", None)
        family, shown = chosen(variant, config), []
        if family is None:
            text = f"This model, a {type(config).__name__}, is of no family in the table, so it is left as it is."
        elif style not in family.offered:
            text = f"{style} is not offered for {family.name}, as no source has numbers for it, so the model is left as it " \
                   f"is; there is {', '.join(family.offered)}."
        else:
            setup = family.setup(style)
            wired = [node for node in setup.nodes if negative is not None or node.name != NAG.node_id]
            model = chained(model, wired, negative)
            shown = [[node.name, node.value] for node in wired]
            text = "\n".join([recognised(family, variant, config), *told(family, style, setup, wired)])
        return io.NodeOutput(model, text, ui={**ui.PreviewText(text).as_dict(), "guidance_chain": shown})


def chosen(variant, config):
    """The family of that name, or the likeliest; None where none is known. Raises ValueError with one sentence."""
    found = candidates(config)
    if variant == AUTO:
        return found[0] if found else None
    family = families()[variant]
    if found and family not in found:
        raise ValueError(f"variant is {variant}, and this model is a {type(config).__name__}; it has to be {AUTO} or one of "
                         f"{', '.join(other.name for other in found)}.")
    return family


def chained(model, nodes, negative):
    """The model with these nodes behind it."""
    for id, given, _ in nodes:
        cls = CHAINED[id]
        links = {"negative": negative} if cls is NAG else {}
        model = cls.execute(model, **links, **with_defaults(cls, given)).result[0]
    return model


def with_defaults(cls, given):
    """All widgets of a strategy by id, those that are not given at their defaults."""
    widgets = [(input.id, getattr(input, "input_override", None) or input) for input in cls.inputs]
    return {id: widget.default for id, widget in widgets if getattr(widget, "default", None) is not None} | given


# ---------------------------------------------------------------------------------------------- in words

def recognised(family, variant, config):
    if variant != AUTO:
        return f"Set up for {family.name}, as chosen."
    others = [other.name for other in candidates(config) if other is not family]
    text = f"Taken for {family.name}, by its class {type(config).__name__}."
    return text if not others else f"{text} Its weights do not tell it from {', '.join(others)}: choose the variant if it is " \
                                   "one of these."


def told(family, style, setup, wired):
    """What is set, line by line, each number with that of its source. wired: the nodes, less NAG without a negative."""
    yield ""
    yield f"Style {style}, on the MODEL wire:" if wired else f"Style {style}: nothing is put on the MODEL wire."
    for number, node in enumerate(wired, 1):
        yield f"{number}. {in_words(node)}"
    for node in setup.nodes:
        if node not in wired:
            yield f"With a negative linked: {in_words(node)}"
    setter = next((node for node in wired if node.name in SETS_SCALE), None)
    yield ""
    yield "Sampler: " + ", ".join(setting(part, setter) for part in setup.settings if part.name in SAMPLER)
    for also in setup.settings:
        if also.name not in SAMPLER:
            yield f"Also: {also.value} [{also.source}]"
    if family.is_distilled and NAG.node_id not in [node.name for node in wired]:
        yield f"Distilled: {family.distilled}. At cfg 1 the sampler's negative is ignored."
    missing = [other for other in STYLES if other not in family.offered]
    if missing:
        yield f"Not offered for it, as no source has numbers: {', '.join(missing)}."
    yield ""
    for number, source in enumerate(setup.sources, 1):
        yield f"[{number}] {source}"


def in_words(node):
    """CFG: scale 7 [1]"""
    knobs = (f"{knob} {value:g}" if isinstance(value, float) else f"{knob} {value}" for knob, value in node.value.items())
    return f"{CHAINED[node.name].title}: {', '.join(knobs)} [{node.source}]"


def setting(part, setter):
    if part.name == "cfg" and setter:
        return f"cfg any, as {CHAINED[setter.name].title} sets it"
    return f"{part.name} {part.value} [{part.source}]"
