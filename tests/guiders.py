"""Guiders as other packs and later hosts write them, each cut down to what sets it apart, with real ComfyUI beneath.

A `twin` is the core guider that makes the same picture, so that a chain's answer under the one is known from the other.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider, calc_cond_batch, sampling_function
from comfy_extras import nodes_lt
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from pack.tests.host import NEGATIVE, POSITIVE, cfg_guider, prompt

OTHER = prompt(21)


class CallsPredictNoise(CFGGuider):
    """As ComfyUI-NAG's: called, it goes straight to predict_noise, past the PREDICT_NOISE wrappers."""

    def __call__(self, *args, **kwargs):
        return self.predict_noise(*args, **kwargs)


class SpatioTemporal(CFGGuider):
    """As LTXVideo's STG guider: three calls, its own sum, its own round of the post-cfg functions (with no cond_scale),
    and the number 0 for each prediction that it leaves out."""

    stg = 0.0

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        positive, negative = self.conds.get("positive"), self.conds.get("negative")
        cond = calc_cond_batch(self.inner_model, [positive], x, timestep, model_options)[0]
        uncond = perturbed = 0
        if not math.isclose(self.cfg, 1.0):
            uncond = calc_cond_batch(self.inner_model, [negative], x, timestep, model_options)[0]
        if not math.isclose(self.stg, 0.0):
            perturbed = calc_cond_batch(self.inner_model, [positive], x, timestep, blind_middle(model_options))[0]
        denoised = cond + (self.cfg - 1) * (cond - uncond) + self.stg * (cond - perturbed)
        for function in model_options.get("sampler_post_cfg_function", []):
            denoised = function({
                "denoised": denoised, "cond": positive, "uncond": negative, "model": self.inner_model,
                "uncond_denoised": uncond, "cond_denoised": cond, "sigma": timestep, "model_options": model_options,
                "input": x, "perturbed_cond": positive, "perturbed_cond_denoised": perturbed,
            })
        return denoised


def blind_middle(model_options):
    return comfy.model_patcher.set_model_options_patch_replace(
        {**model_options}, lambda q, k, v, options, mask=None: v, "attn1", "middle", 0)


class Scheduled(CFGGuider):
    """As KJNodes' ScheduledCFGGuidance: cfg is a list, one number for each step."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        cfg = self.cfg
        if isinstance(cfg, list):
            sigmas = model_options["transformer_options"]["sample_sigmas"]
            cfg = cfg[int((sigmas - timestep[0]).abs().argmin())]
        return sampling_function(self.inner_model, x, timestep, self.conds.get("negative"), self.conds.get("positive"),
                                 cfg, model_options=model_options, seed=seed)


class Named(CFGGuider):
    """As FlowEdit's and RES4LYF's: conditionings and scales under names of its own, chosen by the sampler."""

    def __init__(self, model):
        super().__init__(model)
        self.cfgs = {}

    def set_conds(self, **conds):
        self.inner_set_conds(conds)

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        kind = model_options["transformer_options"].get("latent_type", "xt")
        return sampling_function(
            self.inner_model, x, timestep, self.conds.get(f"{kind}_negative"), self.conds.get(f"{kind}_positive"),
            self.cfgs.get(kind, self.cfg), model_options=model_options, seed=seed)


class SeparateCalls(CFGGuider):
    """cond and uncond in a call each, and a sum of its own that no hook sees."""

    order = ("positive", "negative")

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        found = {name: calc_cond_batch(self.inner_model, [self.conds[name]], x, timestep, model_options)[0]
                 for name in self.order}
        return found["negative"] + (found["positive"] - found["negative"]) * self.cfg


class Twice(CFGGuider):
    """Two guided predictions per evaluation, for two prompts, and their mean."""

    def set_conds(self, positive, other, negative):
        self.inner_set_conds({"positive": positive, "other": other, "negative": negative})

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        first, second = (
            sampling_function(self.inner_model, x, timestep, self.conds["negative"], self.conds[name], self.cfg,
                              model_options=model_options, seed=seed)
            for name in ("positive", "other")
        )
        return (first + second) / 2


class AudioVideo(CFGGuider):
    """As LTXVDualCFGGuider (ComfyUI 0.32): a scale for each stream of a packed latent. Equal scales are written to
    self.cfg and go the ordinary way; unequal ones are mixed in a cfg function for this one call."""

    def set_cfg(self, video_cfg=3.0, audio_cfg=7.0):
        self.video_cfg, self.audio_cfg = video_cfg, audio_cfg
        self.cfg = max(video_cfg, audio_cfg)

    def sample(self, noise, latent_image, *args, **kwargs):
        self._v_numel = math.prod(latent_image.unbind()[0].shape[1:]) if latent_image.is_nested else None
        return super().sample(noise, latent_image, *args, **kwargs)

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        video = self._v_numel
        if video is None or math.isclose(self.video_cfg, self.audio_cfg):
            self.cfg = self.video_cfg
            return super().predict_noise(x, timestep, model_options, seed)
        scales = torch.full_like(x, self.audio_cfg)
        scales[..., :video] = self.video_cfg

        def mixed(args):
            return args["uncond"] + (args["cond"] - args["uncond"]) * scales

        model_options = {**model_options, "sampler_cfg_function": mixed, "disable_cfg1_optimization": True}
        return super().predict_noise(x, timestep, model_options, seed)


AudioVideo = getattr(nodes_lt, "Guider_LTXAVDualCFG", AudioVideo)  # the host's own where it has one


# ------------------------------------------------------------------------------------------------ guiders with twins

class Kind(NamedTuple):
    make: Callable  # from a model with its chain
    twin: Callable = lambda model, chain: cfg_guider(chain(model))  # from a plain model and what chains it
    has_negative: bool = True  # whether it computes one


def made(cls, model, cfg=7.0, **values):
    guider = cls(model)
    guider.set_conds(POSITIVE, NEGATIVE)
    guider.set_cfg(cfg)
    vars(guider).update(values)
    return guider


def named(model, **cfgs):
    guider = Named(model)
    guider.set_conds(xt_positive=POSITIVE, xt_negative=NEGATIVE)
    guider.set_cfg(1.0 if cfgs else 7.0)
    guider.cfgs = cfgs
    return guider


def twice(model):
    guider = Twice(model)
    guider.set_conds(POSITIVE, OTHER, NEGATIVE)
    guider.set_cfg(7.0)
    return guider


def twice_twin(model, chain):
    """The ordinary guider asked twice, from the outside."""

    def mean(executor, x, timestep, model_options={}, seed=None):
        conds = executor.class_obj.conds
        first = executor(x, timestep, model_options, seed)
        executor.class_obj.conds = {**conds, "positive": conds["other"]}
        try:
            return (first + executor(x, timestep, model_options, seed)) / 2
        finally:
            executor.class_obj.conds = conds

    guider = cfg_guider(chain(outermost(model, mean)))
    guider.inner_set_conds({"other": OTHER})
    return guider


STEPS = [9.0, 7.0, 4.0]


def scheduled_twin(model, chain):
    """The ordinary guider told a number at each step, from the outside."""

    def told(executor, x, timestep, model_options={}, seed=None):
        sigmas = model_options["transformer_options"]["sample_sigmas"]
        executor.class_obj.cfg = STEPS[int((sigmas - timestep[0]).abs().argmin())]
        return executor(x, timestep, model_options, seed)

    return cfg_guider(chain(outermost(model, told)))


def stg_twin(model, chain):
    """Core's PAG on the same block, in front of the chain."""
    return cfg_guider(chain(PerturbedAttentionGuidance.execute(model, 1.0).result[0]))


def outermost(model, wrapper):
    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "outermost", wrapper)
    return patched


GUIDERS = {
    "CallsPredictNoise": Kind(lambda model: made(CallsPredictNoise, model)),
    "SpatioTemporal": Kind(lambda model: made(SpatioTemporal, model)),
    "SpatioTemporal with stg": Kind(lambda model: made(SpatioTemporal, model, stg=1.0), stg_twin),
    "SpatioTemporal at cfg 1": Kind(lambda model: made(SpatioTemporal, model, 1.0),
                                    lambda model, chain: cfg_guider(chain(model), 1.0), False),
    "Scheduled": Kind(lambda model: made(Scheduled, model, STEPS), scheduled_twin),
    "Named": Kind(named),
    "Named with cfgs": Kind(lambda model: named(model, xt=7.0)),
    "SeparateCalls": Kind(lambda model: made(SeparateCalls, model)),
    "SeparateCalls, negative first": Kind(lambda model: made(SeparateCalls, model, order=("negative", "positive"))),
    "Twice": Kind(twice, twice_twin),
}
