"""One sampling run: its noise levels, the steps with their memory, the prompts and models that the chain brings."""

import logging
from collections.abc import Hashable
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from time import perf_counter

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers

from .costs import record
from .evaluation import Evaluation
from .guider import bypasses_planning, layout, planned_values, prompts_of, read_scales, without
from .joined import ITS_OWN, refusal
from .noise_levels import on_the_cpu, retold_of, timeline_of
from .page import Page
from .planning import Chain
from .record import Record
from .report import Report
from .weak_model import WeakModel

log = logging.getLogger("comfyui-guidance")


class Run:
    """One call of the sampler."""

    def __init__(self, guider, links, stretches, sampler, sigmas, shapes):
        self.guider, self.links, self.shapes = guider, links, shapes
        self.chain = Chain([link.recipe for link in links], len(shapes))
        self.record = Record(self) if any(link.probe is not None for link in links) else None
        # What there is to do with an answer, in all and in each stretch.
        self.grounds = self.chain.edits("grounds", range(len(links)))
        ends = [stretch.first for stretch in stretches[1:]] + [len(links)]
        self.pieces = {stretch: self.chain.edits("apply", range(stretch.first, end))
                       for stretch, end in zip(stretches, ends)}
        # A packed latent is always taken apart, because its streams may have a scale each.
        self.edited = bool(self.grounds) or any(self.pieces.values()) or len(shapes) > 1
        self.prompts = {
            key: given(guider.conds) if callable(given) else comfy.sampler_helpers.convert_cond(given)
            for link in links for key, given in link.prompts.items()
        }
        self.weak = {
            key: WeakModel(model, prompts_of(guider)) for link in links for key, model in link.models.items()
        }
        self.evaluation = None  # planned and not yet answered
        self.calling = self.answered = False  # within a call of the guider; whether that call had an answer
        self.conds, self.layouts = None, {}
        self.values = {}  # what the guider has been given for this call
        self.uuids, self.twins, self.said = {}, {}, set()
        self.weakened: dict[Hashable, tuple[tuple[str, ...], bool]] = {}  # what was: in which layers, whether one was met
        self.written: set[str] = set()  # keys of words with a negative weight in some conditioning of the guider's
        self.bypassed, self.heard = bypasses_planning(guider), False  # heard: whether the chain has had an answer to edit
        sampling = on_the_cpu(guider.model_patcher.get_model_object("model_sampling"))
        self.timeline = timeline_of(sampling, sampler, sigmas, self.say_once)
        self.retold = lru_cache(None)(retold_of(sampling))
        self.scales = read_scales(guider, len(shapes), 0, self.say_once)  # the guider's own, at the last evaluation
        self.page, self.report = Page(self), Report(self)

    def __enter__(self):
        self.report.before()

    def __exit__(self, *_):
        self.page.finish()
        if self.record is not None:
            self.record.finish()
        self.report.after()
        for layers, happened in self.weakened.values():
            if not happened:
                self.say_once(f"Weakening the model had no effect: none of the layers {', '.join(layers)} was met, so "
                              "another pack has replaced them or the attention override.")
        comfy.sampler_helpers.cleanup_models(self.prompts, [])
        # In a ring it would keep the model until the next garbage collection, and the host would call that a memory leak.
        vars(self).clear()

    def brought(self):
        """What the host has to load beside its own, as conditionings, which may come with models."""
        models = [model.patcher for model in self.weak.values()]
        bearer = next(entry for cond in self.guider.conds.values() for entry in cond)
        return {**self.prompts, "guidance_models": [{**bearer, "additional_models": models}]}

    @contextmanager
    def prepared(self, noise, sigmas, **inputs):
        """Around the sampler itself: its prompts and weak models are made ready as the host does with its own.

        inputs: latent_image, denoise_mask and seed, as the host prepared them for the sampler.
        """
        inputs["latent_shapes"] = self.shapes
        positive = [without(entry, "control", "gligen") for entry in self.guider.conds.get("positive", [])]
        for key, prompt in self.prompts.items():
            # On their own: the areas of these must not be copied to the guider's prompts. But the guider's areas are
            # copied to these, as they are to its own negative.
            made = comfy.samplers.process_conds(
                self.guider.inner_model, noise, {"positive": positive, key: prompt}, noise.device, **inputs)
            self.prompts[key] = made[key]
            shared = [entry for entry in self.guider.conds.get("positive", []) if entry.get("control_apply_to_uncond")]
            comfy.samplers.apply_empty_x_to_equal_area(shared, made[key], "control", lambda conds, i: conds[i])
        self.conds = self.guider.conds
        self.check_joined()
        self.check_written()
        try:
            for model in self.weak.values():
                model.begin(self.guider, noise, sigmas, inputs)
            start = perf_counter()
            yield
            comfy.model_management.synchronize()  # what the host waits for next in any case
            record(self.report.rows, perf_counter() - start)
        finally:
            for model in self.weak.values():
                model.end()

    @property
    def network(self):
        return self.guider.inner_model.diffusion_model

    def check_joined(self):
        """Raises ValueError where a prompt cannot be read in the row of another one."""
        for link in self.links:
            if link.joins:
                entries = [*chain.from_iterable(prompts_of(self.guider).values()), *chain.from_iterable(
                    self.prompts[key] for key in link.prompts)]
                sentence = refusal(self.guider.model_patcher, entries)
                if sentence is not None:
                    raise ValueError(f"{link.name}: {sentence}")

    def check_written(self):
        """Say so where words with a negative weight are in no prompt that they could be pushed away in."""
        entries = {name: [*chain(*(entry.get(ITS_OWN, ()) for entry in cond))] for name, cond in self.guider.conds.items()}
        self.written = {key for keys in entries.values() for key in keys}
        heard = {key for name in prompts_of(self.guider) for key in entries[name]}
        for link in self.links:
            if self.written & link.prompts.keys() - heard:
                self.say_once(f"{link.name}: its prompt is a negative one here, in which negative weights do nothing.")

    def means(self, entry, key):
        """Whether words are to be pushed away in this entry of a prompt: those written in another prompt are not."""
        if ITS_OWN not in self.prompts[key][0]:
            return True
        return key in entry[ITS_OWN] if ITS_OWN in entry else key not in self.written

    def plan(self, sigma, scale=None):
        """A Moment for each stream of the latent. scale: where the guider's own does not count."""
        scales = self.scales if scale is None else [scale] * len(self.shapes)
        return self.chain.plan(self.timeline, sigma, scales, self.report.deeds)

    def begin(self, x, timestep):
        """Plan an evaluation. Here is the one read from the device, before the forward."""
        sigma = timestep.tolist()[0]
        step = self.report.deeds.step = int(self.timeline.locate(sigma))
        if not self.calling:  # within a call the guider has the scales that the chain has chosen
            self.scales = read_scales(self.guider, len(self.shapes), step, self.say_once)
        self.evaluation = Evaluation(self, self.plan(sigma), x)
        self.report.begun(self.evaluation.moments)
        self.page.planned(self.evaluation.moments[0])
        if self.record is not None:
            self.record.begun(self.evaluation.moments[0])
        return self.evaluation

    def call(self, executor, x, timestep, model_options, seed):
        """One call of the guider, at the scales and with the negative that the chain has chosen."""
        evaluation = self.begin(x, timestep)
        self.values = planned_values(self.guider, evaluation.moments, evaluation.negative)
        before = {name: getattr(self.guider, name) for name in self.values}
        self.calling, self.answered = True, False
        try:
            for name, value in self.values.items():
                setattr(self.guider, name, value)
            denoised = executor(x, timestep, evaluation.told(model_options), seed)
            return self.unheard(denoised, timestep, model_options)
        finally:
            for name, value in before.items():
                setattr(self.guider, name, value)
            self.calling, self.evaluation, self.values = False, None, {}

    def overwritten(self):
        """Whether somebody has given the guider another scale in this call than we have: as an object, because a scale
        of 1 may be ours, which leaves uncond out, or another's, which leaves guidance out."""
        return any(getattr(self.guider, name) is not value for name, value in self.values.items())

    def batch(self, executor, conds, x, timestep, model_options):
        """A batch of the guider's, or of another pack that predicts something of its own."""
        if self.evaluation is None and (self.calling or self.bypassed):
            # It samples again in the same call, or goes past the hook in which evaluations are planned.
            self.begin(x, timestep)
        if self.evaluation is None or x is not self.evaluation.x:
            return executor(self.guider.inner_model, conds, x, timestep, model_options)
        return self.evaluation.batch(executor, conds, timestep, model_options)

    def layout(self, conds):
        """Which entry of a batch is what; see guider.layout."""
        if self.guider.conds is not self.conds:  # somebody has put others in for this call
            return layout(self.guider, conds)
        key = (*map(id, conds),)  # the lists live as long as the run
        if key not in self.layouts:
            self.layouts[key] = layout(self.guider, conds)
        return self.layouts[key]

    def answer(self, stretch, args):
        """What one stretch of the chain makes of the answer so far; args: what the host tells a post-cfg function."""
        evaluation = self.evaluation or self.begin(args["input"], args["sigma"])
        return evaluation.advance(self.pieces[stretch], args)

    def end_answer(self, args):
        """The last of the post-cfg functions: what comes now is another evaluation."""
        self.evaluation, self.answered = None, True
        return args["denoised"]

    def unheard(self, denoised, timestep, model_options):
        """The answer of a guider that calls no post-cfg functions, guided after all."""
        evaluation = self.evaluation
        if self.answered or evaluation is None:
            self.heard = True
            return denoised
        if evaluation.cond is None:
            if not self.heard:  # else a cache has given back the answer of another evaluation
                self.say_once(f"{type(self.guider).__name__} makes its predictions past ComfyUI's own function, where the "
                              "chain cannot see them, so the chain has no effect.")
            return denoised
        self.heard = True
        args = {"denoised": denoised, "cond": evaluation.base, "cond_denoised": evaluation.cond,
                "uncond": evaluation.against, "uncond_denoised": evaluation.uncond, "model": self.guider.inner_model,
                "input": evaluation.x, "sigma": timestep, "model_options": model_options}
        for pieces in self.pieces.values():
            args["denoised"] = evaluation.advance(pieces, args)
        return args["denoised"]

    def passed_over(self):
        """The sampler asks for a prediction without the model's options, and so without the chain."""
        self.report.due += 1
        self.say_once(f"The sampler asks {type(self.guider).__name__} for some predictions without the model's options, as if "
                      "it had no chain, so these are not guided by it.")

    def called(self, x):
        """The network is called with these rows."""
        self.report.called(x.shape[0] // self.shapes[0][0])

    def say_once(self, sentence):
        if sentence not in self.said:
            self.said.add(sentence)
            log.warning(sentence)
