"""What a chain plans: before each evaluation of a run, and for the evaluations of a run that has not begun."""

from dataclasses import replace

from ...guidance.core import Unprompted, unchanged
from .guider import shares_of


class Chain:
    """The steps that a run's links come to. streams: those of each stream of the latent; packed latents (video with audio)
    are guided stream by stream, so each has steps of its own."""

    def __init__(self, recipes, streams=1):
        self.streams = [[recipe() for recipe in recipes] for _ in range(streams)]
        # What there is to plan, in the order in which a chain plans: (which link, its function), stream by stream.
        self.planners = [
            [(i, plan) for part in ("sets", "limits", "asks") for i, step in enumerate(steps)
             if (plan := getattr(step, part)) is not unchanged]
            for steps in self.streams
        ]

    def edits(self, part, links):
        """What there is to do with an answer: (which link, of which stream, its function)."""
        return [(i, stream, edit) for i in links for stream, steps in enumerate(self.streams)
                if (edit := getattr(steps[i], part)) is not unchanged]

    def plan(self, timeline, sigma, scales, deeds=None):
        """A Moment for each stream of the latent. scales: theirs. deeds: where to note what each link changes."""
        moments = []
        for stream, (planners, scale, share) in enumerate(zip(self.planners, scales, shares_of(scales))):
            moment = timeline.moment(sigma, scale, share, stream)
            for i, plan in planners:
                before, moment = moment, plan(moment)
                if deeds is not None and moment is not before:
                    deeds.planned(i, before, moment)
            if moment.weakened is not None and isinstance(moment.uncond, Unprompted):
                moment = replace(moment, uncond=Unprompted(apart=True))
            if deeds is not None:
                deeds.settled(moment)
            moments.append(moment)
        if len(moments) == 1:
            return moments
        # They are computed together.
        asked = frozenset().union(*(moment.asked for moment in moments))
        skip = all(moment.skip for moment in moments)
        return [replace(moment, asked=asked, skip=skip) for moment in moments]


class Deeds:
    """At which steps each of so many links does something."""

    def __init__(self, links):
        self.step = 0  # of the evaluation under way
        self.acted: list[set[int]] = [set() for _ in range(links)]  # the steps at which each changed something
        self.spared: list[set[int]] = [set() for _ in range(links)]  # the steps at which each took the negative out
        self.asked = [0] * links  # the rows that each asked for
        self.wishes = []  # of this evaluation, until it is known whether a later link drops them

    def planned(self, i, before, after):
        """A link has changed the plan."""
        asked = after.asked - before.asked
        beside_that = replace(after, asked=after.asked - asked)
        if (beside_that.needs != before.needs or before.combined != after.combined or before.embed is not after.embed
                or before.beside != after.beside or before.distilled != after.distilled or before.sparse != after.sparse
                or (before.weakened != after.weakened and after.uncond in after.needs)):
            self.acted[i].add(self.step)
        self.wishes.append((i, asked, after.needs - before.needs))
        if after.uncond not in after.needs and before.uncond in before.needs:
            self.spared[i].add(self.step)

    def settled(self, moment):
        """The plan is made, and this is its Moment."""
        for i, asked, needs in self.wishes:
            if needs & moment.needs:
                self.acted[i].add(self.step)
            self.asked[i] += sum(branch.rows for branch in asked & moment.asked)
        self.wishes = []

    def applied(self, i):
        """A link has changed the answer."""
        self.acted[i].add(self.step)


def rows_of(branches):
    """The predictions of an evaluation that computes these beside cond."""
    return 1 + sum(branch.rows for branch in branches)


def idle_at_1(links, acted, scales):
    """The links that do nothing because the scale is 1. acted: where each acts. scales: for each step, of each stream."""
    return [link for link, steps in zip(links, acted) if not steps and not link.acts_at_1] if is_1(scales) else []


def is_1(scales):
    """Whether the scale is 1 at every step, for each stream."""
    return all(scale == 1 for at_step in scales for scale in at_step)


def setters(links):
    """A sentence where several links set the scale, else None."""
    names = [link.name for link in links if link.recipe().sets is not unchanged]
    if len(names) < 2:
        return None
    return f"{', '.join(names[:-1])} and {names[-1]} each set the scale; {names[-1]} wins, as the last one."
