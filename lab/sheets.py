"""The example workflows that end in a labelled sheet: two sweeps, the five pictures that explain what CFG is, and a
model that is guided in one row."""
from .canvas import GAP, begun, listed, sampler

LEFT = 300 + GAP + GAP // 2  # the left edge of the second column
SAMPLED = {"steps": 16, "cfg": 3.0}
ANOTHER = "a big circle on blue"  # the prompt without its color

CFG_BY_SEED = """\
# Which cfg?

Press **Run**. *Values to try* is wired to two knobs: the scale of *CFG*, and the sampler's seed. *Run each cell* runs what is
between once for each pair, and *Labelled sheet* shows all pictures, with rows and seconds.

Now add a value and run again: only its own pictures are computed.

Any knob of any node can be swept: wire *first* or *second* to its widget."""

CFG_BY_PAG = """\
# How much cfg, how much PAG?

Two strategies on one MODEL wire, and a value of each for every picture. Below each is what it cost: PAG takes a row of its
own, and so does the negative of a cfg above 1.

Schedules are values too, one a line: *0:1, 0.5:8, 1:1*."""

FIVE = f"""\
# What is CFG? Five pictures

All have the same noise.

- **cond only** (cfg 1) is what the model makes of the prompt.
- **uncond only** (cfg 0) is what it makes of the negative, here the empty prompt.
- **both** (cfg 5) goes from the second through the first, and five times as far.
- **another null** goes away from *{ANOTHER}* instead, so only the red is driven further.
- **reversed**: prompt and negative exchanged. It goes away from the prompt: the same as cfg -4."""

ONE_ROW = """\
# Guidance in one row

CFG asks the model twice at every step. This one was trained to say both at once, with the prompt and without it, and
**Single-pass guidance** guides from one to the other in **one row**.

*Two rows*: without that node it is guided as any other model. Rows and seconds stand under each picture.

Its second half is small and was trained for minutes: its guidance is near CFG's, and not the same."""


def files(known):
    return {"compare_cfg_by_seed.json": cfg_by_seed(known), "compare_cfg_by_pag.json": cfg_by_pag(known),
            "what_cfg_is.json": five_pictures(known), "guidance_in_one_row.json": one_row(known)}


def cfg_by_seed(known):
    canvas, shared = begun(known, CFG_BY_SEED, 330)
    values, cfg = tried(canvas, shared, second="1..3 by 1", second_name="seed")
    canvas.group("What is tried", [values, cfg])
    ended(canvas, shared, values, cfg, {"seed": (values, 1)})
    return canvas.text()


def cfg_by_pag(known):
    canvas, shared = begun(known, CFG_BY_PAG, 330)
    values, cfg = tried(canvas, shared, second="0, 0.5, 1", second_name="PAG")
    pag = canvas.add("GuidancePAG", (LEFT, 640), {"model": (cfg, 0), "scale": (values, 1)}, {"layers": "middle, output"})
    canvas.group("What is tried", [values, cfg, pag])
    ended(canvas, shared, values, pag)
    return canvas.text()


def tried(canvas, shared, **second):
    """The values, and a CFG whose scale is the first of them."""
    values = canvas.add("GuidanceValues", (LEFT, 0), values={"first": "1, 3, 8", "first_name": "cfg", **second}, height=320)
    return values, canvas.add("GuidanceCFG", (LEFT, 400), {"model": shared["model"], "scale": (values, 0)})


def ended(canvas, shared, values, model, links=None):
    """From the model to the sheet."""
    first, x = len(canvas.nodes), LEFT + 300 + 2 * GAP
    made = sampler(canvas, (x, 0), (model, 0), {**shared, **(links or {})}, SAMPLED)
    decoded = canvas.add("VAEDecode", (x, 330), {"samples": (made, 0), "vae": shared["vae"]}, width=280)
    sweep = canvas.add("GuidanceSweep", (x, 470), {"image": (decoded, 0), "cell": (values, 3)}, width=280)
    on_a_sheet(canvas, (x + 280 + GAP, 0), {"images": (sweep, 0), "labels": (values, 2), "notes": (sweep, 1)})
    canvas.group("What came of it", canvas.nodes[first:])


def on_a_sheet(canvas, at, links, labels="", width=860, height=960):
    canvas.add("GuidanceGrid", at, links, {"labels": labels}, width=width, height=height)


def one_row(known):
    canvas, shared = begun(known, ONE_ROW, 320, network="single-pass")
    first = len(canvas.nodes)
    costs = []
    cfg = canvas.add("GuidanceCFG", (LEFT, 0), {"model": shared["model"]}, {"scale": "0:8, 1:4"}, width=280)
    single = canvas.add("GuidanceSinglePass", (LEFT, 340), {"model": (cfg, 0)}, width=280)
    for y, model in ((0, cfg), (340, single)):
        made = sampler(canvas, (LEFT + 280 + GAP, y), (model, 0), shared, {"steps": 16, "cfg": 6.0})
        x = LEFT + 2 * (280 + GAP)
        decoded = canvas.folded("VAEDecode", (x, y), {"samples": (made, 0), "vae": shared["vae"]})
        costs.append(canvas.folded("GuidanceCost", (x, y + 60), {"image": (decoded, 0)}))
    canvas.group("The same model, asked twice and once", canvas.nodes[first:])
    first, x = len(canvas.nodes), x + 160 + 3 * GAP
    lists = [listed(canvas, costs, (x, 60 * output), title, output) for output, title in enumerate(("Pictures", "Costs"))]
    on_a_sheet(canvas, (x, 130), {"images": (lists[0], 0), "notes": (lists[1], 0)}, "two rows, one row", width=700, height=480)
    canvas.group("Side by side", canvas.nodes[first:])
    return canvas.text()


def five_pictures(known):
    canvas, shared = begun(known, FIVE, 300, third=("Another null", ANOTHER))
    pictures = {
        "cond only": (1, {}),
        "uncond only": (0, {}),
        "both": (5, {}),
        "another null": (5, {"negative": shared["Another null"]}),
        "reversed": (5, {"positive": shared["negative"], "negative": shared["positive"]}),
    }
    costs = []
    for i, (title, (scale, prompts)) in enumerate(pictures.items()):
        first, x = len(canvas.nodes), LEFT + i * (280 + 3 * GAP // 2)
        cfg = canvas.add("GuidanceCFG", (x, 0), {"model": shared["model"]}, {"scale": str(scale)}, width=280)
        made = sampler(canvas, (x, 240), (cfg, 0), {**shared, **prompts}, SAMPLED)
        decoded = canvas.folded("VAEDecode", (x, 560), {"samples": (made, 0), "vae": shared["vae"]})
        costs.append(canvas.folded("GuidanceCost", (x, 610), {"image": (decoded, 0)}))
        lowest = canvas.group(title, canvas.nodes[first:])
    top, first = lowest + 2 * GAP, len(canvas.nodes)
    lists = [listed(canvas, costs, (LEFT, top + 60 * output), title, output)
             for output, title in enumerate(("Pictures", "Costs"))]
    links = {"images": (lists[0], 0), "notes": (lists[1], 0)}
    on_a_sheet(canvas, (LEFT + 220, top), links, ", ".join(pictures), width=1420, height=330)
    canvas.group("Side by side", canvas.nodes[first:])
    return canvas.text()
