"""Say in one line what a chain will do in this run: on the log, and under the last node of the chain."""

import logging
from itertools import groupby

from ...guidance.core import chain, unchanged
from .page import harmless, server

log = logging.getLogger("comfyui-guidance")

MOST_SPANS = 4  # a scale that changes at every step is told by its ends


@harmless
def report(run):
    setters = [link.name for link in run.links if link.recipe().sets is not unchanged]
    if len(setters) > 1:
        run.say_once(f"{', '.join(setters[:-1])} and {setters[-1]} each set the scale; {setters[-1]} wins, as the last one.")
    text = describe(run)
    log.info("Guidance: %s", text)
    host, node_id = server(), run.links[-1].node_id
    if node_id is not None and hasattr(host, "send_progress_text"):
        host.send_progress_text(text, node_id)


def describe(run):
    """For example: `20 steps, 28 rows: cfg 1 for 5 (sigma 14.6 to 5.8), cfg 7.5 for 8 (sigma 4.6 to 0.33), ...`"""
    plan = chain(*(link.recipe() for link in run.links)).plan
    moments = [plan(moment) for moment in run.timeline.moments(run.scales[0])]
    spans = [list(group) for _, group in groupby(moments, key=lambda m: (f"{m.combined:.3g}", m.rows))]
    if len(spans) > MOST_SPANS:
        spans = [moments]
    return f"{len(moments)} steps, {sum(m.rows for m in moments)} rows: " + ", ".join(map(_span, spans))


def _span(moments):
    first, last = moments[0], moments[-1]
    scales = " to ".join(dict.fromkeys(f"{moment.combined:.3g}" for moment in (first, last)))
    return f"cfg {scales} for {len(moments)} (sigma {first.sigma:.3g} to {last.sigma:.3g})"
