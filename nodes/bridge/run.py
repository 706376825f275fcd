"""One sampling run, and one evaluation of it: making the steps, batching their predictions, applying them."""

import copy
import logging
import uuid
from dataclasses import replace
from functools import lru_cache

import comfy.samplers
import comfy.utils

from ...guidance.core import UNCOND, Perturbed, Prompt, Timeline, Weak, chain, guide
from . import weak_model as weak
from .guider import active, fill_inactive, index_of, pair_cond
from .noise_levels import evaluations_of, landing_of, percent_of, space_of

log = logging.getLogger("comfyui-guidance")

TAGS = "guidance_tags"  # in one forward's transformer_options: a Tag for each entry that we put in front


class Tag:
    """What an added entry of the batch is, and which of the host's entries other packs should take it for."""

    def __init__(self, branch, kin):
        self.branch, self.kin, self.perturbed = branch, kin, False


class Run:
    """One call of the sampler: the noise levels, and the steps with their memory."""

    def __init__(self, guider, links, sampler, sigmas, shapes):
        self.guider, self.links, self.shapes = guider, links, shapes
        # Packed latents (video with audio) are guided stream by stream, so each has steps of its own.
        self.streams = [self.fresh_steps() for _ in shapes]
        self.weak = weak.found(guider, pair_cond(guider) or [])
        self.evaluation = None
        self.uuids, self.said, self.weakened = {}, set(), {}
        # A copy on the CPU, so that asking it never waits for the device.
        sampling = copy.deepcopy(guider.model_patcher.get_model_object("model_sampling")).cpu()
        self.timeline = Timeline(
            tuple(sigmas.tolist()),
            space=space_of(sampling),
            percent=lru_cache(None)(percent_of(sampling)),
            sigma_at=lru_cache(None)(lambda percent: float(sampling.percent_to_sigma(percent))),
            landing=landing_of(sampler, sampling, self.say_once),
            evaluations=evaluations_of(sampler),
        )

    def fresh_steps(self):
        return chain(*(link.recipe() for link in self.links))

    def plan(self, sigma, scale):
        first, *others = [step.plan(self.timeline.moment(sigma, scale)) for step in self.streams]
        if others:
            asked = [branch for moment in others for branch in moment.asked]
            first = replace(first.ask(*asked), skip=first.skip and all(moment.skip for moment in others))
        return first

    def check_attention(self):
        """Once a run is over: say so if a branch was computed and paid for, but never perturbed."""
        for branch, happened in self.weakened.items():
            if not happened:
                self.say_once(f"Attention guidance had no effect: none of {', '.join(sorted(branch.layers))} asked for the "
                              "attention override, so another pack has replaced it or these layers.")

    def say_once(self, sentence):
        if sentence not in self.said:
            self.said.add(sentence)
            log.warning(sentence)


class Evaluation:
    """One call of the guider: what was planned, and the predictions as they come in."""

    def __init__(self, run, moment, x):
        self.run, self.moment, self.x = run, moment, x
        self.base = self.cond = self.uncond = None
        self.branches = {}
        self.batched = self.answered = False

    def batch(self, executor, model, conds, x, timestep, model_options):
        """The host's batch with our entries in front, so that its own cond stays the first of its kind."""
        self.batched = True
        own, self.base = self.run.guider.conds, pair_cond(self.run.guider)
        cond, uncond = index_of(conds, self.base, 0), index_of(conds, own.get("negative"))
        branches = [branch for branch in self.wanted() if not isinstance(branch, Weak)]
        negative = len(conds) - 1 if uncond is None else uncond
        tags = [Tag(branch, negative if isinstance(branch, Prompt) else cond) for branch in branches]
        if tags:
            model_options = tagged(model_options, tags)
        out = executor(model, [*self.entries(branches, self.base), *conds], x, timestep, model_options)
        self.keep(tags, out)
        out = fill_inactive(own, conds, out[len(tags):], self.moment.sigma)
        self.cond, self.uncond = out[cond], None if uncond is None else out[uncond]
        return out

    def predict(self, branches, base, model, x, sigma, model_options):
        """A forward of their own, for branches that the guider's batch could not carry."""
        self.batched = True
        for branch in branches:
            if isinstance(branch, Weak):
                self.branches[branch] = self.run.weak[branch.key].predict(x, sigma)
        branches = [branch for branch in branches if not isinstance(branch, Weak)]
        if not branches:
            return
        tags = [Tag(branch, int(isinstance(branch, Prompt))) for branch in branches]
        entries = self.entries(branches, base)
        self.keep(tags, comfy.samplers.calc_cond_batch(model, entries, x, sigma, tagged(model_options, tags)))

    def answer(self, denoised, cond, uncond, base, model, x, sigma, model_options):
        """The chain's answer, starting from the host's.

        base: the conditioning that `cond` is the prediction of.
        """
        self.answered = True
        if uncond is None and self.moment.uncond in self.moment.needs:
            self.run.say_once(
                f"The guidance scale is {self.moment.scale:g} but {type(self.run.guider).__name__} did not compute a "
                "negative to guide away from, so the answer is the prompt's own prediction."
            )
        stale = [b for b in self.wanted() if b not in self.branches or (isinstance(b, Perturbed) and base is not self.base)]
        if stale:
            self.predict(stale, base, model, x, sigma, model_options)
        tensors = [x, cond, cond if uncond is None else uncond, denoised, *self.branches.values()]
        answers = [
            guide(step, self.moment, *stream[:4], dict(zip(self.branches, stream[4:])))
            for step, stream in zip(self.run.streams, zip(*map(self.unpack, tensors)))
        ]
        self.branches = {}
        return answers[0] if len(answers) == 1 else comfy.utils.pack_latents(answers)[0]

    def wanted(self):
        """The branches to compute beside the host's own entries; a prompt out of its range is nobody's to compute."""
        conds, sigma = self.run.guider.conds, self.moment.sigma
        asked = self.moment.asked - {UNCOND}
        return [b for b in asked if not isinstance(b, Prompt) or active(conds[b.key], sigma)]

    def entries(self, branches, base):
        """Conditionings for branches: a prompt's own, or for a perturbed model those of the cond it perturbs."""
        return [
            self.run.guider.conds[branch.key] if isinstance(branch, Prompt)
            else [{**entry, "uuid": self.own_uuid(branch, entry)} for entry in base]
            for branch in branches
        ]

    def own_uuid(self, branch, entry):
        # Step caches remember predictions by uuid: ours differs from the entry's it copies, and stays for the run.
        return self.run.uuids.setdefault((branch, entry.get("uuid")), uuid.uuid4())

    def keep(self, tags, predictions):
        self.branches.update(zip((tag.branch for tag in tags), predictions))
        for tag in tags:
            if isinstance(tag.branch, Perturbed):
                self.run.weakened[tag.branch] = self.run.weakened.get(tag.branch, False) or tag.perturbed

    def unpack(self, tensor):
        shapes = self.run.shapes
        return [tensor] if len(shapes) == 1 else comfy.utils.unpack_latents(tensor, shapes)


def tagged(model_options, tags):
    """The options for one forward whose first entries are ours."""
    options = {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), TAGS: tags}}
    wrapper = options.get("model_function_wrapper")
    if wrapper is not None:
        options["model_function_wrapper"] = lambda apply, args: wrapper(
            apply, {**args, "cond_or_uncond": untagged(args["cond_or_uncond"], tags)}
        )
    return options


def untagged(order, tags):
    """cond_or_uncond as other packs know it: the host's own entries, and ours as the entries they resemble."""
    return [tags[i].kin if i < len(tags) else i - len(tags) for i in order]
