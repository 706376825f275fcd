"""A cap on the rows of a run. Spent first as in Step AG, Zhang et al. 2025, https://arxiv.org/abs/2506.08351"""

from dataclasses import replace
from math import ceil

from .core import Step


def budget(rows=30, spend="first"):
    """Compute at most so many rows in a run; an evaluation that would exceed them computes cond alone.

    rows: predictions per image. Every evaluation takes at least one, so a smaller cap cannot hold. 0 is no cap.
    spend: "first" guides fully until only one row per evaluation is left, "even" spreads the guided ones over the run.
    Counts what the steps before it in the chain have asked for, a weak model's rows as well.

    The rest of the run is taken to need as many evaluations as the timeline says at most, and where it does not know,
    as many per step as were seen. With one evaluation per step the cap is spent to the row; where fewer come than
    there might have been, a row or two are left.
    """
    spent, done, each = 0, 0, 1  # rows and evaluations so far, and evaluations per step

    def asks(moment):
        nonlocal spent, done, each
        if rows == 0:
            return moment
        steps, step = len(moment.timeline.sigmas) - 1, int(moment.step)
        done += 1
        each = moment.timeline.evaluations or max(each, ceil(done / (step + 1)))
        once = each > 1 and moment.timeline.sigmas[-1] == 0  # a last step to no noise has nothing to look ahead to
        total = max(done, steps * each - once * (each - 1))
        allowed = rows - (total - done) if spend == "first" else rows * done // total
        if spent + moment.rows > allowed:
            moment = replace(moment, skip=True, asked=frozenset())
        spent += moment.rows
        return moment

    return Step(asks)
