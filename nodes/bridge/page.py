"""Tell the page what becomes of its schedules: a marker while a run goes on, and after it the values applied.

Events (report.py and record.py have one more each): guidance.marker {nodes: {id: value}, sigma, percent, step} at every
evaluation, and guidance.applied {timeline: [{sigma, percent}, ...], nodes: {id: [{sigma, percent, step, value}, ...]}} at the
end of the run.
Without a page there is nobody to tell, and nothing is computed. Nothing here ever ends a run.
"""

import logging
import sys
from functools import wraps
from math import isfinite

from ...guidance.schedule import PerStep

log = logging.getLogger("comfyui-guidance")


def harmless(tell):
    """A function that a run survives, whatever happens in it."""

    @wraps(tell)
    def told(*args):
        try:
            return tell(*args)
        except Exception:
            log.warning("What is told of this run is not complete.", exc_info=True)

    return told


class Page:
    """What the page hears of one run."""

    @harmless
    def __init__(self, run):
        self.tell, self.timeline = None, run.timeline
        schedules = [(schedule, applied) for link in run.links for schedule, applied in link.schedules]
        for sentence in stretched(run.links, len(run.timeline.sigmas) - 1):
            run.say_once(sentence)
        # Where one node feeds several knobs, its first one is shown.
        self.shown = {schedule.source: applied for schedule, applied in reversed(schedules) if schedule.source is not None}
        self.applied: dict[str, list[dict]] = {source: [] for source in self.shown}
        if self.shown:
            self.tell = page()

    @harmless
    def planned(self, moment):
        if self.tell is None or not isfinite(moment.sigma):
            return
        at = {"sigma": moment.sigma, "percent": moment.percent, "step": moment.step}
        now = {source: value for source, applied in self.shown.items() if (value := applied(moment)) is not None}
        for source, value in now.items():
            self.applied[source].append({**at, "value": value})
        self.tell("guidance.marker", {"nodes": now, **at})

    @harmless
    def finish(self):
        if self.tell is not None:
            timeline = [{"sigma": s, "percent": self.timeline.percent(s)} for s in self.timeline.sigmas if isfinite(s)]
            self.tell("guidance.applied", {"timeline": timeline, "nodes": self.applied})


def stretched(links, steps):
    """Sentences about the lists that have not a value for each step."""
    return [f"A list has {len(schedule.points)} values and the run {steps} steps, so it is stretched."
            for link in links for schedule, _ in link.schedules
            if isinstance(schedule, PerStep) and len(schedule.points) not in (1, steps)]


def page():
    """A function (event, data) that reaches the page whose workflow is running, if there is one."""
    host = server()
    if getattr(host, "client_id", None) is None:
        return None
    return lambda event, data: host.send_sync(event, data, host.client_id)


def server():
    """ComfyUI's server, or None where there is none: in tests, or in a program that only samples."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
