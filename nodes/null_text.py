"""A picture back into noise, and nulls with which CFG makes it again: for editing it by its prompt."""

import logging

import comfy.sampler_helpers
import torch
from comfy_api.latest import io

from .bridge.null_text import invert
from .checked import Checked
from .plan import checked_sigmas

log = logging.getLogger("comfyui-guidance")


class NullText(Checked):
    inputs = [
        io.Model.Input("model", tooltip="The model that you will sample with. Strategies on it are left out."),
        io.Latent.Input("latent", tooltip="The picture, encoded."),
        io.Conditioning.Input("positive", tooltip="A prompt that describes the picture as it is."),
        io.Conditioning.Input("negative", tooltip="What the nulls begin with: an empty prompt for most models."),
        io.Sigmas.Input("sigmas", tooltip="The noise levels that you will sample at, such as BasicScheduler's."),
        io.Float.Input("cfg", default=7.5, min=1.0, max=100.0, step=0.1, tooltip="The scale at which you will sample; the "
                       "nulls are for this one."),
        io.Int.Input("iterations", default=10, min=0, max=1000, tooltip="How often each step's null is improved, at most. 0 "
                     "learns nothing: only the noise is found."),
        io.Float.Input("rate", default=0.01, min=0.0001, max=1.0, step=0.001, display_name="learning rate",
                       tooltip="How far a null goes at a time, in units of the deviation of the prompt's embedding."),
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceNullText",
            display_name="Null-text inversion",
            category="guidance/more",
            description="To edit a picture by its prompt: finds the noise that the picture comes from, and for each step what "
                        "to guide away from, so that CFG with the euler sampler makes this picture again. Then change the "
                        "prompt and sample with both. Costs about ten times as much as sampling, once.",
            search_aliases=["null text", "p2p", "ddim inversion", "invert", "reconstruct", "mokady"],
            inputs=cls.inputs,
            outputs=[
                io.Noise.Output(display_name="noise"),
                io.Conditioning.Output(display_name="nulls", tooltip="The sampler's negative: one null for each step."),
            ],
        )

    @classmethod
    def execute(cls, **knobs):
        model, latent, positive, negative, sigmas, scale, iterations, rate = cls.check(knobs).values()
        samples = latent["samples"]
        check_fit(samples, model.get_model_object("latent_format").latent_channels, positive, negative)
        noise, nulls, error = invert(model, samples, positive, negative, checked_falling(sigmas), scale, iterations, rate)
        log.info("Null-text inversion: cfg %g gives the latent back with a mean squared error of %.2g.", scale, error)
        return io.NodeOutput(noise, nulls)


def check_fit(samples, channels, positive, negative):
    """Raises ValueError with one sentence about what cannot be inverted."""
    if getattr(samples, "is_nested", False):
        raise ValueError("GuidanceNullText: latent has several streams; it has to be a single one, of pictures or of a video.")
    if samples.shape[1] != channels:
        raise ValueError(f"GuidanceNullText: latent has {samples.shape[1]} channels, and this model's have {channels}.")
    if not samples.isfinite().all():
        raise ValueError("GuidanceNullText: latent holds numbers that are not finite.")
    for name, conditioning in ("positive", positive), ("negative", negative):
        if not conditioning or not isinstance(conditioning[0][0], torch.Tensor):
            raise ValueError(f"GuidanceNullText: {name} has no tokens; it has to be an encoded prompt.")
    if len(negative) != 1:
        raise ValueError(f"GuidanceNullText: negative has {len(negative)} prompts; it has to be a single one.")
    if len(negative[0][0]) not in (1, len(samples)):
        raise ValueError(f"GuidanceNullText: negative is for {len(negative[0][0])} pictures, and latent has {len(samples)}.")
    if comfy.sampler_helpers.cond_has_hooks([*positive, *negative]):
        raise ValueError("GuidanceNullText: a prompt has hooks (scheduled LoRAs), which cannot be inverted.")


def checked_falling(sigmas):
    sigmas = checked_sigmas(sigmas)
    if not (sigmas.diff() < 0).all():
        raise ValueError("sigmas has to fall from each noise level to the next.")
    return sigmas
