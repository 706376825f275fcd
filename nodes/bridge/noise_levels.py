"""What ComfyUI's model_sampling and sampler objects say, in the words of guidance/."""

import comfy.model_sampling
import torch

from ...guidance.space import Space


def space_of(sampling):
    """The Space of a model_sampling, found by asking it: all of its conversions are affine."""
    zero, one = torch.zeros(1), torch.ones(1)

    def alpha(sigma):
        return float(sampling.noise_scaling(torch.tensor([sigma]), zero.clone(), one.clone()))

    def parts(sigma):
        s = torch.tensor([sigma])
        return float(sampling.calculate_denoised(s, zero, one)), float(sampling.calculate_denoised(s, one, zero))

    return Space(alpha, parts)


def percent_of(sampling):
    """From sigma to ComfyUI's percent: the inverse, by bisection, of its percent_to_sigma."""

    def percent(sigma):
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if sampling.percent_to_sigma(middle) > sigma else (low, middle)
        return high if high == 1.0 else low

    return percent


def landing_of(sampler, sampling, say_once):
    """Down to which noise level a step of this sampler uses the prediction's noise again (see Timeline.landing)."""
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", type(sampler).__name__)
    options = getattr(sampler, "extra_options", {})
    eta = options.get("eta", 1.0)

    def at_next(sigma, sigma_next):
        return sigma_next

    def ancestral(sigma, sigma_next):
        up = min(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
        return (sigma_next**2 - up**2) ** 0.5

    def ancestral_flow(sigma, sigma_next):
        return sigma_next * (1 + (sigma_next / sigma - 1) * eta)

    def nowhere(sigma, sigma_next):
        return 0.0

    def said(sentence, landing):
        def say_and_land(sigma, sigma_next):
            say_once(sentence)
            return landing(sigma, sigma_next)

        return say_and_land

    if name == "sample_euler" and not options.get("s_churn"):
        return at_next
    if name == "sample_euler_ancestral":
        return ancestral_flow if isinstance(sampling, comfy.model_sampling.CONST) else ancestral
    if name == "sample_lcm":
        return nowhere
    if name.endswith("_cfg_pp"):
        sentence = f"{name} already renoises the CFG++ way, so the CFG++ strength is used as its cfg."
        return said(sentence, nowhere)
    return said(f"CFG++ is exact for euler, ddim and euler_ancestral; with {name} it is an approximation, "
                "each evaluation scaled as if it were a first-order step.", at_next)
