"""The example workflows that show one thing each: guidance in one minute, a strength that is drawn, and what is measured."""
from .canvas import GAP, HEAD, begun, sampler, side_by_side
from .demo import COLUMNS, PROMPTS

MINUTE = """\
# Guidance in one minute

Press **Run**. Both pictures begin with the same noise. *Before* has cfg 8 all the time, *after* has the cfg of the curve.

Three things to try:

1. Drag a point of the curve and press **Run**: only *after* changes.
2. Choose *interval* in the curve's presets: guidance in the middle of the run only.
3. Double-click the canvas, type *PAG*, and put that node between *CFG* and *After*."""

CURVE = """\
# Guidance that changes over the run

**Left**, a drawn curve is wired to the scale of *CFG*. The preview plots what each of the 20 steps gets.

**Right**, a ready-made course for *PAG*, which *schedule math* keeps from going above 1.5. PAG stands after CFG on
the MODEL wire, and both act. *Guidance plan* says what each step computes, before it runs.

A schedule goes wherever a strength is: drag its link onto the widget. Or type its text there: *0:7.5, 0.5:6, 1:1*."""

MEASURED = """\
# What guidance does, measured

A **probe** on the MODEL wire changes nothing. While the sampler runs it draws how long the direction of guidance is and
where it points, and how much of each answer comes from CFG and from each node **before** the probe.

**Guidance probe plot** draws all of it when the run is over: wire to it the probe, and the LATENT that the sampler made.

Here APG takes back much of what CFG adds at the start. Bypass it and run again, or move the probe before it."""

SECOND = 300 + GAP + GAP // 2  # the left edge of the second column


def files(known):
    return {"guidance_in_one_minute.json": minute(known), "draw_a_curve.json": curve(known),
            "measure_what_guidance_does.json": measured(known)}


def minute(known):
    canvas, shared = begun(known, MINUTE, 330, prompt=PROMPTS[1])
    before, after = (next(column for column in COLUMNS if column.title == title) for title in ("CFG 8", "curve"))
    first = len(canvas.nodes)
    drawn = canvas.add("GuidanceSchedule", (SECOND, 0), values={"schedule": after.inputs["scale"]}, width=400, height=410)
    cfg = canvas.add("GuidanceCFG", (SECOND, 500), {"model": shared["model"], "scale": (drawn, 0)}, width=400, height=220)
    canvas.group("What you change", canvas.nodes[first:])
    first, x = len(canvas.nodes), SECOND + 400 + 2 * GAP
    samplers = [sampler(canvas, (x, y), model, shared, {"steps": 16, "cfg": column.cfg}, title=title)
                for y, model, column, title in ((0, shared["model"], before, "Before: cfg 8 all the time"),
                                                (340, (cfg, 0), after, "After: the cfg of the curve"))]
    canvas.group("The same noise, twice", canvas.nodes[first:])
    first = len(canvas.nodes)
    side_by_side(canvas, samplers, shared["vae"], ["before", "after"], 2, (x + 280 + 2 * GAP, 0), (600, 480), below=True)
    canvas.group("Before and after", canvas.nodes[first:])
    return canvas.text()


def curve(known):
    canvas, shared = begun(known, CURVE, 370)
    first = len(canvas.nodes)
    drawn = canvas.add("GuidanceSchedule", (SECOND, 0), values={"schedule": "0:1, 0.2:5, 0.6:4, 1:2 smooth"}, width=380,
                       height=342)
    cfg = canvas.add("GuidanceCFG", (SECOND, 410), {"model": shared["model"], "scale": (drawn, 0)}, width=380)
    preview(canvas, (SECOND + 380 + GAP, 0), cfg, drawn, off=1.0)
    lower = canvas.group("A drawn schedule for CFG", canvas.nodes[first:])
    first, x = len(canvas.nodes), SECOND + 760 + 3 * GAP
    ready = canvas.add("GuidanceSchedulePreset", (x, 0), width=340, height=150,
                       values={"preset": "low-high-low", "scale": 1.0, "off": 0.0, "floor": 0.0})
    capped = canvas.add("GuidanceScheduleMath", (x + 380, 0), {"a": (ready, 0)}, {"operation": "min", "b": 1.5}, width=340,
                        height=150)
    pag = canvas.add("GuidancePAG", (x, 216), {"model": (cfg, 0), "scale": (capped, 0)}, height=290)
    preview(canvas, (x + 340, 216), pag, capped, off=0.0)
    lower = max(lower, canvas.group("A ready-made schedule for PAG, at most 1.5", canvas.nodes[first:]))
    first, top = len(canvas.nodes), lower + 2 * HEAD
    steps = {"steps": 20, "cfg": 3.0}
    made = sampler(canvas, (SECOND, top), (pag, 0), shared, steps)
    decoded = canvas.folded("VAEDecode", (SECOND + 280 + GAP, top), {"samples": (made, 0), "vae": shared["vae"]})
    picture(canvas, (SECOND + 280 + GAP, top + 50), decoded, (380, 300))
    canvas.group("Both at work", canvas.nodes[first:])
    plan = canvas.add("GuidancePlan", (x, top), {"model": (pag, 0)}, {**steps, "sampler_name": "euler", "scheduler": "normal"},
                      width=720, height=380)
    canvas.group("What it will compute", [plan])
    return canvas.text()


def picture(canvas, at, decoded, size):
    shown = canvas.add("PreviewImage", at, {"images": (decoded, 0)}, width=size[0], height=size[1])
    shown["outputs"] = []  # later ComfyUIs have one, and the files are the same from all


def preview(canvas, at, model, schedule, off):
    links = {"model": (model, 0), "schedule": (schedule, 0)}
    canvas.add("GuidanceSchedulePreview", at, links, {"scheduler": "normal", "off": off}, width=380, height=400)


def measured(known):
    canvas, shared = begun(known, MEASURED, 330)
    first = len(canvas.nodes)
    cfg = canvas.add("GuidanceCFG", (SECOND, 0), {"model": shared["model"]}, {"scale": "0:8, 1:3"})
    pag = canvas.add("GuidancePAG", (SECOND, 260), {"model": (cfg, 0)}, {"scale": 1.0})
    apg = canvas.add("GuidanceAPG", (SECOND, 560), {"model": (pag, 0)})
    probe = canvas.add("GuidanceProbe", (SECOND + 300 + GAP, 0), {"model": (apg, 0)}, width=340, height=520)
    x = SECOND + 640 + 2 * GAP
    made = sampler(canvas, (x, 0), (probe, 0), shared, {"steps": 20, "cfg": 8.0})
    decoded = canvas.folded("VAEDecode", (x, 320), {"samples": (made, 0), "vae": shared["vae"]})
    picture(canvas, (x, 370), decoded, (280, 300))
    canvas.add("GuidanceProbePlot", (x + 280 + GAP, 0), {"probe": (probe, 1), "latent": (made, 0)}, width=400, height=800)
    canvas.group("CFG, PAG and APG, and a probe that sees all three", canvas.nodes[first:])
    return canvas.text()
