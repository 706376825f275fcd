"""A weaker model beside the one that is sampled: loaded with it, given the same prompt, called on its own."""

from uuid import uuid4

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers

PREFIX = "guidance_weak_"  # of the keys under which a model keeps its weak models, for the host to load them with it


def add_weak_model(model, weak, strategy):
    """(a clone of the model that has the weak model beside it, the weak model's key)."""
    main, other = model.model, weak.model
    if type(main.latent_format) is not type(other.latent_format):
        raise ValueError(f"{strategy}: weak_model works on {type(other.latent_format).__name__} latents and model on "
                         f"{type(main.latent_format).__name__}; both have to be of one family.")
    if main.model_type != other.model_type and "FLOW" in f"{main.model_type} {other.model_type}":
        raise ValueError(f"{strategy}: weak_model is a {other.model_type.name} model and model a {main.model_type.name} "
                         "model, which have no common noise levels.")
    if other is main:
        weak = loaded_again(weak, strategy)
    key = PREFIX + uuid4().hex
    patched = model.clone()
    patched.set_additional_models(key, [weak])
    return patched, key


def loaded_again(patcher, strategy):
    """The same model from its file once more: two sets of patches, such as a LoRA, cannot be in one model at once."""
    if getattr(patcher, "cached_patcher_init", None) is None:
        raise ValueError(f"{strategy}: weak_model and model are one loaded model; load weak_model from another file.")
    load, inputs, *which = patcher.cached_patcher_init
    fresh = load(*inputs)
    fresh = fresh[which[0]] if which else fresh
    return patcher.clone(model_override=fresh.get_clone_model_override())


def found(guider, cond):
    """The guider's weak models by key, each with the prompt as it is before the model it is for processes it."""
    models = guider.model_patcher.additional_models
    return {key: WeakModel(models[key][0], cond) for key in models if key.startswith(PREFIX)}


class WeakModel:
    """One weak model during one run."""

    def __init__(self, patcher, cond):
        self.patcher = patcher
        # Scheduled LoRAs are patched into the main model alone.
        self.cond = [{name: value for name, value in entry.items() if name != "hooks"} for entry in cond]
        self.options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
        comfy.sampler_helpers.prepare_model_patcher(patcher, {"positive": self.cond}, self.options)

    def begin(self, noise, sigmas, shapes, **inputs):
        """inputs: latent_image, denoise_mask and seed, as the host prepared them for the sampler."""
        self.options["transformer_options"]["sample_sigmas"] = sigmas
        self.patcher.pre_run()
        conds = comfy.samplers.process_conds(self.patcher.model, noise, {"positive": self.cond}, noise.device,
                                             latent_shapes=shapes, **inputs)
        self.cond = conds["positive"]

    def predict(self, x, sigma):
        return comfy.samplers.calc_cond_batch(self.patcher.model, [self.cond], x, sigma, self.options)[0]
