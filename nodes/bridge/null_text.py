"""Null-text inversion on the host: its guider loads the model and reads the prompts, and this takes a sampler's place."""

import comfy.model_management
import comfy.samplers
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP

from ...guidance.null_text import REFINED, null_text
from .gradients import with_gradients
from .hooks import CHAIN
from .noise_levels import on_the_cpu, percent_of


def invert(model, latent, positive, negative, sigmas, scale, iterations, rate):
    """(noise, nulls, error): a NOISE, a CONDITIONING that takes the negative's place, and the mean squared error of the
    latent that they lead to. Strategies on the model are left out: it is plain CFG that gives the latent back."""
    plain = model.clone()
    plain.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, CHAIN)
    guider, inversion = comfy.samplers.CFGGuider(plain), Inversion(scale, iterations, rate)
    guider.set_conds(positive, negative)
    guider.sample(torch.zeros_like(latent), latent, inversion, sigmas, disable_pbar=True, seed=0)
    latent_format = model.get_model_object("latent_format")
    noise = InvertedNoise(latent_format, inversion.noisy, *inversion.parts)
    sampling = on_the_cpu(model.get_model_object("model_sampling"))
    return noise, over_the_run(inversion.nulls, negative, sigmas, percent_of(sampling)), inversion.error


class Inversion(comfy.samplers.Sampler):
    """In a sampler's place. What it finds: noisy, the latent to start from; parts, (a, b) where the host starts from
    a * noise + b * latent; nulls, one tensor of tokens (B, tokens, width) for each step; error, of the latent they lead to."""

    def __init__(self, scale, iterations, rate):
        self.scale, self.iterations, self.rate = scale, iterations, rate

    def sample(self, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask=None, disable_pbar=False):
        start, one = sigmas[:1].cpu(), torch.ones(1)
        sampling, whole = on_the_cpu(guider.inner_model.model_sampling), self.max_denoise(guider, sigmas)
        self.parts = [float(sampling.noise_scaling(start, *of, whole)) for of in ((one, 0 * one), (0 * one, one))]
        with torch.inference_mode(False), torch.no_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
            with_gradients(guider.inner_model, self.invert, guider, sigmas.tolist(), extra_args, noise.clone(),
                           latent_image.clone())
        return self.noisy

    def invert(self, guider, sigmas, extra_args, noise, latent):
        model, options = guider.inner_model, extra_args["model_options"]
        (entry,) = guider.conds["negative"]
        tokens = entry["cross_attn"].to(latent, copy=True)
        tokens = tokens.expand(len(latent), *tokens.shape[1:]) if len(tokens) == 1 else tokens
        # Offsets are learnt in units of the prompt's own deviation, which differs a hundredfold between text encoders.
        unit = guider.conds["positive"][0]["cross_attn"].to(latent).std()
        bar = comfy.utils.ProgressBar((self.iterations + 3 + REFINED) * (len(sigmas) - 1))

        def predict(entries, x, sigma):
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(1)
            return comfy.samplers.calc_cond_batch(model, [entries], x, x.new_full((len(x),), sigma), options)[0]

        def cond(x, sigma):
            return predict(guider.conds["positive"], x, sigma)

        def uncond(x, sigma, offset):
            learnt = [{**entry, "cross_attn": tokens + unit * offset}]
            return differentiable(predict(comfy.samplers.encode_model_conds(
                model.extra_conds, learnt, noise, noise.device, "negative", latent_image=latent,
                seed=extra_args.get("seed"), latent_shapes=[noise.shape]), x, sigma))

        self.noisy, offsets, arrived = null_text(
            latent, sigmas, cond, uncond, torch.zeros_like(tokens), self.scale, self.iterations, self.rate)
        self.nulls = [(tokens + unit * offset).cpu() for offset in offsets]
        self.error = float((arrived - latent).square().mean())


def differentiable(prediction):
    if not prediction.requires_grad:
        raise ValueError("GuidanceNullText: no gradient comes back through this model to its prompt, so no null can be learnt "
                         "(another pack, an attention such as SageAttention or quantised weights may be why).")
    return prediction


def over_the_run(nulls, negative, sigmas, percent):
    """A CONDITIONING of the nulls, each in force around the noise level of its step."""
    at = [percent(float(sigma)) for sigma in sigmas]
    ends = [0.0, *((one + next) / 2 for one, next in zip(at, at[1:-1])), 1.0]
    return [[null, {**negative[0][1], "start_percent": start, "end_percent": end}]
            for null, start, end in zip(nulls, ends, ends[1:])]


class InvertedNoise:
    """A NOISE from which the host's samplers start where the inversion ended, whatever latent they are given."""

    seed = 0

    def __init__(self, latent_format, noisy, a, b):
        self.latent_format, self.noisy, self.a, self.b = latent_format, noisy.cpu(), a, b

    def generate_noise(self, latent):
        samples = latent["samples"]
        if samples.shape != self.noisy.shape:
            raise ValueError(f"GuidanceNullText: this noise is of shape {tuple(self.noisy.shape)}, and the latent to be "
                             f"sampled of {tuple(samples.shape)}; it has to be as large.")
        given = self.latent_format.process_in(samples) if samples.count_nonzero() else samples  # as the host does
        return (self.noisy - self.b * given.to(self.noisy)) / self.a
