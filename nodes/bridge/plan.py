"""What can be said of a run before it begins: what each step computes and costs, which link acts when, and what to know."""

from collections import Counter
from itertools import groupby
from types import SimpleNamespace

import comfy.sampler_helpers
import comfy.samplers

from ...guidance.core import UNCOND, Ahead, Cropped, Mistimed, Perturbed, Prompt, Step, Weak, forwards, needed
from .guider import active
from .hooks import CHAIN, POST_CFG, Stretch
from .noise_levels import name_of, on_the_cpu, timeline_of
from .page import stretched
from .planning import rows_of, setters
from .rehearsal import Rehearsal, asked_by
from .report import by_stream, of_idle, short

# What rows are called, one and several.
NEGATIVE = "negative", "negatives"
WORDS = {Prompt: ("further negative", "further negatives"), Perturbed: ("perturbed", "perturbed"),
         Mistimed: ("mistimed", "mistimed"), Ahead: ("ahead", "ahead"), Cropped: ("window", "windows"),
         Weak: ("weak model", "weak models")}
SURE = 1 - 8 / 64  # share of a side: windows up to this one are smaller than any but a tiny picture
MOST = 12  # stretches of steps that are listed
ELSEWHERE = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_calc_cond_batch_function",
             "model_function_wrapper")  # what other packs put into model_options, beside POST_CFG


class Plan:
    """A run that has not begun.

    sampler, sigmas: as SamplerCustom takes them. scale: the guider's. negative: whether it has one.
    """

    def __init__(self, model, sampler, sigmas, scale, negative=True):
        self.model, self.links, self.scale, self.negative = model, model.model_options.get(CHAIN, ()), scale, negative
        self.sampler = name_of(sampler).removeprefix("sample_").removesuffix("_function")
        self.remarks: dict[str, None] = {}
        sampling = on_the_cpu(model.get_model_object("model_sampling"))
        self.timeline = timeline_of(sampling, sampler, sigmas, lambda sentence: self.remarks.setdefault(sentence))
        self.steps = len(self.timeline.sigmas) - 1
        self.asked = asked_by(sampler, sampling, sigmas)
        self.ranges = {key: ranges_of(given, sampling) for link in self.links for key, given in link.prompts.items()}
        self.run = self.rehearsed([scale])
        self.evaluations = self.most = self.computed(self.run)
        # The links that do what the picture decides, where that changes what is computed.
        self.open = [link for link in self.links if len(link.rehearsal) > 1 and link not in self.run.idle]
        if self.open:
            others = self.computed(self.rehearsed([scale], last=True))
            self.open = self.open if others != self.evaluations else []
            if not self.spent_elsewhere:
                self.most = [max(pair, key=rows_of) for pair in zip(self.evaluations, others)]

    def rehearsed(self, scales, links=None, **how):
        return Rehearsal(links or self.links, self.timeline, scales, self.asked, self.negative, **how)

    # ------------------------------------------------------------------------------------------------ what is computed

    def computed(self, run):
        """The branches that each evaluation computes beside cond."""
        return [self.branches(asked, moments) for asked, moments in zip(run.asked, run.moments)]

    def branches(self, asked, moments):
        branches, moment = needed(moments), moments[0]
        if asked.both and not moment.skips:
            branches |= {moment.uncond}
        if moment.uncond in branches and not self.in_range(moment.uncond, asked.sigma):
            branches = branches - {moment.uncond} | {UNCOND}  # the guider's own, which acts then
        elif isinstance(moment.uncond, Prompt):
            return frozenset(branch for branch in branches if self.in_range(branch, asked.sigma))
        return frozenset(branch for branch in branches if self.in_range(branch, asked.sigma)
                         and (self.negative or branch != UNCOND and not isinstance(branch, Ahead)))

    def in_range(self, branch, sigma):
        """Whether a prompt of the chain is in force: it may have been given a part of the run."""
        return not isinstance(branch, Prompt) or active(self.ranges[branch.key], sigma)

    def in_words(self, branches, moments):
        """For example: `3 rows in 1 call (prompt, negative, perturbed)`"""
        found: Counter = Counter()
        for branch in sorted(branches, key=lambda branch: (branch not in (UNCOND, moments[0].uncond), repr(branch))):
            found[NEGATIVE if branch in (UNCOND, moments[0].uncond) else WORDS[type(branch)]] += branch.rows
        kinds = ["prompt", *(word if count < 2 else f"{count} {words}" for (word, words), count in found.items())]
        return f"{cost([branches])} ({', '.join(kinds)})"

    # ------------------------------------------------------------------------------------------------ the text

    @property
    def text(self):
        hedge = ("about " if self.spent_elsewhere else "at most ") if self.open else ""
        parts = [f"{count(self.steps, 'step')} with {self.sampler}, {by_stream(self.run.scales)}: {hedge}{cost(self.most)}."]
        if self.links:
            parts.append("\n".join(f"{i + 1}. {short(link.name)}: {self.when(i)}" for i, link in enumerate(self.links)))
        parts.append("\n".join(f"{of_steps(steps)}: {hedge}{words}" for words, steps in self.by_step().items()))
        return "\n\n".join(parts + self.notes())

    @property
    def spent_elsewhere(self):
        """Whether what one link saves, when the picture decides, another may spend later."""
        first = next((i for i, link in enumerate(self.links) if link in self.open), len(self.links))
        return any(link.rows for link in self.links[first:])

    def by_step(self):
        """{what is computed: the steps at which it is}"""
        told: dict[int, list[str]] = {}
        for asked, branches, moments in zip(self.run.asked, self.most, self.run.moments):
            told.setdefault(int(self.timeline.locate(asked.sigma)), []).append(self.in_words(branches, moments))
        steps: dict[str, list[int]] = {}
        for step in sorted(told):
            alike = [(words, len(list(group))) for words, group in groupby(told[step])]
            words = ", then ".join(words if times == 1 else f"{times} times {words}" for words, times in alike)
            steps.setdefault(words, []).append(step)
        return steps

    def when(self, i):
        """When a link acts, in a few words."""
        link, deeds = self.links[i], self.run.deeds
        if link.probe is not None:
            return "looks on"
        if link in self.open:
            return "for as long as the picture needs it"
        if link in self.run.idle:
            return "idle at cfg 1"
        if not deeds.acted[i]:
            missed = link.window is not None and not any(
                link.window.holds(moment) for moments in self.run.moments for moment in moments)
            return "changes nothing" + ", as no sampled noise level lies between its start and end" * missed
        if self.is_replaced(i):
            return "has no effect, as what it plans is replaced by a later node"
        spared = deeds.spared[i] if link.saves else ()
        return f"no negative at {of_steps(spared)}" if spared else of_steps(deeds.acted[i])

    def is_replaced(self, i):
        """Whether all would be planned and done alike without a link that plans something."""
        if i in self.run.edited or i + 1 == len(self.links):
            return False
        others = [link if link is not self.links[i] else link._replace(recipe=Step, rehearsal=()) for link in self.links]
        return self.rehearsed([self.scale], others).moments == self.run.moments

    def notes(self):
        """What to know beside that, a sentence or two each."""
        found = [of_idle(self.run.idle, self.model)] if self.run.idle else []
        found += [setters(self.links), *self.remarks, *stretched(self.links, self.steps), self.of_sampler()]
        for link in self.open:
            found.append(f"How long {short(link.name)} guides depends on the picture, so these numbers are "
                         f"{'a guess' if self.spent_elsewhere else 'the most that it can be'}.")
        found += [self.of_budget(i, link.rows) for i, link in enumerate(self.links) if link.rows]
        found += [self.of_streams(), self.of_missing_negative(), self.of_others()]
        if any(isinstance(branch, Cropped) and branch.share > SURE for branches in self.most for branch in branches):
            found.append("Windows that come out as large as the picture are left out, at fewer rows.")
        if "context_handler" in self.model.model_options:
            found.append("The model has context windows: all of this is for each of them.")
        return [sentence for sentence in found if sentence]

    def of_sampler(self):
        if self.asked is None:
            return f"How often {self.sampler} evaluates a step is not known; one evaluation of each is counted."
        told = f"{self.sampler} makes {len(self.asked)} evaluations in {count(self.steps, 'step')}." \
            if len(self.asked) != self.steps else ""
        if any(asked.both and moments[0].uncond in branches - needed(moments)
               for asked, moments, branches in zip(self.asked, self.run.moments, self.evaluations)):
            told += f" {self.sampler} has the negative computed at cfg 1 too."
        return told.strip()

    def of_budget(self, i, rows):
        taken = sum(map(rows_of, self.evaluations))
        if taken <= rows:
            return None
        told = f"{short(self.links[i].name)}: {count(rows, 'row')} cannot be kept, the run takes {taken}"
        if len(self.run.asked) > rows:
            return f"{told}; each of {len(self.run.asked)} evaluations takes at least one."
        return told + ("; what later nodes ask for is not counted." if any(self.run.deeds.asked[i + 1:]) else ".")

    def of_streams(self):
        """What is different where a latent holds video and audio, which no latent is here to tell."""
        both = self.rehearsed([self.scale] * 2, acting=False)
        computed = self.computed(both)
        if computed == self.evaluations and len({tuple(scales) for scales in zip(*both.scales)}) == 1:
            return None
        return f"If the latent holds video and audio: {by_stream(both.scales)}; {cost(computed)}."

    def of_missing_negative(self):
        missing = {int(self.timeline.locate(asked.sigma)) for asked, moments, branches
                   in zip(self.run.asked, self.run.moments, self.evaluations) if len(branches) < len(needed(moments))}
        if self.negative or not missing:
            return None
        return f"There is no negative to guide away from, where one would be needed: {of_steps(missing)}."

    def of_others(self):
        """Functions of other packs, which may do and compute anything."""
        options = self.model.model_options
        found = [function for function in options.get(POST_CFG, []) if not isinstance(function, Stretch)]
        for name in ELSEWHERE:
            given = options.get(name, [])
            found += given if isinstance(given, list) else [given]
        names = ", ".join(dict.fromkeys(getattr(other, "__qualname__", type(other).__name__) for other in found))
        return f"Of what other packs do to the model nothing is known here: {names[:200]}." if names else None


def ranges_of(given, sampling):
    """A chain's prompt with the noise levels at which it is in force. One made of the guider's own always is."""
    entries = [{}] if callable(given) else comfy.sampler_helpers.convert_cond(given)
    comfy.samplers.calculate_start_end_timesteps(SimpleNamespace(model_sampling=sampling), entries)
    return entries


def cost(evaluations):
    """For example: `60 rows in 20 calls`. evaluations: the branches that each computes beside cond."""
    rows, calls = sum(map(rows_of, evaluations)), sum(len(forwards(branches)) for branches in evaluations)
    weak = sum(isinstance(branch, Weak) for branches in evaluations for branch in branches)
    own = f"{count(rows - weak, 'row')} in {count(calls, 'call')}"
    return own + f" and {count(weak, 'call')} of a weak model" * bool(weak)


def count(number, word):
    return f"{number} {word}{'' if number == 1 else 's'}"


def of_steps(steps):
    """Steps as people count them, for example: `steps 1, 3-6, 8`; with steady gaps, `steps 1, 3, ..., 19`."""
    numbers, parts = sorted(step + 1 for step in steps), []
    while numbers:
        gap = numbers[1] - numbers[0] if len(numbers) > 1 else 1
        length = next((i for i in range(1, len(numbers)) if numbers[i] - numbers[i - 1] != gap), len(numbers))
        length = length if gap == 1 or length > 3 else 1
        run, numbers = numbers[:length], numbers[length:]
        first, last = run[0], run[-1]
        parts.append(f"{first}" if length == 1 else f"{first}-{last}" if gap == 1 else f"{first}, {run[1]}, ..., {last}")
    more = f" and {len(parts) - MOST} stretches more" if len(parts) > MOST else ""
    return f"step{'s' * (len(steps) > 1)} {', '.join(parts[:MOST])}{more}"
