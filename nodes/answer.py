"""The menu of strategies that reshape the answer: thresholds, contrast and norm."""

from functools import partial

from comfy_api.latest import io

from .. import guidance
from .inputs import number, percentile, strength
from .strategy import Strategy


class DynamicThreshold(Strategy):
    node_id = "GuidanceDynamicThreshold"
    title = "Dynamic thresholding"
    about = (
        "High cfg without blown-out colours: clips the few most extreme values and shrinks the rest back into the "
        "range that pictures have. The paper's form needs a model of pixels; for latents the range is that of the "
        "prompt's own prediction. Costs nothing beside CFG. Acts on what the nodes before it have made of the "
        "picture."
    )
    aliases = ["dynamic thresholding", "imagen", "threshold percentile", "clip x0", "saturation fix", "oversaturation",
               "DynamicThresholdingSimple"]
    inputs = [
        percentile(0.995),
        io.Combo.Input("form", options=["auto", "pixels", "latents"], default="auto",
                       display_name="form of the model", tooltip="pixels: into -1 to 1, "
                       "for models without a VAE. latents: into the range of the prompt's own prediction. auto asks "
                       "the model."),
        strength(),
    ]

    @classmethod
    def prepare(cls, model, percentile, form, strength):
        return model, partial(guidance.dynamic_threshold, percentile, cls.resolved(model, form), strength), {}

    @staticmethod
    def resolved(model, form):
        if form != "auto":
            return form
        return "pixels" if model.get_model_object("latent_format").latent_channels == 3 else "latents"

    @classmethod
    def acts_at_1(cls, model, knobs):
        return cls.resolved(model, knobs["form"]) == "pixels"


class Mimic(Strategy):
    node_id = "GuidanceMimic"
    title = "Dynamic thresholding (mimic scale)"
    about = (
        "Follows the prompt as at a high cfg, with the colours and contrast of a lower one: the answer is brought "
        "into the range that the lower cfg would have given. For latents. Costs nothing beside CFG. There is no "
        "paper; it is the method of the Dynamic Thresholding extension, and widely used."
    )
    aliases = ["mimic scale", "mimic cfg", "DynamicThresholdingFull", "DynThresh", "dynamic thresholding", "cfg fix", "burnt",
               "oversaturation"]
    recipe = staticmethod(guidance.mimic)
    inputs = [
        number("mimic_scale", 7.0, 0.0, 100.0, "The cfg whose range to have; the sampler's own changes nothing. Try "
               "7 for SD1.5, 5 for SDXL, 3.5 for flow models."),
        percentile(1.0),
        io.Boolean.Input("per_channel", default=True, tooltip="A range for each channel of the latent, or one for "
                         "all."),
        io.Combo.Input("start", options=["mean", "zero"], default="mean",
                       display_name="start of the range", tooltip="Values move towards their "
                       "channel's mean, or towards zero.", advanced=True),
        io.Combo.Input("measure", options=["range", "std"], default="range",
                       display_name="measure of the range", tooltip="The range is the largest "
                       "distance from the mean, or the standard deviation.", advanced=True),
        strength(),
    ]


class Rescale(Strategy):
    node_id = "GuidanceRescale"
    title = "CFG rescale"
    about = (
        "Takes back the contrast that guidance adds: the answer gets the standard deviation of the prompt's own "
        "prediction. Needed by models trained for zero terminal SNR, which wash out otherwise. Right for eps, v and "
        "flow models alike. Costs nothing beside CFG. Acts on what the nodes before it have made of the picture."
    )
    aliases = ["rescale cfg", "guidance rescale", "zsnr", "RescaleCFG", "phi", "std match", "burnt", "contrast",
               "oversaturation", "washed out"]
    recipe = staticmethod(guidance.rescale)
    inputs = [
        number("strength", 0.7, 0.0, 1.0, "How far. 0.7 is the paper's, for v-prediction models; try 0 to 0.4 for "
               "others. 0 is off."),
        io.Combo.Input("space", options=["output", "x0"], default="output",
                       display_name="space to match in", tooltip="Match what the model puts out "
                       "(noise, v or velocity), as in the paper, or the picture (x0), as LTX-2 does."),
    ]


class Renorm(Strategy):
    node_id = "GuidanceRenorm"
    category = "guidance/more"
    title = "CFG norm"
    about = (
        "Gives the guided answer the length of the prompt's own prediction: place by place as Qwen-Image's own "
        "pipeline does, or as a limit for the whole picture as Z-Image's does. Costs nothing beside CFG. Published "
        "only as part of those pipelines, without measurements of its own."
    )
    aliases = ["cfg norm", "CFGNorm", "RenormCFG", "cfg normalization", "renorm", "qwen image", "z-image", "lumina"]
    recipe = staticmethod(guidance.renorm)
    inputs = [
        strength("How far. 1 is what the pipelines do, 0 is off."),
        io.Combo.Input("over", options=["tokens", "pixels", "sample"], default="tokens",
                       display_name="length over", tooltip="Whose length. "
                       "tokens: each 2 x 2 of the latent (Qwen-Image). pixels: each place. sample: the whole picture "
                       "(Z-Image)."),
        io.Float.Input("limit", default=0.0, min=0.0, max=100.0, step=0.01,
                       display_name="limit (0: exact)", tooltip="0: exactly as long as the "
                       "prompt's prediction. Otherwise at most this many times as long (Z-Image: 1)."),
        io.Combo.Input("space", options=["output", "x0"], default="output",
                       display_name="space to measure in", tooltip="Of what the model puts out "
                       "(noise, v or velocity), or of the picture (x0)."),
    ]
