"""The example workflows that end in a labelled sheet: two sweeps, and the five pictures that explain what CFG is."""
from .canvas import GAP, Canvas, setup

LEFT = 300 + 3 * GAP
SAMPLED = {"steps": 16, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal"}
ANOTHER = "a big circle on blue"  # the prompt without its color
VIEW, OFFSET = 0.82, (90, 130)

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

Schedules are values too, one a line: `0:1, 0.5:8, 1:1`."""

FIVE = f"""\
# What is CFG? Five pictures

All have the same noise.

- **cond only** (cfg 1) is what the model makes of the prompt.
- **uncond only** (cfg 0) is what it makes of the negative, here the empty prompt.
- **both** (cfg 5) goes from the second through the first, and five times as far.
- **another null** goes away from `{ANOTHER}` instead, so only the red is driven further.
- **reversed**: prompt and negative exchanged. It goes away from the prompt: the same as cfg -4."""


def files(known):
    return {"compare_cfg_by_seed.json": cfg_by_seed(known), "compare_cfg_by_pag.json": cfg_by_pag(known),
            "five_pictures.json": five_pictures(known)}


def begun(known, text):
    """(canvas, what its samplers share) with a note and the model."""
    canvas = Canvas(known)
    canvas.note((0, 0), (300, 380), text)
    return canvas, setup(canvas, 480, batch=1)


def cfg_by_seed(known):
    canvas, shared = begun(known, CFG_BY_SEED)
    values = to_try(canvas, second="1..3 by 1", second_name="seed")
    first = len(canvas.nodes)
    cfg = canvas.add("GuidanceCFG", (LEFT, 440), {"model": shared["model"], "scale": (values, 0)})
    sampler = sampled(canvas, shared, (LEFT, 700), cfg, {"seed": (values, 1)})
    canvas.group("What is tried", canvas.nodes[first:])
    ended(canvas, shared, values, sampler)
    return canvas.text(VIEW, OFFSET)


def cfg_by_pag(known):
    canvas, shared = begun(known, CFG_BY_PAG)
    values = to_try(canvas, second="0, 0.5, 1", second_name="PAG")
    first = len(canvas.nodes)
    cfg = canvas.add("GuidanceCFG", (LEFT, 440), {"model": shared["model"], "scale": (values, 0)})
    pag = canvas.add("GuidancePAG", (LEFT, 700), {"model": (cfg, 0), "scale": (values, 1)}, {"layers": "middle, output"})
    sampler = sampled(canvas, shared, (LEFT, 1020), pag)
    canvas.group("What is tried", canvas.nodes[first:])
    ended(canvas, shared, values, sampler)
    return canvas.text(VIEW, OFFSET)


def to_try(canvas, **second):
    values = canvas.add("GuidanceValues", (LEFT, 0), values={"first": "1, 3, 8", "first_name": "cfg", **second}, height=320)
    canvas.group("Values", [values])
    return values


def sampled(canvas, shared, at, model, links=None):
    """A sampler; its prompts are the shared ones where links does not say."""
    named = {name: shared[name] for name in ("positive", "negative", "latent_image")}
    return canvas.add("KSampler", at, {"model": (model, 0), **named, **(links or {})}, SAMPLED, height=262)


def collapsed(canvas, kind, at, links):
    node = canvas.add(kind, at, links)
    node["flags"]["collapsed"] = True
    return node


def ended(canvas, shared, values, sampler):
    """From the sampler to the sheet."""
    first, x = len(canvas.nodes), LEFT + 300 + 3 * GAP
    decode = canvas.add("VAEDecode", (x, 0), {"samples": (sampler, 0), "vae": shared["vae"]}, width=220)
    sweep = canvas.add("GuidanceSweep", (x, 140), {"image": (decode, 0), "cell": (values, 3)}, width=220)
    on_a_sheet(canvas, (x + 220 + GAP, 0), {"images": (sweep, 0), "labels": (values, 2), "notes": (sweep, 1)})
    canvas.group("What came of it", canvas.nodes[first:])


def on_a_sheet(canvas, at, links, labels="", width=900, height=1000):
    sheet = canvas.add("GuidanceGrid", at, links, {"labels": labels}, width=width, height=height)
    sheet["outputs"][0]["links"] = []


def five_pictures(known):
    canvas, shared = begun(known, FIVE)
    other = canvas.add("CLIPTextEncode", (0, 1210), {"clip": shared["clip"]}, {"text": ANOTHER}, "Another null",
                       height=100)
    pictures = {
        "cond only": (1, {}),
        "uncond only": (0, {}),
        "both": (5, {}),
        "another null": (5, {"negative": (other, 0)}),
        "reversed": (5, {"positive": shared["negative"], "negative": shared["positive"]}),
    }
    costs = []
    for i, (title, (scale, prompts)) in enumerate(pictures.items()):
        first, x = len(canvas.nodes), LEFT + i * (300 + 2 * GAP)
        cfg = canvas.add("GuidanceCFG", (x, 0), {"model": shared["model"]}, {"scale": str(scale)})
        sampler = sampled(canvas, shared, (x, 340), cfg, prompts)
        decode = collapsed(canvas, "VAEDecode", (x, 670), {"samples": (sampler, 0), "vae": shared["vae"]})
        costs.append(collapsed(canvas, "GuidanceCost", (x, 720), {"image": (decode, 0)}))
        lowest = canvas.group(title, canvas.nodes[first:])
    top, first = lowest + 2 * GAP, len(canvas.nodes)
    lists = []
    for output, title in enumerate(("Pictures", "Costs")):
        each = {f"inputs.input{i}": (cost, output) for i, cost in enumerate(costs)}
        lists.append(canvas.add("CreateList", (LEFT, top + 200 * output), each, title=title, width=220, height=130))
    links = {"images": (lists[0], 0), "notes": (lists[1], 0)}
    on_a_sheet(canvas, (LEFT + 220 + GAP, top), links, ", ".join(pictures), width=1300, height=430)
    canvas.group("Side by side", canvas.nodes[first:])
    return canvas.text(0.72, OFFSET)
