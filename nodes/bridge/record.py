"""What the probes on a wire record of a run: how far guidance went, and what each part of the chain added to the answer.

What an answer is made of is kept for some evaluations, because few calls take less time than many: cond, CFG's own
part (scale - 1) * (cond - uncond), what each edit has changed, and what others have changed between these. Of a probe's
view of it a few inner products stay on the device, which are read when the run ends, all at once. Where a page listens they
are read when a step begins, because the device has nothing left to do then; it gets guidance.probe
{steps, nodes: {id: {first, rows: [{step, ...}, ...]}}}.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from math import isfinite
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from ...guidance.core import Step, unchanged
from ...guidance.measures import CFG, OTHERS, numbers, taken
from .page import harmless, page
from .report import short

KEPT = 1 << 20  # bytes of evaluations, for a processor's cache; more are reduced to their inner products at once
FACTS = ("step", "sigma", "rows", "calls", "ms")


class Seen(NamedTuple):
    """What one probe saw of a run, as it was read. facts: of each evaluation, what is the same for all streams.
    streams: of each, for each evaluation (what was read, what makes numbers by name of it). parts: those that are told of
    even where they are 0. percent: from sigma."""

    facts: list[dict]
    streams: list[list[tuple]]
    parts: list[str]
    percent: Callable[[float], float]

    def record(self):
        """Lists by name, with a number for each evaluation, None where there is none. It takes a while, so it is not made
        during the run."""
        count = min(len(views) for views in self.streams)  # an interrupt may have left one half seen
        shared = {name: [finite(fact[name]) for fact in self.facts[:count]] for name in FACTS}
        percent = [None if sigma is None else self.percent(sigma) for sigma in shared["sigma"]]
        return {**shared, "percent": percent, "streams": [
            columns([tell(*values) for values, tell in views[:count]], self.parts) for views in self.streams]}


class Probe:
    """Where a probe keeps what it saw of the last run of its model. The next run replaces it."""

    seen: Seen | None = None


class Made:
    """What a stream's answer is made of so far. parts: by the link that added them, None for those that are no links."""

    def __init__(self, state, guided):
        self.cond, self.direction = state.cond, state.cond - state.uncond
        self.scale, self.guided, self.parts = state.scale, guided, {}
        if not state.is_cond:
            self.add(None, (state.denoised - state.cond).sub_(self.direction, alpha=state.scale - 1))

    def add(self, link, part):
        self.parts[link] = self.parts[link] + part if link in self.parts else part


class Record:
    """What all probes of a run see."""

    def __init__(self, run):
        self.run, self.probes = run, [i for i, link in enumerate(run.links) if link.probe is not None]
        self.names = numbered(short(link.name) for link in run.links)
        self.evaluations: list[dict] = []  # what is the same for all streams and probes
        # By probe, for each stream, of each evaluation: what was read, and what makes numbers by name of it.
        self.seen: dict[int, list[list[tuple]]] = {i: [[] for _ in run.shapes] for i in self.probes}
        # Of views that were not read yet: (what makes numbers, the list that they go into), in order; vectors by number, and
        # (what those of one form were reduced to, on the device, their numbers).
        self.unread: list[tuple] = []
        self.whole: dict[int, torch.Tensor] = {}
        self.reduced: list[tuple] = []
        self.made: list[Made] = []  # of the evaluation under way, for each stream
        self.views = 0  # of it, that are still to come
        self.before: list[torch.Tensor | None] = [None] * len(run.shapes)  # the directions of the evaluation before
        self.left: list[torch.Tensor] = []  # the answers as our own links have left them
        self.now: dict = {}
        self.began = 0, 0, 0.0  # rows and calls of the run so far, and the time
        self.tell, self.told = page(), 0
        # In the chain a probe is a step that looks, and changes nothing.
        for stream, steps in enumerate(run.chain.streams):
            for i in self.probes:
                steps[i] = Step(apply=partial(self.view, i, stream))

    # ------------------------------------------------------------------------------------------------ an evaluation

    def begun(self, moment):
        """An evaluation begins. The noise level has just been read, so the device has done all that was before."""
        self.ended()
        if self.evaluations and int(moment.step) != int(self.evaluations[-1]["step"]):
            self.show()
        report = self.run.report
        self.now = {"step": moment.step, "sigma": moment.sigma}
        self.began = report.rows, report.calls, perf_counter()

    def ended(self):
        """The evaluation under way is over: what it took."""
        (rows, calls, start), report = self.began, self.run.report
        self.now.update(rows=report.rows - rows, calls=report.calls - calls, ms=1000 * (perf_counter() - start))

    def started(self, states, guided):
        """The predictions are there, and no link has edited them. guided: whether uncond is one of them."""
        self.made = [Made(state, guided) for state in states]
        self.views = len(self.probes) * len(states)
        self.evaluations.append(self.now)

    def edited(self, i, stream, before, after):
        if self.views:
            self.made[stream].add(i, after.denoised - before.denoised)

    def handed_out(self, states):
        """Other packs get the answer, and may even write into it."""
        self.left = [state.denoised.clone() for state in states] if self.views else []

    def handed_back(self, states):
        for made, state, left in zip(self.made, states, self.left):
            made.add(None, state.denoised - left)

    def view(self, i, stream, state):
        """What the answer is made of where a probe stands."""
        made, before = self.made[stream], self.before[stream]
        links = sorted(made.parts, key=lambda link: (link is None, link))
        self.whole[len(self.unread)] = torch.stack([made.cond, state.denoised, made.direction,
                                                    made.direction if before is None else before,
                                                    *(made.parts[link] for link in links)])
        names = [OTHERS if link is None else self.names[link] for link in links]
        tell = partial(numbers, size=state.denoised[0].numel(), scale=made.scale, names=names, guided=made.guided,
                       follows=before is not None)
        self.unread.append((tell, self.seen[i][stream]))
        self.views -= 1
        if not self.views:
            self.before, self.made = [made.direction if made.guided else None for made in self.made], []
            if sum(vectors.nbytes for vectors in self.whole.values()) > KEPT:
                self.reduce()
        return state

    def reduce(self):
        """Of the views only inner products are left, made for all of one form at once."""
        forms: dict = {}
        for number, vectors in self.whole.items():
            forms.setdefault(vectors.shape, []).append(number)
        for numbers_of in forms.values():
            self.reduced.append((taken(torch.stack([self.whole.pop(number) for number in numbers_of])), numbers_of))

    # ------------------------------------------------------------------------------------------------ what is told

    def read(self):
        """Read what is still on the device, all at once."""
        if not self.unread:
            return
        self.reduce()
        tensors = [tensor for made, _ in self.reduced for tensor in made]
        flat = np.array(torch.cat([tensor.flatten() for tensor in tensors]).tolist())
        parts = np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
        arrays = iter([part.reshape(tensor.shape) for part, tensor in zip(parts, tensors)])
        read = {number: values for made, numbers_of in self.reduced
                for number, *values in zip(numbers_of, *(next(arrays) for _ in made))}
        for number, (tell, into) in enumerate(self.unread):
            into.append((read[number], tell))
        self.unread, self.reduced = [], []

    @harmless
    def show(self):
        """Tell the page what it has not heard yet."""
        nodes = {self.run.links[i].node_id: self.seen[i][0] for i in self.probes if self.run.links[i].node_id is not None}
        if self.tell is None or not nodes:
            return
        self.read()
        steps, first = [facts["step"] for facts in self.evaluations[self.told:]], self.told
        self.told += len(steps)
        self.tell("guidance.probe", {"steps": len(self.run.timeline.sigmas) - 1, "nodes": {
            id: {"first": first, "rows": [{"step": step, **tell(*read)} for step, (read, tell) in zip(steps, views[first:])]}
            for id, views in nodes.items()}})

    @harmless
    def finish(self):
        self.read()
        self.ended()
        self.show()
        for i in self.probes:
            parts = [CFG, *(self.names[link] for link in self.editors(i))]
            self.run.links[i].probe.seen = Seen(self.evaluations, self.seen[i], parts, self.run.timeline.percent)

    def editors(self, i):
        """The links that edit the answer that a probe sees: what guidance starts from is chosen by the whole wire."""
        steps = self.run.chain.streams[0]
        return [link for link, step in enumerate(steps) if link not in self.probes and (
            step.grounds is not unchanged or link < i and step.apply is not unchanged)]


def columns(rows, names):
    """One list for each name, of what each row has under it. names: of the parts that are told of even where they are 0."""
    made: dict = {name: [row[name] for row in rows] for name in rows[0] if name not in ("added", "along")} if rows else {}
    others = [OTHERS] if any(row["added"].get(OTHERS) != 0 for row in rows if OTHERS in row["added"]) else []
    for part, first in (("added", []), ("along", ["cond"])):
        made[part] = {name: [row[part].get(name, 0.0) for row in rows] for name in (*first, *names, *others)}
    return made


def numbered(names):
    """The names, each told from those before that are alike."""
    seen: Counter = Counter()
    made = []
    for name in names:
        seen[name] += 1
        made.append(f"{name} {seen[name]}" if seen[name] > 1 else name)
    return made


def finite(value):
    return value if isfinite(value) else None
