"""A run without a model: the evaluations that a sampler makes, what the chain plans for them, and who would act on them."""

from functools import cache, cached_property
from typing import NamedTuple

import comfy.samplers
import torch

from ...guidance.core import UNCOND, begin, needed
from .noise_levels import evaluations_of
from .planning import Chain, Deeds, idle_at_1, rows_of

SHAPE = 1, 4, 16, 16  # of made-up predictions


class Asked(NamedTuple):
    """An evaluation that a sampler asks for. both: at scale 1 too it wants the negative."""

    sigma: float
    both: bool = False


class Asking:
    """A guider that predicts nothing, and notes what a sampler asks it for."""

    def __init__(self, sampling):
        self.inner_model = self.model_patcher = self
        self.model_sampling, self.asked = sampling, []

    def get_model_object(self, name):
        return getattr(self, name)

    def __call__(self, x, timestep, model_options={}, seed=None):
        self.asked.append(Asked(timestep.tolist()[0], bool(model_options.get("disable_cfg1_optimization"))))
        denoised = torch.zeros_like(x)
        args = {"denoised": denoised, "cond_denoised": denoised, "uncond_denoised": denoised, "input": x,
                "sigma": timestep, "model": self, "model_options": model_options}
        for function in model_options.get("sampler_post_cfg_function", []):
            denoised = function({**args, "denoised": denoised})
        return denoised


def asked_by(sampler, sampling, sigmas):
    """The evaluations that a sampler makes on its way through these noise levels, or None where that is not known: other
    packs' samplers are not called for this, and some decide by what the model answers.

    sampling: a model_sampling on the CPU. sigmas: on the CPU, at least 2.
    """
    if evaluations_of(sampler) is None:
        return None
    guider, x = Asking(sampling), torch.zeros(1, 1, 1, 1)
    model = comfy.samplers.KSamplerX0Inpaint(guider, sigmas)
    model.noise = model.latent_image = x
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            sampler.sampler_function(model, x + sigmas[0], sigmas, callback=None, disable=True,
                                     extra_args={"seed": 0, "denoise_mask": None, "model_options": {}}, **sampler.extra_options)
        except AttributeError:  # one that works inside the network
            return None
    return guider.asked


# ---------------------------------------------------------------------------------------------------- the chain

@cache
def numbers():
    """Four predictions that have nothing in common."""
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)).unbind()


class Rehearsal:
    """What a chain plans for a run, evaluation by evaluation, and what its steps do with made-up predictions.

    scales: the guider's, one for each stream of the latent. asked: the evaluations; without them, one for each step.
    negative: whether the guider has one. last: where the picture decides what a link does, it does the other thing.
    acting: whether to answer, too. moments: of each evaluation, for each stream. deeds: see there.
    """

    def __init__(self, links, timeline, scales, asked=None, negative=True, last=False, acting=True):
        self.links, self.timeline, self.negative = links, timeline, negative
        self.asked = asked or [Asked(sigma) for sigma in timeline.sigmas[:-1]]
        self.deeds, self.moments = Deeds(len(links)), []
        self.edited: set[int] = set()  # the links that have changed an answer
        recipes = [link.rehearsal[-last] if link.rehearsal else link.recipe for link in links]
        chain = Chain(recipes, len(scales))
        edits = [edit for part in ("grounds", "apply") for edit in chain.edits(part, range(len(links)))]
        for asked in self.asked:
            self.deeds.step = int(timeline.locate(asked.sigma))
            moments = chain.plan(timeline, asked.sigma, scales, self.deeds)
            self.moments.append(moments)
            if acting:
                self.act([self.made_up(moment) for moment in moments], edits)

    def act(self, states, edits):
        for i, stream, edit in edits:
            before = states[stream]
            states[stream] = edit(before)
            if states[stream] is not before:
                self.deeds.applied(i)
                self.edited.add(i)

    def made_up(self, moment):
        """A State as it would begin. Whether a step changes it depends on the moment alone, or the link has a rehearsal."""
        x, cond, uncond, other = numbers()
        computed = moment.uncond in moment.needs and (self.negative or moment.uncond != UNCOND)
        scale = moment.combined
        denoised = cond if scale == 1 else torch.lerp(uncond, cond, scale) if computed else cond.clone()
        branches = {branch: other + i for i, branch in enumerate(sorted(moment.asked - {UNCOND}, key=repr))}
        return begin(moment, x, cond, uncond if computed else None, denoised, branches)

    @cached_property
    def scales(self):
        """The scale in force for each stream, by the step of the run."""
        found = {}
        for asked, moments in zip(self.asked, self.moments):
            found[int(self.timeline.locate(asked.sigma))] = [moment.combined for moment in moments]
        return list(found.values())

    @property
    def idle(self):
        """The links that do nothing because the scale is 1."""
        return idle_at_1(self.links, self.deeds.acted, self.scales)

    @property
    def rows(self):
        return sum(rows_of(needed(moments)) for moments in self.moments)
