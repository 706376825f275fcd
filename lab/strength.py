"""`python lab strength`: how strongly each scale guides the bundled model over a run, as a probe on the wire sees it."""

import comfy.utils
import nodes

from ..guidance.measures import CFG
from ..nodes.curves import Box, picture
from ..nodes.demo.model import load
from ..nodes.probe import ProbeNode
from . import sweep
from .demo import PROMPTS

SCALES, STEPS = (1.0, 2.0, 4.0, 8.0, 16.0), 20
SHOWN = [0, 1, 2, 4, 7, 10, 13, 16, 19]  # steps with a row of the tables
MEASURES = {  # by title, from what a probe records of a stream
    "direction of guidance: length, cond's = 1": lambda seen: seen["direction"],
    "its cosine to cond": lambda seen: seen["cosine_to_cond"],
    "its cosine to the step before": lambda seen: seen["cosine_to_last"],
    "what CFG added, as a share of the answer": lambda seen: seen["added"][CFG],
    "deviation of the answer, cond's = 1": lambda seen: seen["std_ratio"],
}


def record(model, clip, scale):
    """What a probe records of a run of all the demo's prompts at a scale."""
    probed, probe = ProbeNode.execute(model).result
    positive, negative = (sweep.encode(clip, texts) for texts in (PROMPTS, [""] * len(PROMPTS)))
    latent = nodes.EmptyLatentImage().generate(32, 32, len(PROMPTS))[0]
    nodes.common_ksampler(probed, 1, STEPS, scale, "euler", "normal", positive, negative, latent)
    return probe.seen.record()


def report(path):
    """Print a table for each measure, and write all of them as curves to `path`, a PNG."""
    comfy.utils.set_progress_bar_enabled(False)
    model, clip, _ = load()
    records = {scale: record(model, clip, scale) for scale in SCALES}
    sigmas, shown = records[SCALES[0]]["sigma"], []
    for title, read in MEASURES.items():
        lines = {f"cfg {scale:g}": read(found["streams"][0]) for scale, found in records.items()}
        shown.append(Box(title, dict(list(lines.items())[1:])))  # at cfg 1 nothing is guided
        print(f"\n{title}\n\n| step | sigma | {' | '.join(lines)} |\n|{'---|' * (2 + len(lines))}")
        for i in SHOWN:
            cells = ["-" if values[i] is None else f"{values[i]:.2f}" for values in lines.values()]
            print(f"| {i} | {sigmas[i]:.3g} | {' | '.join(cells)} |")
    caption = f"Means of {len(PROMPTS)} prompts of the bundled model, euler"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(shown, records[SCALES[0]]["step"], {"sigma": sigmas}, caption).save(path)
    print(f"\n{path}")
