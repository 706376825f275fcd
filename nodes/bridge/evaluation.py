"""One evaluation, from top to bottom: what was planned, the batch that computes it, the chain that answers with it."""

import uuid
from dataclasses import replace
from math import isclose

import comfy.samplers
import comfy.utils
import torch

from ...guidance.core import UNCOND, Ahead, Cropped, Mistimed, Perturbed, Prompt, State, Unprompted, Weak, begin
from .distilled import told
from .guider import (
    active,
    coverage,
    embedded,
    has_scale_pair,
    is_everywhere,
    is_prompt,
    negative_of,
    reaches_all,
    without,
)
from .joined import Nag, beside, join, together
from .rows import JOINED, Label, Labels, arranged, labelled
from .seen import CROPPED, apart, sees_all

OF_THE_PROMPT = (Perturbed, Mistimed, Cropped)  # the branches that are of the guider's prompt, at its x
RUN = "guidance_run"  # in model_options: the run that they belong to; without one, a batch is left as it is


class Evaluation:
    """One prediction of the guider's, which may take it several batches.

    moments: the plan, for each stream of the latent. base, against: the guider's conditionings of which cond and
    uncond are the predictions. branches: the further predictions. states: what the chain has made of all these so
    far, for each stream; none before its first stretch.
    """

    def __init__(self, run, moments, x):
        self.run, self.x, self.moments = run, x, moments
        if not self.in_range(self.moment.uncond):
            self.moments = [replace(moment, uncond=UNCOND) for moment in self.moments]
        elif self.negative is not None and hasattr(run.guider, "uncond_model_patcher"):
            run.say_once(f"{type(run.guider).__name__} has a negative of its own for its second model, so a plain "
                         "negative prompt on the main model has no effect; weighted and perp-neg have.")
        self.base = self.against = self.cond = self.uncond = None
        self.states: list[State] = []
        self.branches, self.edited = {}, {}
        self.unguided = False  # whether even what guidance starts from is the prompt
        self.left_out = None  # in the place of a negative's prediction that is left out, for whoever reads one

    @property
    def moment(self):
        return self.moments[0]

    @property
    def guided(self):
        """Whether any stream is guided."""
        return any(moment.uncond in moment.needs for moment in self.moments)

    @property
    def negative(self):
        """The conditioning that stands for the guider's negative, or None where that one acts."""
        return self.run.prompts[self.moment.uncond.key] if isinstance(self.moment.uncond, Prompt) else None

    @property
    def unprompted(self):
        """Whether the network makes uncond in the prompt's own row."""
        return isinstance(self.moment.uncond, Unprompted) and reaches_all(self.prompt)

    @property
    def prompt(self):
        """The conditioning that cond is predicted for."""
        return self.base if self.base is not None else self.run.guider.conds.get("positive") or []

    def in_range(self, branch):
        """Whether the host would compute this now: a prompt may be out of its timestep range."""
        return not isinstance(branch, Prompt) or active(self.run.prompts[branch.key], self.moment.sigma)

    def told(self, model_options):
        """The host's options for this evaluation."""
        needed = UNCOND in self.moment.asked or self.moment.combined == 1 and self.guided
        return {**model_options, "disable_cfg1_optimization": True} if needed else model_options

    # ------------------------------------------------------------------------------------------------ the batch

    def batch(self, executor, conds, timestep, model_options):
        """One batch of the guider's; the first one carries our entries too."""
        cond_at, uncond_at, stand_ins = self.run.layout(conds)
        first = self.base is None and self.against is None
        if self.base is None and cond_at is not None:
            self.base = conds[cond_at]
        if self.against is None and uncond_at is not None:
            self.against = conds[uncond_at]
        used, spared = conds, False
        if self.moment.is_plain:
            own = executor(self.run.guider.inner_model, conds, self.x, timestep, model_options)
        else:
            used = [self.edit(cond) for cond in conds]
            spared = self.moment.skips and uncond_at is not None and cond_at not in (None, *stand_ins)
            if spared:  # some samplers and guiders have the negative computed at any scale
                used = [None if i in stand_ins else cond for i, cond in enumerate(used)]
            perturbed, prompts = self.added(cond_at, uncond_at) if first else ([], [])
            entries = arranged(used, perturbed, prompts, cond_at, uncond_at, self.moment.weakened, self.unprompted)
            own = self.compute(executor, entries, self.x, timestep, model_options)
        if any(not is_everywhere(used[i]) for i in stand_ins):
            own = self.fill(stand_ins, used, own, timestep)
        if spared:
            self.left_out = own[uncond_at]
        if self.cond is None and cond_at is not None:
            self.cond = own[cond_at]
        if self.uncond is None and uncond_at is not None:
            self.uncond = own[uncond_at]
        return own

    def added(self, cond_at, uncond_at):
        """Our entries of a batch: those that other packs should take for its cond, and those for its uncond."""
        places = cond_at or 0, 1 if uncond_at is None else uncond_at
        wanted = self.wanted()
        perturbed, prompts = (
            [(self.label(branch, *places), self.entry(branch)) for branch in wanted if isinstance(branch, kind)]
            for kind in (OF_THE_PROMPT, Prompt))
        instead = self.negative if uncond_at is not None and not self.moment.skips else None
        if instead is not None and instead is not self.against and not reaches_all(instead):
            # For where the other negative does not reach.
            prompts.append((self.label(UNCOND, cond_at, uncond_at), self.against))
        return perturbed, prompts

    def label(self, branch, cond_at, uncond_at):
        """The label of one of our entries, by the places of the host's."""
        if isinstance(branch, OF_THE_PROMPT):
            return Label(cond_at, branch, branch if isinstance(branch, Perturbed) else None)
        without = branch == UNCOND
        return Label(uncond_at, branch, self.moment.weakened if without else None, without and self.unprompted)

    def wanted(self):
        """The branches to compute beside the guider's own predictions, in an order that does not change."""
        return sorted((branch for branch in self.moment.asked if branch != UNCOND and self.in_range(branch)
                       and not (isinstance(branch, Cropped) and sees_all(branch, self.run.shapes))), key=repr)

    def entry(self, branch):
        """The conditioning of a branch: a prompt's own, or a copy of the cond that it perturbs."""
        if isinstance(branch, Prompt):
            return self.run.prompts[branch.key]
        if branch == UNCOND:
            return self.edit(negative_of(self.run.guider))
        entries = self.copied(self.edit(self.prompt), branch)
        if isinstance(branch, Mistimed):
            return [apart(entry, branch, self.run.network) for entry in entries]
        if isinstance(branch, Cropped):
            if any({"control", "gligen"} & entry.keys() for entry in entries):
                self.run.say_once("Sliding windows see the picture without ControlNets and GLIGEN, which only know the whole.")
            return [{**without(entry, "control", "gligen"), CROPPED: branch} for entry in entries]
        return entries

    def copied(self, cond, branch):
        """A conditioning with uuids of its own. Step caches remember predictions by them: ours differ from those of the
        entries that they copy, and stay for the run."""
        own = [self.run.uuids.setdefault((branch.lasting, entry.get("uuid")), uuid.uuid4()) for entry in cond]
        if isinstance(branch, (Perturbed, Unprompted)):
            self.run.twins.update((mine, entry.get("uuid")) for mine, entry in zip(own, cond))
        return [{**entry, "uuid": mine} for mine, entry in zip(own, cond)]

    def edit(self, cond):
        """A conditioning as the plan wants it: another negative instead, or another embedding of the prompt."""
        if cond is None:
            return None
        if id(cond) not in self.edited:
            made = cond
            stands = cond is self.against or cond is negative_of(self.run.guider)
            if stands and self.negative is not None:
                made = self.negative
            elif stands and self.unprompted:
                made = self.copied(self.edit(self.prompt), self.moment.uncond)
            elif is_prompt(self.run.guider, cond):
                made = self.with_others(self.embedded(cond))
            self.edited[id(cond)] = made
        return self.edited[id(cond)]

    def embedded(self, cond):
        """A prompt with the embedding that the plan wants."""
        if self.moment.embed is None:
            return cond
        made = embedded(cond, self.moment.embed, len(self.x))
        if made is None:
            self.run.say_once("The prompt was not changed: this model does not read it through cross-attention.")
        return cond if made is None else made

    def with_others(self, cond):
        """A prompt with the tokens of the other prompts that the plan wants in the same row."""
        wish, prompts = self.moment.beside, self.run.prompts
        negative = prompts[wish.negative][0] if wish.negative and self.in_range(Prompt(wish.negative)) else None
        made = []
        for entry in cond:
            pushed = [(prompts[key][0], weight) for key, weight in wish.pushed
                      if self.in_range(Prompt(key)) and self.run.means(entry, key)]
            if negative is not None or pushed:
                entry = join(entry, self.run.network, negative, *together(pushed), Nag(wish.scale, wish.tau, wish.alpha),
                             self.run.uuids.setdefault((wish, entry.get("uuid")), uuid.uuid4()), self.moment.sparse)
            made.append(entry)
        return made

    def compute(self, executor, entries, x, timestep, model_options):
        """The predictions of the guider's own entries; those of ours are kept."""
        labels, conds = Labels((label for label, _ in entries), self.run.twins), [cond for _, cond in entries]
        if self.moment.beside or self.moment.sparse:
            conds = [cond and [entry if JOINED in entry["model_conds"] else beside(entry, self.run.network, self.moment.sparse)
                               for entry in cond] for cond in conds]
        if self.moment.distilled is not None:
            conds = [cond and told(cond, self.moment.distilled) for cond in conds]
        if any(label != Label(label.kin) for label in labels.labels):
            conds, model_options = labelled(labels, conds, model_options)
        out = executor(self.run.guider.inner_model, conds, x, timestep, model_options)
        for label, cond, prediction in zip(labels.labels, conds, out):
            if label.branch is not None:
                self.branches[label.branch] = prediction
            if label.weakened is not None and cond and active(cond, self.moment.sigma):
                # Of what draws other layers each time, one draw is enough: a cache may skip others.
                met = label.weakened in labels.done or self.run.weakened.get(label.weakened.lasting, ((), False))[1]
                self.run.weakened[label.weakened.lasting] = label.weakened.layers, met
        return [prediction for label, prediction in zip(labels.labels, out) if label.branch is None]

    def fill(self, stand_ins, used, predictions, timestep):
        """The host predicts zeros where a conditioning is missing, out of its range or does not reach, and guidance
        would push away from them. Here the prediction of another conditioning takes their place."""
        filled, sigma = list(predictions), self.moment.sigma
        for i, (name, others) in stand_ins.items():
            absent = [not used[j] or not active(used[j], sigma) for j in (i, *others)]
            other = next((predictions[j] for j, missing in zip(others, absent[1:]) if not missing), None)
            if other is None:
                continue
            if absent[0]:
                filled[i] = other.clone()
                self.unguided |= name == "empty_negative_prompt" and absent[1]
            elif not reaches_all(used[i]):
                other = self.branches.pop(UNCOND, other)
                filled[i] = torch.where(coverage(used[i], self.x, timestep), predictions[i], other)
        return filled

    # ------------------------------------------------------------------------------------------------ the answer

    def advance(self, edits, args):
        """The answer after a stretch of the chain, these edits. args: what the host tells a post-cfg function."""
        if self.unguided and not self.states:
            args = {**args, "denoised": args["cond_denoised"]}  # PerpNegGuider's own is NaN then
        denoised = args["denoised"]
        if not self.run.edited:
            self.moments = self.in_force(args)
            self.check_guided(self.uncond_of(args))
            return denoised
        record = self.run.record
        if not self.states:
            self.states = self.start(args)
            self.edit_states(self.run.grounds)
        else:  # as other packs have left it
            self.states = [replace(state, denoised=stream.float())
                           for state, stream in zip(self.states, self.streams(denoised))]
            if record is not None:
                record.handed_back(self.states)
        self.edit_states(edits)
        if record is not None:
            record.handed_out(self.states)
        if self.left_out is not None:
            self.left_out.copy_(self.packed([state.uncond for state in self.states]))
        return self.packed([state.denoised.to(denoised.dtype) for state in self.states])

    def edit_states(self, edits):
        """What these do to the states: (which link, of which stream, its function)."""
        for i, stream, edit in edits:
            before = self.states[stream]
            after = self.states[stream] = edit(before)
            if after is not before:
                self.run.report.deeds.applied(i)
                if self.run.record is not None:
                    self.run.record.edited(i, stream, before, after)

    def start(self, args):
        """The predictions as the States that the chain edits, one for each stream."""
        cond, uncond, base = args["cond_denoised"], self.uncond_of(args), args.get("cond")
        self.moments = self.in_force(args)
        if self.base is None or (base is not None and base is not self.base):
            # What is perturbed is not what was batched.
            self.base, self.branches = base, {b: p for b, p in self.branches.items() if not isinstance(b, OF_THE_PROMPT)}
        stale = [branch for branch in self.wanted() if branch not in self.branches]
        negative = negative_of(self.run.guider)
        if uncond is None and UNCOND in self.moment.asked and negative and active(negative, self.moment.sigma):
            stale.append(UNCOND)
        if stale:
            self.predict(stale, args)
            uncond = self.branches.pop(UNCOND, uncond)
        self.check_guided(uncond)
        uncond = cond if uncond is None else uncond
        for branch, prediction in self.branches.items():
            if isinstance(branch, Prompt) and not reaches_all(self.run.prompts[branch.key]):
                covered = coverage(self.run.prompts[branch.key], self.x, args["sigma"])
                self.branches[branch] = torch.where(covered, prediction, uncond)  # elsewhere it pushes nowhere
        tensors = [args["input"], cond, uncond, args["denoised"], *self.branches.values()]
        states = [
            begin(moment, *stream[:3], self.at_its_scale(moment, *stream[1:4]), dict(zip(self.branches, stream[4:])))
            for moment, stream in zip(self.moments, zip(*map(self.streams, tensors)))
        ]
        self.branches = {}
        if self.run.record is not None:
            self.run.record.started(states, self.is_prediction(uncond, args))
        return states

    def is_prediction(self, uncond, args):
        """Whether this is what the network predicts without the prompt, and not cond in its place."""
        if uncond is args["cond_denoised"] or self.left_out is not None:
            return False
        cond = args.get("empty_cond" if "empty_cond_denoised" in args else "uncond")
        return self.negative is not None or not cond or active(cond, self.moment.sigma)

    def uncond_of(self, args):
        """What the guider guides away from, or None where nobody has computed it."""
        # For PerpNegGuider the empty prompt is what guidance starts from.
        name = "empty_cond" if "empty_cond_denoised" in args else "uncond"
        uncond = args.get(f"{name}_denoised")
        return uncond if args.get(name) is not None and isinstance(uncond, torch.Tensor) else None

    def check_guided(self, uncond):
        """Say so where there is a scale but nothing to guide away from."""
        if uncond is None and self.guided:
            scale = max(moment.scale for moment in self.moments)
            self.run.say_once(f"The guidance scale is {scale:g} but {type(self.run.guider).__name__} did not compute a "
                              "negative to guide away from, so the answer is the prompt's own prediction.")

    def at_its_scale(self, moment, cond, uncond, denoised):
        """A stream's answer at its own scale, where the host has combined the whole pack at that of the first stream."""
        scale, host = moment.combined, self.moment.combined
        if len(self.moments) == 1 or has_scale_pair(self.run.guider) or scale == host and (scale != 1 or not self.guided):
            return denoised
        if hasattr(self.run.guider, "cfg2") or hasattr(self.run.guider, "neg_scale"):
            self.run.say_once(f"{type(self.run.guider).__name__} adds a term of its own, which is the same for all streams, so "
                              "audio is not quite what it would be alone.")
        own = cond if scale == 1 else uncond + (cond - uncond) * scale
        others = denoised - (uncond + (cond - uncond) * host)  # what other packs have made of it; else all zeros
        return own + others

    def in_force(self, args):
        """The moments at the scale with which the host has really combined: another pack, or the guider itself, may
        have chosen another one than the chain did."""
        told = args.get("cond_scale")
        if told is None or (isclose(told, self.moment.combined, rel_tol=1e-6) and not self.run.overwritten()):
            return self.moments
        if has_scale_pair(self.run.guider):
            return self.moments
        if self.moment.rescaled and self.moment.combined == self.moment.scale and self.left_out is None:
            self.run.say_once(f"The chain chose the scale {self.moment.combined:g}, but {type(self.run.guider).__name__} or "
                              f"another node guides at {told:g}; what was told last counts.")
        # What to ask for may depend on it, so this is planned again.
        moments = Evaluation(self.run, self.run.plan(self.moment.sigma, float(told)), self.x).moments
        moments = [replace(moment, scale=float(told), skip=self.left_out is not None) for moment in moments]
        self.run.report.in_force(moments)
        return moments

    def predict(self, branches, args):
        """A forward of their own, for branches that the guider's batches could not carry."""
        x, sigma, options = args["input"], args["sigma"], {**args["model_options"], RUN: None}
        for branch in branches:
            if isinstance(branch, Weak):
                self.branches[branch] = self.run.weak[branch.key].predict(self.base, x, sigma, self.moment.distilled)
        for level in sorted({branch.sigma for branch in branches if isinstance(branch, Ahead)}):
            self.look_ahead(level, args, options)
        ours = [branch for branch in branches if not isinstance(branch, (Weak, Ahead))]
        if ours:
            entries = [(self.label(branch, 0, 1), self.entry(branch)) for branch in ours]
            self.compute(comfy.samplers.calc_cond_batch, entries, x, sigma, options)

    def look_ahead(self, sigma, args, options):
        """The predictions with the prompt and without it where the prompt's own leads to at a noise level. Where one of
        them is not in force, or does not reach, there is nothing to guide by."""
        x, cond, negative = args["input"], args["cond_denoised"], args.get("empty_cond", negative_of(self.run.guider))
        prompt, uncond = self.edit(self.base), self.edit(negative)
        if not prompt or not uncond or not active(prompt, sigma) or not active(uncond, sigma):
            return
        with_it, without_it = (Ahead(sigma, is_prompt) for is_prompt in (True, False))
        there = x + (x - cond) * ((sigma - self.moment.sigma) / self.moment.sigma)
        timestep = torch.full_like(args["sigma"], sigma)
        self.compute(comfy.samplers.calc_cond_batch, [
            (Label(0, with_it), self.copied(prompt, with_it)),
            (Label(1, without_it, self.moment.weakened, self.unprompted), self.copied(uncond, without_it)),
        ], there, timestep, options)
        if not reaches_all(uncond):
            covered = coverage(uncond, there, timestep)
            self.branches[without_it] = torch.where(covered, self.branches[without_it], self.branches[with_it])

    def streams(self, tensor):
        shapes = self.run.shapes
        return [tensor] if len(shapes) == 1 else comfy.utils.unpack_latents(tensor, shapes)

    def packed(self, streams):
        return streams[0] if len(streams) == 1 else comfy.utils.pack_latents(streams)[0]
