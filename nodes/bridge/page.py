"""Tell the page what becomes of its schedules: a marker while a run goes on, and after it the values applied.

Events: guidance.marker {nodes: {id: value}, sigma, percent, step} at every evaluation, and guidance.applied
{timeline: [[sigma, percent], ...], nodes: {id: [[sigma, percent, step, value], ...]}} at the end of the run.
Without a page there is nobody to tell, and nothing is computed.
"""

import sys
from contextlib import contextmanager

from ...guidance.schedule import PerStep


@contextmanager
def watched(run):
    """Around a sampling run; run.watch(moment) is called with every planned moment."""
    watchable = [(schedule, applied) for link in run.links for schedule, applied in link.schedules]
    steps = len(run.timeline.sigmas) - 1
    for schedule, _ in watchable:
        if isinstance(schedule, PerStep) and len(schedule.points) not in (1, steps):
            run.say_once(f"A list has {len(schedule.points)} values and the run {steps} steps, so it is stretched.")
    # Where one node feeds several knobs, its first one is shown.
    shown = {schedule.source: applied for schedule, applied in reversed(watchable) if schedule.source is not None}
    tell = page() if shown else None
    if tell is None:
        run.watch = lambda moment: None
        yield
        return
    told = {source: [] for source in shown}

    def watch(moment):
        now = {source: value for source, applied in shown.items() if (value := applied(moment)) is not None}
        for source, value in now.items():
            told[source].append((moment.sigma, moment.percent, moment.step, value))
        tell("guidance.marker", {"nodes": now, "sigma": moment.sigma, "percent": moment.percent, "step": moment.step})

    run.watch = watch
    try:
        yield
    finally:
        timeline = [(sigma, run.timeline.percent(sigma)) for sigma in run.timeline.sigmas]
        tell("guidance.applied", {"timeline": timeline, "nodes": told})


def page():
    """A function (event, data) that reaches the page whose workflow is running, if there is one."""
    host = server()
    if getattr(host, "client_id", None) is None:
        return None
    return lambda event, data: host.send_sync(event, data, host.client_id)


def server():
    """ComfyUI's server, or None where there is none: in tests, or in a program that only samples."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
