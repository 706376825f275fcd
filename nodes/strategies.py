"""The menu of the mission's strategies: one class per node, each a recipe from guidance/ with its knobs."""

from functools import partial
from uuid import uuid4

from comfy_api.latest import io

from .. import guidance
from .attention import choose_layers, install
from .inputs import SCHEDULE_TYPES, check, number
from .strategy import Strategy, check_window, window


class CFG(Strategy):
    node_id = "GuidanceCFG"
    title = "CFG (schedule, interval)"
    about = (
        "How strictly the picture follows the prompt, at each moment of the run. Outside the interval, and wherever the "
        "scale is 1, the negative is not computed: 1 row instead of 2. Guidance in the middle only keeps variety and "
        "natural colours at a higher scale. Applies to the whole chain, wherever it stands in it."
    )
    aliases = ["cfg schedule", "cfg curve", "guidance interval", "limited interval", "guidance limiter", "skip uncond",
               "dynamic cfg", "CFGOverride", "ScheduledCFGGuidance"]
    inputs = [
        io.MultiType.Input(
            io.String.Input("scale", default="", tooltip="Empty: the sampler's cfg. A number: this cfg instead. A schedule "
                            "such as 0:7.5, 0.5:6, 1:1 changes it over the run. 1 is no guidance, 0 ignores the prompt."),
            types=[io.String, io.Float, *SCHEDULE_TYPES],
        ),
        *window("Guide"),
    ]
    number = io.Float.Input("scale", min=-100.0, max=100.0)

    @classmethod
    def check(cls, knobs):
        knobs = super().check(knobs)
        scale = knobs.get("scale")
        if isinstance(scale, str):
            scale = guidance.parse(scale) if scale.strip() else None
        return {**knobs, "scale": scale if scale is None else check(cls.number, scale)}

    @classmethod
    def prepare(cls, model, scale, start, end, unit):
        return model, partial(cfg_in_interval, scale, **check_window(start, end, unit)), {}

    @classmethod
    def applied(cls, knobs, schedule, moment):
        return moment.combined  # 1 outside the interval, and another scale where a later strategy sets it


def cfg_in_interval(scale, start, end, unit):
    everywhere = unit == "percent" and (start, end) == (0, 1)
    steps = [] if scale is None else [guidance.cfg(scale)]
    return guidance.chain(*steps, *[] if everywhere else [guidance.interval(start, end, unit)])


class Negative(Strategy):
    node_id = "GuidanceNegative"
    title = "Negative prompt"
    about = (
        "Another negative prompt, with a weight and a moment of its own. plain: it stands for the sampler's negative "
        "(no extra cost); with a late start the picture forms first and the unwanted thing is then removed with less "
        "damage. weighted and perp-neg push away from it beside the sampler's negative (1 row more each); perp-neg "
        "spares what the negative shares with the prompt, and wants an empty prompt as the sampler's negative. Put "
        "several in a row for several negatives; all are computed in one forward."
    )
    aliases = ["negative prompt", "perp-neg", "PerpNegGuider", "PerpNeg", "delayed negative", "weighted negative"]
    inputs = [
        io.Conditioning.Input("negative", tooltip="What should not be in the picture."),
        io.Combo.Input("mode", options=["plain", "weighted", "perp-neg"], default="plain",
                       tooltip="plain replaces the sampler's negative; the others come on top of it."),
        number("weight", 1.0, -10.0, 10.0, "How strongly to push away (weighted, perp-neg). 0 is off and costs nothing."),
        *window("Push away"),
    ]
    recipes = {
        "plain": lambda key, weight, **limits: guidance.negative_instead(key, **limits),
        "weighted": guidance.negative_weighted,
        "perp-neg": guidance.perp_neg,
    }

    @classmethod
    def prepare(cls, model, negative, mode, weight, start, end, unit):
        key = f"guidance_{uuid4().hex}"
        limits = check_window(start, end, unit)
        return model, partial(cls.recipes[mode], key, weight=weight, **limits), {key: as_negative(negative)}


def as_negative(conditioning):
    """Some models encode positive and negative prompts differently; the host asks the conditioning which it is."""
    return [[tokens, {**values, "prompt_type": "negative"}] for tokens, values in conditioning]


class CFGPlusPlus(Strategy):
    node_id = "GuidanceCFGPlusPlus"
    title = "CFG++"
    about = (
        "Gentler guidance early, full guidance late: pictures keep natural colours and stay closer to what the model can "
        "make. Replaces the sampler's cfg at every step by the scale that makes an ordinary euler, ddim or "
        "euler_ancestral step a CFG++ step. 2 rows, like CFG. With other samplers it is an approximation."
    )
    aliases = ["cfgpp", "cfg plus plus", "euler_cfg_pp", "manifold constrained"]
    inputs = [number("strength", 0.6, 0.0, 4.0, "How strictly to follow the prompt. 0.6 resembles cfg 7.5 at 50 steps; 0 "
                     "ignores the prompt; 1 and above suit few steps.")]

    @classmethod
    def prepare(cls, model, strength):
        return model, partial(guidance.cfgpp, strength), {}


class PerpCFG(Strategy):
    node_id = "GuidancePerpCFG"
    title = "Perp-CFG"
    about = (
        "Less burnt colours at high cfg: keeps the part of guidance that changes the picture and drops the part that "
        "only makes the model's own prediction stronger. 2 rows, like CFG."
    )
    aliases = ["perp cfg", "projected guidance", "apg", "cfg zero star", "orthogonal", "PerpCFG", "CFGZeroStar"]
    inputs = [
        number("eta", 0.0, -10.0, 10.0, "How much of the parallel part to keep. 1 is plain CFG."),
        io.Combo.Input("reference", options=["uncond", "cond"], default="uncond", tooltip="Parallel to which prediction: "
                       "uncond (with space noise this is CFG-Zero*) or cond (with space x0 the projection of APG)."),
        io.Combo.Input("space", options=["x0", "noise"], default="x0", tooltip="Compare pictures (x0), or noise "
                       "predictions (velocity in flow models)."),
        io.Boolean.Input("literal", default=False, tooltip="Start from uncond instead of from cond. Stronger; cfg 1 is "
                         "then no longer the prompt alone.", advanced=True),
    ]

    @classmethod
    def prepare(cls, model, **knobs):
        return model, partial(guidance.perp_cfg, **knobs), {}


class PAG(Strategy):
    node_id = "GuidancePAG"
    title = "Perturbed attention (PAG)"
    about = (
        "Firmer structure, with or without a prompt: guides away from what the model sees when some of its layers cannot "
        "look around. 1 row more in the same forward (3 with CFG, 2 at cfg 1); none where the scale is 0. UNets only."
    )
    aliases = ["pag", "perturbed attention guidance", "PerturbedAttentionGuidance", "PerturbedAttention"]
    inputs = [
        number("scale", 3.0, -100.0, 100.0, "How strongly to guide. 3 is the paper's, for use without CFG; with CFG lower "
               "both. 0 is off and costs nothing."),
        io.String.Input("layers", default="middle", tooltip="Which self-attention layers lose their sight, separated by "
                        "commas: middle, input.4, output.3.0. A name stands for all layers that begin with it."),
        io.Float.Input("rescale", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="How far to bring the contrast back to "
                       "the prompt's own prediction. 0.5 to 0.7 helps at high scales."),
    ]

    @classmethod
    def prepare(cls, model, scale, layers, rescale):
        layers = choose_layers(model, layers, cls.node_id)
        patched = model.clone()
        install(patched)
        return patched, partial(guidance.pag, layers, scale=scale, rescale=rescale), {}


STRATEGIES = [CFG, Negative, CFGPlusPlus, PerpCFG, PAG]
