"""What a chain will do in a run and what it did: a line on the log before and after, and under each node its own."""

import logging
from functools import cached_property
from itertools import groupby

from ...guidance.core import chain, forwards, needed, unchanged
from .blocks import anatomy_of
from .distilled import takes_scale
from .guider import shares_of
from .joined import form_of
from .page import harmless, server

log = logging.getLogger("comfyui-guidance")

MOST_SPANS = 4  # a scale that changes at every step is told by its range


class Report:
    """What each link of a run's chain did, and what the run cost."""

    def __init__(self, run):
        self.run, self.steps = run, len(run.timeline.sigmas) - 1
        self.step = 0  # of the evaluation under way
        self.scales = {}  # by step, the scale in force for each stream
        self.acted: list[set[int]] = [set() for _ in run.links]  # the steps at which each link changed something
        self.spared: list[set[int]] = [set() for _ in run.links]  # the steps at which each took the negative out
        self.asked = [0] * len(run.links)  # the rows that each asked for
        self.evaluations = self.rows = self.calls = self.due = 0  # due: calls where nothing has to be split

    # ------------------------------------------------------------------------------------------------ while it runs

    def begun(self, step, moments):
        self.step, self.scales[step] = step, [moment.combined for moment in moments]
        self.evaluations, self.due = self.evaluations + 1, self.due + len(forwards(needed(moments)))

    def planned(self, i, before, after):
        """A link has changed the plan."""
        if (before.needs != after.needs or before.combined != after.combined or before.embed is not after.embed
                or before.beside != after.beside or before.distilled != after.distilled
                or (before.weakened != after.weakened and after.uncond in after.needs)):
            self.acted[i].add(self.step)
        self.asked[i] += sum(branch.rows for branch in after.asked - before.asked)
        if after.uncond not in after.needs and before.uncond in before.needs:
            self.spared[i].add(self.step)

    def applied(self, i):
        """A link has changed the answer."""
        self.acted[i].add(self.step)

    def called(self, rows):
        """The network was called."""
        self.rows, self.calls = self.rows + rows, self.calls + 1

    # ------------------------------------------------------------------------------------------------ the lines

    @cached_property
    def at_1(self):
        return what_acts_at_1(self.run.guider.model_patcher)

    @harmless
    def before(self):
        run = self.run
        steps = [link.recipe() for link in run.links]
        setters = [link.name for link, step in zip(run.links, steps) if step.sets is not unchanged]
        if len(setters) > 1:
            run.say_once(f"{', '.join(setters[:-1])} and {setters[-1]} each set the scale; {setters[-1]} wins, as the last one.")
        plans = []
        for stream, (scale, share) in enumerate(zip(run.scales, shares_of(run.scales))):
            plan = chain(*(link.recipe() for link in run.links)).plan
            plans.append([plan(moment) for moment in run.timeline.moments(scale, share, stream)])
        steps = list(zip(*plans))
        self.promised = sum(1 + sum(branch.rows for branch in needed(moments)) for moments in steps)
        scales = [[moment.combined for moment in moments] for moments in steps]
        text = f"{self.names()}: {by_stream(scales)}; {self.steps} steps, {self.promised} rows planned."
        unguided = all(scale == 1 for at_step in scales for scale in at_step)
        idle = [link for link in run.links if unguided and not link.acts_at_1]
        if idle:
            text += f" Idle at cfg 1: {', '.join(dict.fromkeys(short(link.name) for link in idle))}; what acts there: {self.at_1}."
        log.info("Guidance: %s", text)
        for link in idle:
            tell(link, f"Idle at cfg 1. What acts there: {self.at_1}.")
        if run.links[-1] not in idle:
            tell(run.links[-1], text)

    @harmless
    def after(self):
        if not self.evaluations:
            return
        text = f"{self.names()}: {by_stream(self.scales.values())}; {self.rows} rows in {self.calls} calls, {self.promised} planned."
        for link, spared in zip(self.run.links, self.spared):
            if spared and link.saves:
                text += f" {short(link.name)}: {self.where(spared, 'no negative')}."
        if self.calls > self.due and "context_handler" not in self.run.guider.model_options:
            text += " The host could not put all rows into one call (prompts of unequal length, or memory)."
        log.info("Guidance: %s", text)
        for i, link in enumerate(self.run.links):
            tell(link, self.deeds(i) if i + 1 < len(self.run.links) else f"{self.deeds(i)}\nChain: {text}")

    def names(self):
        return ", ".join(short(link.name) for link in self.run.links)

    def deeds(self, i):
        """What one link did, in one sentence."""
        link, step = self.run.links[i], self.run.streams[0][i]
        if not self.acted[i]:
            alone = not link.acts_at_1 and all(scale == 1 for at_step in self.scales.values() for scale in at_step)
            return f"Idle: cfg was 1 throughout. What acts there: {self.at_1}." if alone else "Changed nothing in this run."
        if step.sets is not unchanged or step.limits is not unchanged and not link.saves:
            return f"In force: {by_stream(self.scales.values())}."
        if self.spared[i] and link.saves:
            return f"Left the negative out: {self.where(self.spared[i], 'it was left out')}."
        rows = f", {self.asked[i]} rows" if self.asked[i] else ""
        return f"Acted at {len(self.acted[i])} of {self.steps} steps{rows}."

    def where(self, steps, what):
        first, count = min(steps), len(steps)
        tail = steps == set(range(first, self.steps))
        return f"{what} from step {first + 1} of {self.steps} on" if tail else f"{what} at {count} of {self.steps} steps"


def by_stream(scales):
    """The scales of the run: for each step, that of each stream."""
    told = [spans(list(stream)) for stream in zip(*scales)]
    return told[0] if len(set(told)) == 1 else f"video {told[0]}, audio {told[-1]}"


def what_acts_at_1(model):
    """The strategies that would change a picture at cfg 1 on this model, as a part of a sentence."""
    network = model.get_model_object("diffusion_model")
    acting = []
    if takes_scale(network):
        acting.append("Distilled guidance over time")
    if form_of(network) is not None:
        acting += ["NAG", "Push a word away or a prompt with negative weights"]
    if anatomy_of(network) is not None:
        acting.append("PAG, SEG or skipped layers (SLG, STG)")
    acting += ["a Negative prompt that is weighted or perp-neg", "momentum guidance", "classifier guidance", "CADS"]
    return ", ".join(acting) + ", or a CFG node with a scale above 1 for a short part of the run, best at its start"


def spans(scales):
    """For example: `cfg 1 for 5 steps, 7.5 for 8, 1 for 7`, or its range: `cfg 1 to 8`"""
    runs = [(scale, len(list(group))) for scale, group in groupby(f"{scale:.3g}" for scale in scales)]
    if len(runs) == 1:
        return f"cfg {runs[0][0]}"
    if len(runs) > MOST_SPANS:
        return f"cfg {min(scales):.3g} to {max(scales):.3g}"
    (scale, steps), *others = runs
    return ", ".join([f"cfg {scale} for {steps} {'step' if steps == 1 else 'steps'}", *(f"{scale} for {steps}" for scale, steps in others)])


def short(name):
    return name.split(" (")[0]


def tell(link, text):
    """Under the link's node on the page, where there is one."""
    host = server()
    if link.node_id is not None and hasattr(host, "send_progress_text"):
        host.send_progress_text(text, link.node_id)
