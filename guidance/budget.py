"""A cap on the rows of a run. Spent first as in Step AG, Zhang et al. 2025, https://arxiv.org/abs/2506.08351"""

from dataclasses import replace

from .core import Step


def budget(rows=30, spend="first"):
    """Compute at most so many rows in a run; an evaluation that would exceed them computes cond alone.

    rows: predictions per image, of which every evaluation takes at least one. 0 is no cap.
    spend: "first" guides fully until only one row per step is left, "even" spreads the guided steps over the run.
    Exact for samplers with one evaluation per step. Counts what the steps before it in the chain have asked for.
    """
    spent = 0

    def asks(moment):
        nonlocal spent
        if rows == 0:
            return moment
        steps, step = len(moment.timeline.sigmas) - 1, int(moment.step)
        allowed = rows - (steps - 1 - step) if spend == "first" else rows * (step + 1) // steps
        if spent + moment.rows > allowed:
            moment = replace(moment, skip=True, asked=frozenset())
        spent += moment.rows
        return moment

    return Step(asks)
