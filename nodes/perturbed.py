"""The menu of strategies that guide away from a perturbed model."""

from functools import partial

from comfy_api.latest import io

from .. import guidance
from .bridge.attention import install
from .bridge.blocks import choose_layers
from .inputs import number, used_when, window
from .strategy import Strategy

RESCALE = io.Float.Input("rescale", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="How far to bring the contrast back to "
                         "the prompt's own prediction. 0.5 to 0.7 helps at high scales.")


def layers(default, tooltip, auto="what is published for the model, else the middle"):
    return io.String.Input("layers", default=default, tooltip=f"{tooltip}, separated by commas: input.4, middle, output.3.0 of "
                           f"UNets; double.7-9, single.3 or 40%-60% of transformers; all; auto is {auto}. A name stands for "
                           "all layers that begin with it; a ? behind it lets it be missing.")


class Perturbing(Strategy):
    """A strategy that perturbs the layers that its input `layers` names, as `kind` says."""

    kind: str

    @classmethod
    def prepare(cls, model, layers, **knobs):
        network = model.get_model_object("diffusion_model")
        patched = model.clone()
        install(patched)
        return patched, partial(cls.recipe, choose_layers(network, layers, cls.kind, cls.node_id), **knobs), {}

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True


class PAG(Perturbing):
    node_id = "GuidancePAG"
    title = "Perturbed attention (PAG)"
    about = (
        "Firmer structure, with or without a prompt: guides away from what the model sees when some of its layers "
        "cannot look around. 1 row more in the same forward (3 with CFG, 2 at cfg 1), which is not computed before its first "
        "such layer; none where the scale is 0."
    )
    aliases = ["pag", "perturbed attention guidance", "PerturbedAttentionGuidance", "PerturbedAttention", "structure",
               "anatomy", "turbo", "lightning"]
    kind = "identity"
    recipe = staticmethod(guidance.pag)
    when = window("Guide", optional=True)
    inputs = [
        number("scale", 3.0, -100.0, 100.0, "How strongly to guide. 3 is the paper's, for use without CFG; with CFG "
               "lower both. 0 is off and costs nothing."),
        layers("middle", "Which layers lose their sight"),
        RESCALE,
        *when,
    ]


class SEG(Perturbing):
    node_id = "GuidanceSEG"
    title = "Smoothed energy guidance (SEG)"
    about = (
        "Cleaner shapes, gentler than PAG: guides away from what the model sees when neighbouring places look for the same. "
        "1 row more in the same forward (3 with CFG, 2 at cfg 1), which is not computed before its first such layer; none "
        "where scale or sigma is 0."
    )
    aliases = ["seg", "smoothed energy guidance", "SmoothedEnergyGuidance", "blur", "structure"]
    category = "guidance/more"
    kind = "blur"
    recipe = staticmethod(guidance.seg)
    when = window("Guide")
    inputs = [
        number("scale", 3.0, -100.0, 100.0, "How strongly to guide. 3 is the paper's. 0 is off and costs nothing."),
        layers("auto", "Which layers are blurred"),
        number("sigma", 1000.0, 0.0, 1000.0, "How far the blur reaches, in tokens. 0 is off; 1000 is the paper's infinite "
               "blur, where every place looks for the same.", display_name="sigma (blur)"),
        RESCALE,
        *when,
    ]


class SLG(Perturbing):
    node_id = "GuidanceSLG"
    title = "Skip layers (SLG, STG)"
    about = (
        "Better anatomy and steadier motion: guides away from what the model sees without some of its layers. 1 row more in "
        "the same forward, which is not computed before the first of them; or no row, where the negative loses the layers."
    )
    aliases = ["slg", "stg", "skip layer guidance", "spatiotemporal skip guidance", "SkipLayerGuidanceDiT",
               "SkipLayerGuidanceSD3", "SkipLayerGuidanceWanVideo", "hands", "anatomy", "video", "motion"]
    kind = "skip"
    when = window("Guide", 0.01, 0.2)
    inputs = [
        io.Combo.Input("row", options=["its own", "the negative's"], default="its own", display_name="row to skip in",
                       tooltip="its own: one more row, also at cfg 1. the negative's: no row more, idle at cfg 1; usual for "
                       "Wan."),
        number("scale", 2.8, -100.0, 100.0, "How strongly to guide. 2.8 is usual for SD3.5 medium, 1 for video. 0 is off and "
               "costs nothing.", **used_when(row=["its own"])),
        layers("auto", "Which layers are left out"),
        io.Combo.Input("what", options=["block", "attention"], default="block", display_name="what to skip",
                       tooltip="block leaves the layers out (SLG, STG-R), attention only what they see elsewhere (STG-A)."),
        io.Float.Input("rescale", default=0.0, min=0.0, max=1.0, step=0.01, tooltip=RESCALE.tooltip,
                       **used_when(row=["its own"])),
        *when,
    ]

    @staticmethod
    def recipe(layers, scale, what, row, rescale, window):
        if row == "its own":
            return guidance.skip_layers(layers, scale, what, rescale, window)
        return guidance.skip_layers_in_uncond(layers, what, window)

    @classmethod
    def acts_at_1(cls, model, knobs):
        return knobs["row"] == "its own"


class TPG(Perturbing):
    node_id = "GuidanceTPG"
    title = "Shuffled tokens (TPG)"
    about = (
        "Better composition and detail, with or without a prompt: guides away from what the model sees when the places of "
        "the picture are in another order. 1 row more in the same forward (3 with CFG, 2 at cfg 1), which is not computed "
        "before its first such layer; none where scale or share is 0."
    )
    aliases = ["tpg", "token perturbation guidance", "TokenPerturbationGuidance", "shuffle", "composition"]
    category = "guidance/more"
    kind = "shuffle"
    recipe = staticmethod(guidance.tpg)
    when = window("Guide")
    inputs = [
        number("scale", 3.0, -100.0, 100.0, "How strongly to guide. 3 is the paper's. 0 is off and costs nothing."),
        layers("auto", "In front of which layers tokens are shuffled"),
        number("share", 1.0, 0.0, 1.0, "Of the tokens that are shuffled. 0 is off.", display_name="share (of tokens)"),
        io.Int.Input("seed", default=0, min=0, max=2 ** 53 - 1, tooltip="Of the orders. Nothing else draws from it.",
                     control_after_generate=False),
        RESCALE,
        *when,
    ]


class S2(Perturbing):
    node_id = "GuidanceRandomLayers"
    title = "Random layers left out (S2)"
    about = (
        "Finer and more coherent pictures and videos: guides away from what the model sees without a few of its layers, others "
        "at every step. 1 row more in the same forward (3 with CFG, 2 at cfg 1), which is not computed before its first such "
        "layer; none where scale or share is 0."
    )
    aliases = ["s2 guidance", "S2-Guidance", "stochastic self guidance", "block drop", "random layers"]
    category = "guidance/more"
    kind = "draw"
    recipe = staticmethod(guidance.s2_guidance)
    when = window("Guide", 0.1, 0.9)
    inputs = [
        number("scale", 0.25, -100.0, 100.0, "How strongly to guide, beside CFG. 0.25 is the paper's. 0 is off and costs "
               "nothing."),
        layers("auto", "Which layers may be left out", "all but the first"),
        number("share", 0.1, 0.0, 1.0, "Of these layers that are left out at a step, at least one. 0.1 is the paper's; 0 is "
               "off.", display_name="share (left out)"),
        io.Int.Input("seed", default=0, min=0, max=2 ** 53 - 1, tooltip="Of the draws. Nothing else draws from it.",
                     control_after_generate=False),
        *when,
    ]


class ERG(Perturbing):
    node_id = "GuidanceERG"
    title = "Attention temperature (ERG)"
    about = (
        "Cleaner pictures that keep their variety: guides away from what the model sees when its attention is less sure where "
        "to look. 1 row more in the same forward (3 with CFG, 2 at cfg 1), which is not computed before its first such layer; "
        "none where scale is 0 or tau is 1."
    )
    aliases = ["erg", "entropy rectifying guidance", "attention temperature", "entropy"]
    category = "guidance/more"
    kind = "temperature"
    recipe = staticmethod(guidance.erg)
    when = window("Guide")
    inputs = [
        number("scale", 1.0, -100.0, 100.0, "How strongly to guide. 0 is off and costs nothing."),
        layers("auto", "Which layers are less sure", "the middle"),
        number("tau", 0.5, 0.0, 10.0, "How sure their attention is: below 1 it looks at more places alike, at 0 at all of "
               "them, above 1 at fewer. 1 is off.", display_name="tau (sureness)"),
        RESCALE,
        *when,
    ]
