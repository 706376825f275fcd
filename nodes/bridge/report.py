"""What a chain will do in a run and what it did: a line on the log before and after, and under each node its own."""

import logging
from itertools import groupby

from ...guidance.core import forwards, needed, unchanged
from .blocks import anatomy_of
from .distilled import takes_scale
from .guider import has_hosts_scale
from .joined import form_of
from .page import harmless, page
from .planning import Deeds, idle_at_1, is_1, setters
from .rehearsal import Rehearsal

log = logging.getLogger("comfyui-guidance")

MOST_SPANS = 4  # a scale that changes at every step is told by its range


class Report:
    """What each link of a run's chain did, and what the run cost."""

    def __init__(self, run):
        self.run, self.steps = run, len(run.timeline.sigmas) - 1
        self.deeds = Deeds(len(run.links))
        self.scales = {}  # by step, the scale in force for each stream
        self.evaluations = self.rows = self.calls = self.due = 0  # due: calls where nothing has to be split

    # ------------------------------------------------------------------------------------------------ while it runs

    def begun(self, moments):
        self.in_force(moments)
        self.evaluations, self.due = self.evaluations + 1, self.due + len(forwards(needed(moments)))

    def in_force(self, moments):
        self.scales[self.deeds.step] = [moment.combined for moment in moments]

    def called(self, rows):
        """The network was called."""
        self.rows, self.calls = self.rows + rows, self.calls + 1

    # ------------------------------------------------------------------------------------------------ the lines

    @harmless
    def before(self):
        run = self.run
        sentence = setters(run.links)
        if sentence:
            run.say_once(sentence)
        plan = Rehearsal(run.links, run.timeline, run.scales, acting=False)
        self.promised = plan.rows
        text = f"{self.names()}: {by_stream(plan.scales)}; {self.steps} steps, {self.promised} rows planned."
        # A guider of another pack may have scales that nobody can read beforehand.
        unguided = has_hosts_scale(run.guider) and is_1(plan.scales)
        may_idle = unguided and not all(link.acts_at_1 for link in run.links)
        idle = Rehearsal(run.links, run.timeline, run.scales).idle if may_idle else []
        text += self.of_idle(idle)
        log.info("Guidance: %s", text)
        for link in idle:
            tell(link, "Idle at cfg 1.")
        tell(run.links[-1], text)

    @harmless
    def after(self):
        if not self.evaluations:
            return
        text = (f"{self.names()}: {by_stream(self.scales.values())}; {self.rows} rows in {self.calls} calls, {self.promised} "
                "planned.")
        for link, spared in zip(self.run.links, self.deeds.spared):
            if spared and link.saves:
                text += f" {short(link.name)}: {self.where(spared, 'no negative')}."
        if self.calls > self.due and "context_handler" not in self.run.guider.model_options:
            text += " The host could not put all rows into one call (prompts of unequal length, or memory)."
        text += self.of_idle(self.idle)
        log.info("Guidance: %s", text)
        for i, link in enumerate(self.run.links):
            tell(link, self.did(i) if i + 1 < len(self.run.links) else f"{self.did(i)}\nChain: {text}")

    def names(self):
        return ", ".join(short(link.name) for link in self.run.links)

    @property
    def idle(self):
        """The links that did nothing because the scale was 1."""
        return idle_at_1(self.run.links, self.deeds.acted, self.scales.values())


    def of_idle(self, links):
        """What is said of links that do nothing at scale 1."""
        return f" {of_idle(links, self.run.guider.model_patcher)}" if links else ""

    def did(self, i):
        """What one link did, in one sentence."""
        link, step = self.run.links[i], self.run.chain.streams[0][i]
        if link in self.idle:
            return "Idle: cfg was 1 throughout."
        if link.probe is not None:
            return f"Recorded {len(self.run.record.evaluations)} evaluations."
        scales = by_stream(self.scales.values())
        if step.sets is not unchanged or step.limits is not unchanged and not link.saves:
            return f"In force: {scales}."
        if not self.deeds.acted[i]:
            return f"Changed nothing in this run ({scales})."
        if self.deeds.spared[i] and link.saves:
            return f"{self.where(self.deeds.spared[i], 'No negative')}."
        rows = f", {self.deeds.asked[i]} rows" if self.deeds.asked[i] else ""
        return f"Acted at {len(self.deeds.acted[i])} of {self.steps} steps{rows}."

    def where(self, steps, what):
        first, count = min(steps), len(steps)
        tail = steps == set(range(first, self.steps))
        return f"{what} from step {first + 1} of {self.steps} on" if tail else f"{what} at {count} of {self.steps} steps"


def of_idle(links, model):
    """The sentence about links that do nothing at scale 1, and what would act there on this model."""
    names = ", ".join(dict.fromkeys(short(link.name) for link in links))
    return f"Idle at cfg 1: {names}; what acts there: {what_acts_at_1(model)}."


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
    acting += ["a Negative prompt that is weighted or perp-neg", "momentum guidance", "classifier guidance", "CADS", "CFG++"]
    return ", ".join(acting) + ", or a CFG node with a scale above 1 for a short part of the run, best at its start"


def spans(scales):
    """For example: `cfg 1 for 5 steps, 7.5 for 8, 1 for 7`, or its range: `cfg 1 to 8`"""
    runs = [(scale, len(list(group))) for scale, group in groupby(f"{scale:.3g}" for scale in scales)]
    if len(runs) == 1:
        return f"cfg {runs[0][0]}"
    if len(runs) > MOST_SPANS:
        return f"cfg {min(scales):.3g} to {max(scales):.3g}"
    (scale, steps), *others = runs
    first = f"cfg {scale} for {steps} {'step' if steps == 1 else 'steps'}"
    return ", ".join([first, *(f"{scale} for {steps}" for scale, steps in others)])


def short(name):
    """A title as people say it: by its abbreviation where it has one."""
    title, _, more = name.removesuffix(")").partition(" (")
    return more if more.isupper() and "," not in more else title


def tell(link, text):
    """Under the link's node on the page, where there is one."""
    send = page()
    if link.node_id is not None and send is not None:
        send("guidance.told", {"node": link.node_id, "text": text})
