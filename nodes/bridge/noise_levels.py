"""What ComfyUI's model_sampling and sampler objects say, in the words of guidance/."""

import copy
from functools import lru_cache

import comfy.model_sampling
import torch

from ...guidance.core import Timeline
from ...guidance.space import Space


def timeline_of(sampling, sampler, sigmas, say_once):
    """The Timeline of a run. sampling: a model_sampling on the CPU. say_once: for a sentence about the sampler."""
    return Timeline(
        tuple(sigmas.tolist()),
        space=space_of(sampling),
        percent=lru_cache(None)(percent_of(sampling)),
        sigma_at=lru_cache(None)(lambda percent: float(sampling.percent_to_sigma(percent))),
        landing=landing_of(sampler, sampling, say_once),
        evaluations=evaluations_of(sampler),
    )


def on_the_cpu(sampling):
    """A model_sampling that can be asked without waiting for the device."""
    there = all(tensor.device.type == "cpu" for tensor in (*sampling.parameters(), *sampling.buffers()))
    return sampling if there else copy.deepcopy(sampling).cpu()


def space_of(sampling):
    """The Space of a model_sampling, found by asking it: all of its conversions are affine."""
    zero, one = torch.zeros(1), torch.ones(1)

    def alpha(sigma):
        return float(sampling.noise_scaling(torch.tensor([sigma]), zero.clone(), one.clone()))

    def parts(sigma):
        s = torch.tensor([sigma])
        return float(sampling.calculate_denoised(s, zero, one)), float(sampling.calculate_denoised(s, one, zero))

    return Space(alpha, parts)


def retold_of(sampling):
    """(sigma, told) -> (a, b, c): a network that is given a * x and told the noise level `told` sees what it sees of x at
    sigma, and what its output means at sigma is b * x + c * (what it would mean at `told`)."""
    parts = space_of(sampling).parts

    def entering(sigma):
        return float(sampling.calculate_input(torch.tensor([sigma]), torch.ones(1)))

    def retold(sigma, told):
        (skip, gain), (skip_told, gain_told) = parts(sigma), parts(told)
        a, c = entering(sigma) / entering(told), gain / gain_told
        return a, skip - c * skip_told * a, c

    return retold


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
    name = name_of(sampler)
    options = getattr(sampler, "extra_options", {})
    eta = options.get("eta", 1.0)

    def at_next(sigma, sigma_next):
        return sigma_next

    def ancestral(sigma, sigma_next):
        up = min(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
        return (sigma_next**2 - up**2) ** 0.5

    def ancestral_flow(sigma, sigma_next):
        return sigma_next * (1 + (sigma_next / sigma - 1) * eta)

    def diffusing(sigma, sigma_next):
        # Solvers of the reverse SDE scale x by the ratio of noise to signal, once more to the power of eta.
        flow = isinstance(sampling, comfy.model_sampling.CONST)
        if sigma_next == 0 or (flow and sigma >= 1):
            return 0.0
        level, after = (s / (1 - s) if flow else s for s in (sigma, sigma_next))
        down = after * (after / level) ** eta
        return down / (1 + down) if flow else down

    def nowhere(sigma, sigma_next):
        return 0.0

    def said(sentence, landing):
        def say_and_land(sigma, sigma_next):
            say_once(sentence)
            return landing(sigma, sigma_next)

        return say_and_land

    if name == "sample_euler" and not options.get("s_churn"):
        return at_next
    renoised = ancestral_flow if isinstance(sampling, comfy.model_sampling.CONST) else ancestral
    if name == "sample_euler_ancestral":
        return renoised
    if name == "sample_lcm":
        return nowhere
    if name.endswith("_cfg_pp"):
        sentence = f"{name} already renoises the CFG++ way, so the CFG++ strength is used as its cfg."
        return said(sentence, nowhere)
    return said(f"CFG++ is exact for euler, ddim and euler_ancestral; with {name} it is an approximation, "
                "each step scaled as if it were of first order.",
                renoised if name in ANCESTRAL else diffusing if name in DIFFUSING else at_next)


def evaluations_of(sampler):
    """How often a sampler evaluates a step, at most; None for those of other packs, and for one that decides itself."""
    function = getattr(sampler, "sampler_function", None)
    core = getattr(function, "__module__", "").startswith("comfy.") and name_of(sampler) != "dpm_adaptive_function"
    return EVALUATIONS.get(name_of(sampler), 1 if core else None)


def name_of(sampler):
    return getattr(getattr(sampler, "sampler_function", None), "__name__", type(sampler).__name__)


# Samplers of ComfyUI that take a step as euler_ancestral does, and those that solve the reverse SDE.
ANCESTRAL = {"sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral"}
DIFFUSING = {
    *(f"sample_dpmpp_{name}{where}" for name in ("sde", "2m_sde", "2m_sde_heun", "3m_sde") for where in ("", "_gpu")),
    "sample_seeds_2", "sample_seeds_3", "sample_exp_heun_2_x0_sde",
}
EVALUATIONS = {f"sample_{name}": count for count, names in {
    2: ("heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde",
        "dpmpp_sde_gpu", "exp_heun_2_x0", "exp_heun_2_x0_sde", "seeds_2", "sa_solver_pece"),
    3: ("heunpp2", "seeds_3"),
}.items() for name in names}
