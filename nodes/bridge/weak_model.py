"""A weaker model beside the one that is sampled: loaded with it, given the same prompt, called on its own."""

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers

from .distilled import INPUT, told
from .guider import without


def as_weak_model(weak, model, strategy):
    """The weak model, fit to stand beside the model. Raises ValueError with one sentence where it is not."""
    main, other = model.model, weak.model
    if type(main.latent_format) is not type(other.latent_format):
        raise ValueError(f"{strategy}: weak_model works on {type(other.latent_format).__name__} latents and model on "
                         f"{type(main.latent_format).__name__}; both have to be of one family.")
    if main.model_type != other.model_type and "FLOW" in f"{main.model_type} {other.model_type}":
        raise ValueError(f"{strategy}: weak_model is a {other.model_type.name} model and model a {main.model_type.name} "
                         "model, which have no common noise levels.")
    weak = loaded_again(weak, strategy) if other is main else weak.clone()
    weak.remove_additional_models("multigpu")  # which the host would take for those of the main model
    return weak


def loaded_again(patcher, strategy):
    """The same model from its file once more: two sets of patches, such as a LoRA, cannot be in one model at once."""
    if getattr(patcher, "cached_patcher_init", None) is None:
        raise ValueError(f"{strategy}: weak_model and model are one loaded model; load weak_model from another file.")
    load, inputs, *which = patcher.cached_patcher_init
    fresh = load(*inputs)
    fresh = fresh[which[0]] if which else fresh
    return patcher.clone(model_override=fresh.get_clone_model_override())


class WeakModel:
    """One weak model during one run."""

    def __init__(self, patcher, prompts):
        self.patcher = patcher
        # Scheduled LoRAs are patched into the main model alone.
        self.prompts = {name: [without(entry, "hooks") for entry in cond] for name, cond in prompts.items()}
        self.options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
        comfy.sampler_helpers.prepare_model_patcher(patcher, self.prompts, self.options)

    def begin(self, guider, noise, sigmas, inputs):
        """inputs: latent_image, denoise_mask, seed and latent_shapes, as the host prepared them for the sampler."""
        self.options["transformer_options"]["sample_sigmas"] = sigmas
        if "context_handler" in guider.model_options:  # or it would see the whole latent and not its windows
            self.options["context_handler"] = guider.model_options["context_handler"]
        self.patcher.pre_run()
        self.known = {}
        for name, cond in self.prompts.items():
            # The main model has started the ControlNets, which know no other.
            bare = [without(entry, "control") for entry in cond]
            made = comfy.samplers.process_conds(self.patcher.model, noise, {name: bare}, noise.device, **inputs)[name]
            self.known[id(guider.conds[name])] = [
                {**after, "control": before["control"]} if "control" in before else after
                for after, before in zip(made, cond)
            ]

    def predict(self, cond, x, sigma, distilled=None):
        """For the prompt which the main model knows as `cond`. distilled: the scale, where both take it as an input."""
        prompt = self.known.get(id(cond)) or next(iter(self.known.values()))
        if distilled is not None and all(INPUT in entry["model_conds"] for entry in prompt):
            prompt = told(prompt, distilled)
        return comfy.samplers.calc_cond_batch(self.patcher.model, [prompt], x, sigma, self.options)[0]

    def end(self):
        self.patcher.cleanup()
