"""The menu of strategies that edit the direction, cond - uncond: projections, bands, and scales that they lead to."""

from comfy_api.latest import io

from .. import guidance
from .inputs import number, strength, window
from .strategy import Strategy


class PerpCFG(Strategy):
    node_id = "GuidancePerpCFG"
    title = "Perp-CFG"
    about = (
        "Less burnt colours at high cfg: keeps the part of guidance that changes the picture and drops the part that "
        "only makes the model's own prediction stronger. 2 rows, like CFG."
    )
    aliases = ["perp cfg", "projected guidance", "apg", "cfg zero star", "orthogonal", "PerpCFG", "CFGZeroStar", "burnt"]
    recipe = staticmethod(guidance.perp_cfg)
    inputs = [
        number("eta", 0.0, -10.0, 10.0, "How much of the parallel part to keep. 1 is plain CFG.",
               display_name="eta (parallel part)"),
        io.Combo.Input("reference", options=["uncond", "cond"], default="uncond",
                       display_name="reference prediction", tooltip="Parallel to which prediction: "
                       "uncond (with space noise this is CFG-Zero*) or cond (with space x0 the projection of APG)."),
        io.Combo.Input("space", options=["x0", "noise"], default="x0",
                       display_name="space to compare in", tooltip="Compare pictures (x0), or noise "
                       "predictions (velocity in flow models)."),
        io.Boolean.Input("literal", default=False,
                         display_name="literal (from uncond)",
                         tooltip="Start from uncond instead of from cond. Stronger; cfg 1 is "
                         "then no longer the prompt alone.", advanced=True),
    ]

    @classmethod
    def acts_at_1(cls, model, knobs):
        return knobs["literal"]


class APG(Strategy):
    node_id = "GuidanceAPG"
    title = "Adaptive projected guidance (APG)"
    about = (
        "High cfg without burnt colours and with more variety: drops the part of guidance that only makes the "
        "picture stronger, limits how far one step may push, and brakes against the last step. 2 rows, like CFG. "
        "Exactly as in the paper: eta 1, threshold 0 and momentum 0 are plain CFG at the same cfg."
    )
    aliases = ["apg", "adaptive projected guidance", "projected guidance", "norm threshold", "momentum",
               "AdaptiveProjectedGuidance", "burnt", "oversaturation"]
    recipe = staticmethod(guidance.apg)
    inputs = [
        number("eta", 0.0, -10.0, 10.0, "How much to keep of what only strengthens the prediction. 1 keeps all.",
               display_name="eta (parallel part)"),
        number("threshold", 0.06, 0.0, 1000.0, "The farthest that guidance may push in one step. 0 is no limit. 0.06 "
               "rms is the 15 that is usual for SDXL at 1024 pixels; lower is calmer."),
        io.Combo.Input("unit", options=["rms", "norm"], default="rms",
                       display_name="threshold unit", tooltip="Of the threshold. rms means the same "
                       "at every size. norm is the papers' unit: 15 for SDXL, 55 for Wan, 10 for HunyuanImage."),
        number("momentum", -0.5, -1.0, 1.0, "How much of the last step's guidance to add. Negative brakes; the "
               "papers use -0.5 to -0.75. 0 is off."),
    ]


class CFGZeroStar(Strategy):
    node_id = "GuidanceCFGZeroStar"
    title = "CFG-Zero*"
    about = (
        "For flow models (SD3, Flux, Wan, Qwen-Image): guides from the multiple of the negative's velocity that fits "
        "the prompt's best. With zero_steps it also leaves the noise alone for the first step or two, where these "
        "models are least sure. 2 rows, like CFG; 1 in the steps that stand still."
    )
    aliases = ["cfg zero star", "cfgzero", "cfg zero*", "zero init", "optimized scale", "CFGZeroStarAndInit"]
    recipe = staticmethod(guidance.cfg_zero_star)
    inputs = [
        strength("How far to go to the best multiple. 0 is plain CFG."),
        io.Int.Input("zero_steps", default=0, min=0, max=100, tooltip="Steps that leave the noise as it is; flow "
                     "models that start from noise only. The paper: 4 % of the steps, so 1 of 25 and 2 of 50. With "
                     "fewer steps 0: one step of 10 is too much to lose."),
    ]

    @classmethod
    def acts_at_1(cls, model, knobs):
        return knobs["zero_steps"] > 0


class FDG(Strategy):
    node_id = "GuidanceFDG"
    title = "Frequency-decoupled guidance (FDG)"
    about = (
        "Sharp details without garish colours: guides fine structure fully, and large shapes and colours less. Raise "
        "the sampler's cfg for details and set the share for the rest here. 2 rows, like CFG. Pictures of any size, "
        "video frame by frame, sound along time."
    )
    aliases = ["fdg", "frequency decoupled guidance", "laplacian pyramid", "FrequencyDecoupledGuidance",
               "low frequency", "high frequency", "details", "sharp"]
    recipe = staticmethod(guidance.fdg)
    inputs = [
        number("low", 0.44, 0.0, 10.0, "The share of guidance for large shapes and colours. The paper's 5 and 10 for "
               "SDXL are cfg 10 with 0.44 here and 1 below.", display_name="low (shapes, colours)"),
        number("high", 1.0, 0.0, 10.0, "The share for details. 1 and 1 is plain CFG.", display_name="high (details)"),
    ]


class TCFG(Strategy):
    node_id = "GuidanceTCFG"
    category = "guidance/more"
    title = "Tangential damping (TCFG)"
    about = (
        "Removes from the negative what it does not share with the prompt, so that guidance strays less. The effect "
        "resembles a somewhat lower cfg. 2 rows, like CFG. One paper, small gains."
    )
    aliases = ["tcfg", "tangential damping", "TCFG", "singular vector"]
    recipe = staticmethod(guidance.tcfg)
    inputs = [strength("How much to damp. 1 is the paper's, 0 is plain CFG.")]


class FreSca(Strategy):
    node_id = "GuidanceFreSca"
    category = "guidance/more"
    title = "FreSca"
    about = (
        "Scales low and high frequencies of guidance: more high for detail, less low for calmer shapes. The cutoff "
        "is a share of the highest frequency, so it works alike at every size. 2 rows, like CFG. One paper, mostly "
        "examples."
    )
    aliases = ["fresca", "frequency scaling", "fourier", "FreSca"]
    recipe = staticmethod(guidance.fresca)
    inputs = [
        number("low", 1.0, 0.0, 10.0, "Factor for low frequencies: large shapes and colours.",
               display_name="low (shapes, colours)"),
        number("high", 1.5, 0.0, 10.0, "Factor for high frequencies: details. 1 and 1 is plain CFG.",
               display_name="high (details)"),
        io.Float.Input("cutoff", default=0.3, min=0.0, max=1.0, step=0.01,
                       display_name="cutoff frequency", tooltip="Where high begins, as a share of "
                       "the highest frequency. The authors' 20 is 0.3 for SDXL at 1024 pixels."),
    ]


class MamboG(Strategy):
    node_id = "GuidanceMamboG"
    category = "guidance/more"
    title = "Magnitude-aware guidance (MAMBO-G)"
    about = (
        "Softens guidance where it is large compared with the prediction, as in the first steps of flow models with few "
        "steps. Raise the sampler's cfg along with it; the paper uses 10. 2 rows, like CFG. One paper, for SD3.5, "
        "Qwen-Image and Wan."
    )
    aliases = ["mambo-g", "raag", "ratio aware", "magnitude aware guidance", "MagnitudeAwareGuidance"]
    recipe = staticmethod(guidance.mambo_g)
    inputs = [number("alpha", 8.0, 0.0, 100.0, "How much to soften. 0 is plain CFG.",
                     display_name="alpha (softer)")]


class PowerLaw(Strategy):
    node_id = "GuidancePowerLaw"
    category = "guidance/more"
    title = "Power-law CFG"
    about = (
        "Guides strongly while prompt and negative disagree, and ever less as they come to agree, each picture by "
        "its own. 2 rows, like CFG. One paper; the cfg has to be found anew for each model."
    )
    aliases = ["power law", "nonlinear cfg", "overshoot and shrinkage"]
    recipe = staticmethod(guidance.power_law)
    inputs = [
        number("alpha", 0.9, 0.0, 10.0, "How steeply guidance follows the disagreement. 0.9 is the paper's for "
               "latents; 0 is plain CFG.", display_name="alpha (steeper)"),
        io.Float.Input("reference", default=0.1, min=0.0001, max=100.0, step=0.001, round=0.0001,
                       display_name="reference difference", tooltip="The "
                       "disagreement (root mean square of the difference of the model's outputs) at which cfg stays "
                       "what it is."),
    ]


class AutoRange(Strategy):
    node_id = "GuidanceAutoRange"
    category = "guidance/more"
    title = "Automatic CFG (range of channels)"
    about = (
        "Finds a cfg for every channel of every picture so that its values have the range which the sampler's cfg "
        "asks for: cfg 10 asks for 1. Burns less at high cfg. 2 rows, like CFG. A community method without published "
        "measurements, made for SD1.5 and SDXL."
    )
    aliases = ["automatic cfg", "auto cfg", "AutomaticCFG", "auto scale", "per channel cfg"]
    recipe = staticmethod(guidance.auto_range)
    inputs = [
        io.Float.Input("reference", default=8.0, min=1.0, max=100.0, step=0.1, display_name="reference cfg",
                       tooltip="The cfg at which ranges are measured."),
        strength("How far to go from the sampler's cfg to the one found, which is at most twice the larger of cfg and "
                 "reference. 0 is off."),
    ]


class SkimmedCFG(Strategy):
    node_id = "GuidanceSkimmedCFG"
    category = "guidance/more"
    title = "Skimmed CFG"
    about = (
        "High cfg without burning: those values that a high cfg would drive ever farther from zero get a lower one. "
        "2 rows, like CFG. A community method without published measurements."
    )
    aliases = ["skimmed cfg", "burnt", "anti burn", "skimming", "CFG skimming"]
    recipe = staticmethod(guidance.skimmed_cfg)
    inputs = [
        number("skim", 7.0, 0.0, 100.0, "The cfg for those values. The sampler's cfg, or more, is plain CFG.",
               display_name="skim to cfg"),
        io.Boolean.Input("full_negative", default=False,
                         display_name="full negative skim", tooltip="No guidance at all for values that the negative "
                         "drives."),
        io.Boolean.Input("flips", default=True,
                         display_name="leave flips alone", tooltip="Leave values alone that guidance brings back across the "
                         "noisy picture.", advanced=True),
    ]


class Momentum(Strategy):
    node_id = "GuidanceMomentum"
    category = "guidance/more"
    title = "Momentum guidance"
    about = (
        "Crisper detail at no cost, also at cfg 1: pushes each step away from the average of those before. For flow "
        "models, with samplers that add no noise. Adds no rows. One recent paper, on ImageNet models, SD3 and Flux."
    )
    aliases = ["momentum guidance", "mg", "MomentumGuidance", "ema velocity", "details", "turbo", "lightning",
               "distilled"]
    recipe = staticmethod(guidance.momentum_guidance)
    inputs = [
        number("alpha", 0.5, -10.0, 10.0, "How hard to push. 0 is off.", display_name="alpha (push)"),
        io.Float.Input("beta", default=0.6, min=0.0, max=0.999, step=0.01, display_name="beta (memory)",
                       tooltip="How slowly the average forgets."),
    ]

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True


class SMC(Strategy):
    node_id = "GuidanceSMC"
    category = "guidance/more"
    title = "Sliding mode control (SMC-CFG)"
    about = (
        "Less overshoot at high cfg, for flow models: switches every value of guidance by a fixed amount against where it is "
        "heading. Values smaller than that amount are switched to and fro from step to step. 2 rows, like CFG. One recent "
        "paper."
    )
    aliases = ["smc cfg", "smc", "cfg ctrl", "CFG-Ctrl", "sliding mode control", "overshoot"]
    recipe = staticmethod(guidance.smc_cfg)
    when = window("Control")
    inputs = [
        number("gain", 0.2, 0.0, 100.0, "The amount, in velocities. 0.2 is the authors' for Flux, SD3, Qwen-Image and Wan. 0 "
               "is plain CFG.", display_name="gain (K)"),
        io.Float.Input("decay", default=5.0, min=0.0, max=100.0, step=0.05, display_name="decay (lambda)",
                       tooltip="How much the last step's direction counts beside its change. 5 is the authors'."),
        *when,
    ]
