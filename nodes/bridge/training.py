"""Captions lost while ComfyUI trains, so that the model goes on knowing pictures without one.

The chain stands aside while a model trains (hooks.py), so this has wrappers of its own. ComfyUI's TrainLoraNode gives each
call a list of captions, one for each sample, and predicts every sample with all of them: the answer is their mean. Here
each sample is predicted by itself, with its own caption or with the null.
"""

import logging
from uuid import uuid4

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP

from ...guidance.dropout import dropped

DROPOUT = "guidance_training_dropout"  # in model_options: (probability, seed, null), and in a run's own the Captions
CAPTIONS = "guidance_training_captions"
NULL = "guidance_null"  # in the entry of a caption: what stands for it where it is lost

log = logging.getLogger("comfyui-guidance")


def with_dropout(model, probability, seed, null):
    """A clone of the model that loses captions while it trains; sampling is as it was.

    null: from a processed entry of a conditioning to the entry that stands for it.
    """
    patched = model.clone()
    if DROPOUT not in patched.model_options:
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, DROPOUT, sampler_sample)
        patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, DROPOUT, predict_noise)
    patched.model_options[DROPOUT] = probability, seed, null
    return patched


def sampler_sample(executor, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, *args):
    if not getattr(comfy.model_management, "in_training", False):
        return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args)
    probability, seed, null = guider.model_options[DROPOUT]
    entries = guider.conds["positive"]
    nulls = comfy.samplers.encode_model_conds(
        guider.inner_model.extra_conds, [null(entry) for entry in entries], noise, noise.device, "negative",
        latent_image=latent_image, denoise_mask=denoise_mask, seed=extra_args.get("seed"), latent_shapes=[noise.shape])
    for entry, instead in zip(entries, nulls):
        entry[NULL] = instead
    captions = guider.model_options[CAPTIONS] = Captions(probability, seed)  # options of this run's own
    try:
        return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args)
    finally:
        log.info("Training dropout: %d of %d captions were dropped.", captions.lost, captions.seen)


def predict_noise(executor, x, timestep, model_options={}, seed=None):
    captions = executor.class_obj.model_options.get(CAPTIONS)
    if captions is None:
        return executor(x, timestep, model_options, seed)
    return captions.predict(executor, x, timestep, model_options, seed)


class Captions:
    """Those of one training: which are lost is drawn anew for every sample of every step."""

    def __init__(self, probability, seed):
        self.probability, self.generator = probability, torch.Generator().manual_seed(seed)
        self.seen = self.lost = 0

    def predict(self, executor, x, timestep, model_options, seed):
        """The prediction of each sample of x (B, ...) with its own caption, or with the null."""
        guider = executor.class_obj
        conds, entries = guider.conds, guider.conds["positive"]
        if len(entries) != len(x):
            raise ValueError(f"GuidanceTrainingDropout: {len(x)} samples have {len(entries)} captions; each has to have one.")
        lost = dropped(len(x), self.probability, self.generator).tolist()
        self.seen, self.lost = self.seen + len(x), self.lost + sum(lost)
        predictions = []
        try:
            for i, entry in enumerate(entries):
                guider.conds = {**conds, "positive": [entry[NULL] if lost[i] else entry]}
                predictions.append(executor(x[i:i + 1], timestep[i:i + 1], model_options, seed))
        finally:
            guider.conds = conds
        return torch.cat(predictions)


def instead_of(text, entry):
    """A caption's entry with the text of another one. What belongs to the picture stays: its size, a ControlNet, an area."""
    kept = {name: value for name, value in entry.items() if name != "attention_mask"}  # which is of the text that goes
    return {**kept, **text, "model_conds": {}, "uuid": uuid4(), "prompt_type": "negative"}


def text_of(conditioning):
    """The one entry of a CONDITIONING, as `instead_of` takes it. Raises ValueError with one sentence."""
    if len(conditioning) != 1:
        raise ValueError(f"GuidanceTrainingDropout: null has {len(conditioning)} prompts; it has to be a single one.")
    if comfy.sampler_helpers.cond_has_hooks(conditioning):
        raise ValueError("GuidanceTrainingDropout: null has hooks (scheduled LoRAs); it has to be without.")
    return comfy.sampler_helpers.convert_cond(conditioning)[0]
