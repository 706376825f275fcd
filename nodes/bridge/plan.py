"""What can be said of a run before it begins: what each step computes and costs, who acts when, and what to know."""

from collections import Counter
from itertools import groupby
from types import SimpleNamespace

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers

from ...guidance.core import UNCOND, Ahead, Cropped, Mistimed, Perturbed, Prompt, Weak, forwards, needed
from ...guidance.core import Step as Nothing
from .guider import active
from .hooks import CHAIN, POST_CFG, Stretch
from .noise_levels import name_of, on_the_cpu, timeline_of
from .page import stretched
from .planning import Chain, rows_of, setters
from .rehearsal import Rehearsal, asked_by
from .report import by_stream, of_idle

WORDS = {Perturbed: "perturbed", Mistimed: "mistimed", Weak: "weak model", Prompt: "further negative", UNCOND: "negative",
         Ahead: "ahead", Cropped: "window"}
LARGEST = 1 - 8 / 64  # share of a side: a window up to this one is smaller than the picture, if that is not tiny
MOST = 12  # stretches of steps that are listed


class Plan:
    """A run that has not begun.

    sampler, sigmas: as SamplerCustom takes them. scale: the guider's. negative: whether it has one.
    """

    def __init__(self, model, sampler, sigmas, scale, negative=True):
        self.model, self.links, self.scale, self.negative = model, model.model_options.get(CHAIN, ()), scale, negative
        self.sampler, self.remarks = name_of(sampler).removeprefix("sample_"), {}
        sampling = on_the_cpu(model.get_model_object("model_sampling"))
        self.timeline = timeline_of(sampling, sampler, sigmas, lambda sentence: self.remarks.setdefault(sentence))
        self.steps = len(self.timeline.sigmas) - 1
        self.asked = asked_by(sampler, sampling, sigmas)
        self.ranges = {key: ranges_of(given, sampling) for link in self.links for key, given in link.prompts.items()}
        self.run, self.other = self.rehearsed([scale]), self.rehearsed([scale], last=True)
        self.evaluations = self.computed(self.run)
        # Where the picture decides, the more costly of two cases.
        self.most = [max(pair, key=rows_of) for pair in zip(self.evaluations, self.computed(self.other))]

    def rehearsed(self, scales, **how):
        return Rehearsal(self.links, self.timeline, scales, self.asked, self.negative, **how)

    @property
    def open(self):
        """Whether the picture decides what is computed."""
        return self.most != self.computed(self.other) or self.most != self.evaluations

    # ------------------------------------------------------------------------------------------------ what it costs

    def computed(self, run):
        """The branches that each evaluation computes."""
        return [self.branches(asked, moments) for asked, moments in zip(run.asked, run.moments)]

    def branches(self, asked, moments):
        branches, moment = needed(moments), moments[0]
        if asked.both and not moment.skips:
            branches |= {moment.uncond}
        found = set()
        for branch in branches:
            if branch == moment.uncond and not self.in_range(branch, asked.sigma):
                branch = UNCOND  # the guider's own stands in
            if self.in_range(branch, asked.sigma) and (self.negative or isinstance(moment.uncond, Prompt)
                                                       or not isinstance(branch, (type(UNCOND), Ahead))):
                found.add(branch)
        return frozenset(found)

    def in_range(self, branch, sigma):
        return not isinstance(branch, Prompt) or active(self.ranges[branch.key], sigma)
